#!/usr/bin/env bash
# Gathers what a Jetson without internet installs from: docs/jetson/wheels.sh PYTHON FOLDER
#
# PYTHON is the Jetson's: 3.10 on JetPack 6, 3.12 on JetPack 7. To be called in the checkout, on any machine with
# internet and a Python with pip, setuptools and wheel (PYTHON=… names one); nothing of the project is run. FOLDER then holds wheels for aarch64 of everything the
# product needs, PyCUDA as source (it has no wheels), and what PyCUDA is built with.
set -euo pipefail

fail() { echo "docs/jetson/wheels.sh: $1" >&2; exit 2; }

[ $# -eq 2 ] || fail 'give the Python of the Jetson (3.10 or 3.12) and a folder.'
case $1 in
    3.10) glibc=35 ;;
    3.12) glibc=39 ;;
    *) fail "JetPack 6 has Python 3.10 and JetPack 7 has 3.12, not $1." ;;
esac
[ -f pyproject.toml ] && [ -d engine ] || fail 'call it in the root of the checkout.'
folder=$2
python=${PYTHON:-python3}
# Before anything is downloaded: PyCUDA's source is looked into with them, and a new venv may lack them.
for module in pip setuptools wheel; do
    "$python" -c "import $module" 2>/dev/null \
        || fail "$python has no $module. Make an environment with it: python3 -m venv gather &&
    gather/bin/pip install pip setuptools wheel && PYTHON=gather/bin/python $0 $1 $2"
done
pycuda=2026.1
export PIP_DISABLE_PIP_VERSION_CHECK=1

mkdir -p "$folder"
# A wheel may name any glibc up to the Jetson's.
there=(--implementation cp --python-version "$1" --abi "cp${1/./}" --abi abi3 --abi none)
for minor in $(seq "$glibc" -1 17); do
    there+=(--platform "manylinux_2_${minor}_aarch64")
done
there+=(--platform manylinux2014_aarch64)

# In a copy: setuptools would leave its work in the checkout, and find there what an earlier state left.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp -r pyproject.toml README.md LICENSE engine export kernels bench "$work"
rm -f "$folder"/stenosis_trt-*.whl
"$python" -m pip wheel --quiet --no-deps --wheel-dir "$folder" "$work"
"$python" -m pip download --quiet --dest "$folder" --only-binary=:all: "${there[@]}" \
    "$folder"/stenosis_trt-*.whl 'cryptography>=42' 'pip>=24' setuptools wheel numpy pytools platformdirs mako
"$python" -m pip download --quiet --dest "$folder" --no-deps --no-build-isolation --no-binary=pycuda "pycuda==$pycuda"
echo "$folder holds $(find "$folder" -type f | wc -l) files for Python $1 on aarch64."
