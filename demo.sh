#!/bin/sh
# From a fresh clone to images and meshes: sets up, draws from the trained network that comes along,
# then makes the toy data, trains afresh for a few minutes on the CPU (or a GPU), draws from that, and
# measures what was learned. Results go to demo-out/.
set -e
cd "$(dirname "$0")"
out=demo-out
kimg=${KIMG:-8}

draw() { # network, folder: pictures from five sides, and meshes
    .venv/bin/python gen_samples_pose.py --outdir "$2/samples" --network "$1" \
        --seeds 0-15 --trunc 0.7 --yaw=-40,-20,0,20,40 --render-size 128
    .venv/bin/python gen_samples_pose.py --outdir "$2/shapes" --network "$1" \
        --seeds 0-3 --trunc 0.7 --shapes true --shape-format .glb --shape-res 96
    .venv/bin/python gen_videos.py --dest "$2/orbit.gif" --network "$1" --render-size 128
}

echo "1/5 setting up (.venv)"
./setup.sh requirements.txt
rm -rf "$out"
mkdir "$out"
echo "2/5 drawing from the trained network in models/"
draw models/heads.safetensors "$out/trained"
echo "3/5 training afresh on procedural heads for $kimg kimg; pictures and logs appear in $out/runs"
.venv/bin/python train.py --cfg toy --outdir "$out/runs" --kimg "$kimg" --desc demo
echo "4/5 drawing images and meshes"
draw "$out/runs" "$out/fresh"
echo "5/5 measuring against the ground truth, which training never saw"
.venv/bin/python -m training.evaluation.ground_truth --network "$out/runs"
echo "done: look at contact_sheet.png, orbit.gif and the meshes in $out/trained and $out/fresh, and at"
echo "the run folder in $out/runs"
