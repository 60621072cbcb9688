#!/bin/sh
# Train a run whose poses collapse, and keep its pictures: docs/figures/collapsed_run.sh (from anywhere).
# The published losses, started with poses of 2 degrees: 250 steps, two minutes of one idle CPU thread.
set -e
cd "$(dirname "$0")/../.."
runs=$(mktemp -d)
trap 'rm -rf "$runs"' EXIT

OMP_NUM_THREADS=1 "${PYTHON:-python}" train.py --cfg toy --outdir "$runs" --device cpu --seed 0 --kimg 2 --tick 0.5 \
    --workers 0 --set camera.init_std=0.03,0.03 --set camera.swap_poses_prob=0 --set loss.pose_entropy_weight=0
for picture in yaws poses; do
    cp "$runs"/*/$picture-000002.00.png docs/images/collapsed-$picture.png
done
