#!/usr/bin/env bash
# kNN classification with a student's features, embedded by GPUS processes.
# On this machine alone: python tools/benchmarks/classification/test_knn.py.
# Usage: tools/benchmarks/classification/dist_test_knn.sh CONFIG PRETRAIN [ARGS of test_knn.py ...]
# Environment: GPUS (default 8), NNODES, NODE_RANK, MASTER_ADDR, PORT, PYTHON.
source "$(dirname "$0")/../common.sh"
require_args 2 "$@"
require_file CONFIG "$1"
require_file PRETRAIN "$2"
launch_dist "${GPUS:-8}" benchmarks/classification/test_knn.py "$1" \
    --checkpoint="$2" --launcher=pytorch "${@:3}"
