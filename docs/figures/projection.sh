#!/bin/sh
# Project four portraits of people that the shipped network was not trained on, and draw the result:
# docs/figures/projection.sh (from anywhere).
set -e
cd "$(dirname "$0")/../.."
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
python=${PYTHON:-python}

"$python" -m zipfile -e tests/data/human_heads_64.zip "$out/portraits"
mkdir "$out/four"
find "$out/portraits" -name '*.png' | sort | sed -n '1p;3p;5p;7p' | while read -r picture; do
    cp "$picture" "$out/four"
done
"$python" project.py --network models/heads.safetensors --outdir "$out/found" "$out/four"
"$python" docs/figures/side_by_side.py --below --dest docs/images/projection.png "$out"/found/*.png
