#!/bin/sh
# Draw the pictures of the human heads again: docs/figures/human_heads.sh (from anywhere).
set -e
cd "$(dirname "$0")/../.."
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
python=${PYTHON:-python}

draw() { # kind, number, pixels
    "$python" -m recipes.human_heads --dest "$out/$1.zip" --kind "$1" --count "$2" --resolution "$3"
    "$python" -m zipfile -e "$out/$1.zip" "$out/$1"
    "$python" docs/figures/sheet.py --columns 8 --dest "docs/images/human-heads-$1.png" "$out/$1"/*/*.png
}
draw studio 32 128
draw wild 24 104
