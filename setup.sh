#!/bin/sh
# Make the virtual environment .venv with what the given requirements files name; quick when it is there.
set -e
cd "$(dirname "$0")"
[ -x .venv/bin/python ] || python3 -m venv .venv
for file in "$@"; do
    .venv/bin/python -m pip install --quiet --disable-pip-version-check -r "$file"
done
