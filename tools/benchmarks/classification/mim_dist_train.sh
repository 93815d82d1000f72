#!/usr/bin/env bash
# Linear evaluation or fine-tuning, as CONFIG says, in GPUS processes. Named
# and called as mmselfsup's; openmim itself is not needed.
# Usage: tools/benchmarks/classification/mim_dist_train.sh CONFIG PRETRAIN [ARGS of train.py ...]
# Environment: GPUS (default 8), NNODES, NODE_RANK, MASTER_ADDR, PORT, PYTHON.
source "$(dirname "$0")/../common.sh"
require_args 2 "$@"
start_from "$1" "$2"
launch_dist "${GPUS:-8}" train.py "$1" --launcher=pytorch \
    "${STUDENT[@]}" "${@:3}"
