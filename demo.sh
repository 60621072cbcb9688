#!/bin/sh
# From a fresh clone to images and meshes: sets up, makes the toy data, trains for a few minutes on
# the CPU (or a GPU), draws samples, and measures what was learned. Results go to demo-out/.
set -e
cd "$(dirname "$0")"
out=demo-out
kimg=${KIMG:-8}

echo "1/4 setting up (.venv)"
./setup.sh requirements.txt
echo "2/4 training on procedural heads for $kimg kimg; pictures and logs appear in $out"
rm -rf "$out"
.venv/bin/python train.py --cfg toy --outdir "$out" --kimg "$kimg" --desc demo
network=$(ls "$out"/*/network-*.safetensors | tail -n 1)
echo "3/4 drawing images and meshes"
.venv/bin/python gen_samples_pose.py --outdir "$out/samples" --network "$network" \
    --seeds 0-15 --trunc 0.7 --yaw=-40,-20,0,20,40
.venv/bin/python gen_samples_pose.py --outdir "$out/shapes" --network "$network" \
    --seeds 0-3 --trunc 0.7 --shapes true --shape-format .ply --shape-res 96
echo "4/4 measuring against the ground truth, which training never saw"
.venv/bin/python -m training.toy_evaluation --network "$network"
echo "done: look at $out/samples/contact_sheet.png, $out/shapes/*.ply and the run folder in $out"
