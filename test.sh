#!/bin/sh
# Set up from nothing and run the tests, one process per core. Arguments go to pytest: `./test.sh -m ''` runs the
# slow ones too.
set -e
cd "$(dirname "$0")"
./setup.sh requirements.txt requirements-dev.txt
# One thread each: more would fight over the cores that the other processes use.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
exec .venv/bin/python -m pytest -q -n auto --dist loadfile "$@"
