#!/usr/bin/env bash
# Training from LABELS images of every class, in GPUS processes. Another draw
# of them: train_dataloader.dataset.draw=1 among ARGS.
# Usage: tools/benchmarks/classification/dist_train_few_label.sh CONFIG PRETRAIN LABELS [ARGS of train.py ...]
# Environment: GPUS (default 4), NNODES, NODE_RANK, MASTER_ADDR, PORT, PYTHON.
source "$(dirname "$0")/../common.sh"
require_args 3 "$@"
start_from "$1" "$2" "$3"
launch_dist "${GPUS:-4}" train.py "$1" --launcher=pytorch \
    "${STUDENT[@]}" "${@:4}"
