# Sourced by ffhq.sh, cats.sh and shapenet_cars.sh: train.py with the preset that the script is named
# after, which holds the paper's settings (training/config.py).
preset=$(basename "$0" .sh)
if [ $# -eq 0 ]; then
    echo "usage: $0 DATA [more options of train.py, e.g. --gpus 2 --batch-gpu 4]" >&2
    echo "DATA: a zip or folder of images; docs/data.md says which" >&2
    exit 2
fi
data=$1
shift
exec "${PYTHON:-python}" "$(dirname "$0")/train.py" \
    --cfg "$preset" --data "$data" --outdir runs --gpus 8 "$@"
