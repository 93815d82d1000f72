#!/usr/bin/env bash
# Test of a fine-tuned segmentor in GPUS processes. Named and called as
# mmpretrain's; openmim itself is not needed.
# Usage: tools/benchmarks/mmsegmentation/mim_dist_test.sh CONFIG CHECKPOINT GPUS [ARGS of test.py ...]
# Environment: NNODES, NODE_RANK, MASTER_ADDR, PORT, PYTHON.
source "$(dirname "$0")/../common.sh"
require_args 3 "$@"
require_file CONFIG "$1"
require_file CHECKPOINT "$2"
launch_dist "$3" test.py "$1" "$2" --launcher=pytorch "${@:4}"
