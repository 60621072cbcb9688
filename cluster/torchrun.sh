#!/bin/sh
# Any machines that reach each other, without a scheduler: run this on each, within a quarter of an hour.
#
#     NODES=2 HEAD=node1:29400 cluster/torchrun.sh --cfg ffhq --data ffhq.zip --outdir /shared/runs
#
# NODES: number of machines, or 1:4 to go on with fewer while some are missing (the batch must be divisible).
# HEAD: the first machine and a free port there. GPUS: on each machine; all by default.
# Otherwise torch 2.13 does not tell a machine that comes back after a failure where to meet.
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
exec "${PYTHON:-python}" -m torch.distributed.run \
    --nnodes "${NODES:-1}" --nproc-per-node "${GPUS:-gpu}" \
    --rdzv-backend c10d --rdzv-endpoint "${HEAD:-localhost:29400}" --rdzv-id "${JOB:-pof3d}" \
    --max-restarts "${RESTARTS:-100}" --shutdown-timeout 180 \
    train.py --resume auto "$@"
