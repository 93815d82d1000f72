#!/usr/bin/env bash
# Usage: tools/dist_test.sh CONFIG CHECKPOINT GPUS [ARGS of test.py ...]
# Environment: NNODES, NODE_RANK, MASTER_ADDR, PORT, PYTHON.
# Without a GPU the processes test on the CPU.
source "$(dirname "$0")/launch.sh"
require_args 3 "$@"
launch_dist "$3" test.py "$1" "$2" --launcher=pytorch "${@:4}"
