#!/usr/bin/env bash
# Usage: tools/dist_train.sh CONFIG GPUS [ARGS of train.py ...]
# Environment: NNODES, NODE_RANK, MASTER_ADDR, PORT, PYTHON.
# Without a GPU the processes train on the CPU.
source "$(dirname "$0")/launch.sh"
require_args 2 "$@"
launch_dist "$2" train.py "$1" --launcher=pytorch "${@:3}"
