#!/bin/sh
# Train on shapenet_cars with the paper's settings: the preset of that name in training/config.py.
if [ $# -eq 0 ]; then
    echo "usage: $0 DATA [more options of train.py, e.g. --gpus 2 --batch-gpu 4]" >&2
    echo "DATA: a zip or folder of images; README.md, 'The paper's data sets', says which" >&2
    exit 2
fi
data=$1
shift
exec "${PYTHON:-python}" "$(dirname "$0")/train.py" \
    --cfg shapenet_cars --data "$data" --outdir runs --gpus 8 "$@"
