#!/usr/bin/env bash
# Installs PyCUDA in a virtual environment on a machine that needs neither a GPU, nor NVIDIA's driver, nor a CUDA
# toolkit: .ci/pycuda.sh VENV
#
# PyCUDA comes as source that wants cuda.h, and a libcuda to link. The headers are pip's, always the same ones: what is
# built binds to nothing newer than CUDA 12.6, and a toolkit on the machine makes no difference. The driver is the
# stand-in of tests/support/fake_driver. The wheel is kept for the next time. It also runs on a real driver for CUDA
# 12.6 or later, but was made for the tests: it lacks cuRAND, and is not optimised.
set -euo pipefail

pycuda=2026.1
headers=12.6.77
root=$(cd "$(dirname "$0")/.." && pwd)
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_QUIET=${PIP_QUIET:-1}

fail() { echo ".ci/pycuda.sh: $1" >&2; exit 1; }

[ $# -eq 1 ] && [ -x "$1/bin/python" ] || fail 'name one virtual environment to install PyCUDA in.'
python=$(cd "$1/bin" && pwd)/python
for compiler in cc c++; do
    command -v $compiler > /dev/null || fail "a C++ compiler is needed. Install it (Debian: g++)."
done

# Where wheels are kept: by what they were built with. A wheel's own name has its version, Python and architecture.
cache=${XDG_CACHE_HOME:-$HOME/.cache}/stenosis-trt/wheels/cuda-$headers
tag=$("$python" -c 'import sys; print("cp{}{}".format(*sys.version_info))')
mkdir -p "$cache"
find_wheel() { find "$cache" -name "pycuda-$pycuda-$tag-*_$(uname -m).whl" | head -1; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/driver"
"$root/tests/support/fake_driver/build.sh" "$work/driver"
ln -s libcuda.so.1 "$work/driver/libcuda.so"

build_wheel() {
    "$python" -c 'import os, sysconfig, sys; sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' ||
        fail "Python's headers are needed. Install them (Debian: python3-dev)."
    "$python" -m venv "$work/venv"
    local pip=$work/venv/bin/pip
    "$pip" install setuptools wheel 'numpy>=2'
    "$pip" install --no-deps --target "$work/cuda" \
        "nvidia-cuda-runtime-cu12==$headers" "nvidia-cuda-profiler-api-cu12==$headers"
    "$pip" download --no-deps --no-build-isolation --no-binary pycuda --dest "$work" "pycuda==$pycuda"
    tar -xzf "$work/pycuda-$pycuda.tar.gz" -C "$work"
    # Beside the source, where it comes before the user's and the machine's settings of PyCUDA, which stay as they are.
    cat > "$work/pycuda-$pycuda/siteconf.py" << EOF
CUDA_ROOT = "$work/cuda/nvidia"
CUDA_INC_DIR = ["$work/cuda/nvidia/cuda_runtime/include", "$work/cuda/nvidia/cuda_profiler_api/include"]
CUDADRV_LIB_DIR = ["$work/driver"]
CUDADRV_LIBNAME = ["cuda"]
CUDA_ENABLE_GL = False
CUDA_ENABLE_CURAND = False
CUDA_TRACE = False
USE_SHIPPED_BOOST = True
CXXFLAGS = ["-O1", "-g0", "-w"]
LDFLAGS = []
EOF
    "$pip" --no-cache-dir wheel --no-deps --no-build-isolation --wheel-dir "$work/wheels" "$work/pycuda-$pycuda"
    mv "$work"/wheels/pycuda-*.whl "$cache/"
}

wheel=$(find_wheel)
if [ -z "$wheel" ]; then
    echo "Building PyCUDA $pycuda for $tag: some minutes, the first time."
    build_wheel
    wheel=$(find_wheel)
    [ -n "$wheel" ] || fail "pip built a wheel of another name than expected: $(ls "$cache")."
fi
"$python" -m pip install -c "$root/constraints.txt" numpy "$wheel"
# What is linked here must be all in the stand-in driver, or no test could import it.
LD_LIBRARY_PATH=$work/driver "$python" -c 'import pycuda.driver' ||
    fail "PyCUDA $pycuda does not load on tests/support/fake_driver: add what it names to unsupported.c."
echo "PyCUDA $pycuda is in $1."
