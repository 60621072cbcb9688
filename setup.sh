#!/bin/sh
# Make the virtual environment .venv with what the given requirements files name; quick when it is there.
#
#     ./setup.sh [--cpu] requirements.txt …
#
# --cpu takes the build of torch without CUDA, which is a tenth of the size; POF3D_TORCH_INDEX=URL takes it
# from another index. PYTHON=… chooses the interpreter.
set -e
cd "$(dirname "$0")"
python=${PYTHON:-python3}
if [ "$1" = --cpu ]; then
    shift
    POF3D_TORCH_INDEX=${POF3D_TORCH_INDEX:-https://download.pytorch.org/whl/cpu}
fi
if ! [ -x .venv/bin/python ]; then
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
        echo "setup.sh: Python 3.11 or newer is needed; $python is $("$python" --version 2>&1)." \
            "Say which: PYTHON=python3.12 $0 $*" >&2
        exit 1
    }
    "$python" -m venv .venv
fi
install() { .venv/bin/python -m pip install --quiet --disable-pip-version-check "$@"; }
if [ -n "$POF3D_TORCH_INDEX" ]; then
    install --index-url "$POF3D_TORCH_INDEX" "$(grep '^torch==' requirements.txt)"
fi
for file in "$@"; do
    install -r "$file"
done
