#!/bin/sh
# Draw the pictures of the human heads again: docs/figures/human_heads.sh (from anywhere).
set -e
cd "$(dirname "$0")/../.."
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
python=${PYTHON:-python}

"$python" -m recipes.human_heads --dest "$out/studio.zip" --kind studio --count 32 --resolution 128
"$python" docs/figures/grid.py --dest docs/images/human-heads-studio.png --count 32 "$out/studio.zip"
"$python" -m recipes.human_heads --dest "$out/wild.zip" --kind wild --count 24 --resolution 104
"$python" docs/figures/grid.py --dest docs/images/human-heads-wild.png --count 24 "$out/wild.zip"
