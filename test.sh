#!/bin/sh
# Set up from nothing and run the tests. Arguments go to pytest: `./test.sh -m ''` runs the slow ones too.
set -e
cd "$(dirname "$0")"
./setup.sh requirements.txt requirements-dev.txt
exec .venv/bin/python -m pytest -q "$@"
