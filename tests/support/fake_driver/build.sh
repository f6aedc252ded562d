#!/bin/sh
# Builds the stand-in driver, FOLDER/libcuda.so.1, for LD_LIBRARY_PATH: build.sh FOLDER
set -e
cc -std=gnu11 -O1 -g -Wall -Wextra -Werror -shared -fPIC -Wl,-soname,libcuda.so.1 -o "$1/libcuda.so.1" \
    "$(dirname "$0")"/*.c -ldl -lpthread
