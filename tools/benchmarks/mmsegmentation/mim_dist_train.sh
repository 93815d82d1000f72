#!/usr/bin/env bash
# Fine-tuning of a segmentor in GPUS processes. Named and called as
# mmpretrain's; openmim itself is not needed.
# Usage: tools/benchmarks/mmsegmentation/mim_dist_train.sh CONFIG PRETRAIN GPUS [ARGS of train.py ...]
# Environment: NNODES, NODE_RANK, MASTER_ADDR, PORT, PYTHON.
source "$(dirname "$0")/../common.sh"
require_args 3 "$@"
start_from "$1" "$2"
launch_dist "$3" train.py "$1" --launcher=pytorch \
    "${STUDENT[@]}" model.pretrained=None "${@:4}"
