#!/bin/sh
# For whoever has a GPU: checks everything on it, times it, and writes docs/performance-gpu.md.
# See benchmarks/gpu.py; --help shows the options.
cd "$(dirname "$0")/.." && exec "${PYTHON:-python}" -m benchmarks.gpu "$@"
