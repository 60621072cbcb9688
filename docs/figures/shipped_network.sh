#!/bin/sh
# Draw the pictures of a shipped network again: docs/figures/shipped_network.sh heads|toy
set -e
cd "$(dirname "$0")/../.."
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
name=${1:?usage: $0 heads|toy}
network=models/$name.safetensors
python=${PYTHON:-python}

"$python" gen_samples_pose.py --network "$network" --outdir "$out/yaws" --seeds 0-7 --trunc 0.7 \
    --yaw=-40,-20,0,20,40 --render-size 128
"$python" gen_samples_pose.py --network "$network" --outdir "$out/shapes" --seeds 0-3 --trunc 0.7 \
    --shapes true --shape-format .ply --shape-preview --keep-largest
cp "$out/yaws/contact_sheet.png" "docs/images/$name.png"
"$python" gen_videos.py --network "$network" --dest "docs/images/$name-orbit.gif" --render-size 96 \
    --frames 32 --fps 12
"$python" docs/figures/sheet.py --side 192 --dest "docs/images/$name-shapes.png" "$out"/shapes/*_shape.png
[ "$name" = toy ] || exit 0
"$python" gen_videos.py --network "$network" --dest docs/images/toy-turntable.gif \
    --trajectory turntable --render-size 128 --seeds 2,4,6,7 --grid 4x1
# The plot of poses that training draws, before the first step.
"$python" train.py --cfg toy --outdir "$out/runs" --device cpu --kimg 0.008 --workers 0 \
    --resume "$network"
cp "$out"/runs/*/poses-000000.00.png docs/images/toy-poses.png
