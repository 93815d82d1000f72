#!/usr/bin/env bash
# kNN classification with a student's features, on a cluster.
# Usage: tools/benchmarks/classification/slurm_test_knn.sh PARTITION JOB_NAME CONFIG PRETRAIN [ARGS of test_knn.py ...]
# Environment: GPUS (default 8), GPUS_PER_NODE, CPUS_PER_TASK, SRUN_ARGS, PYTHON.
source "$(dirname "$0")/../common.sh"
require_args 4 "$@"
require_file CONFIG "$3"
require_file PRETRAIN "$4"
launch_slurm "$1" "$2" benchmarks/classification/test_knn.py "$3" \
    --checkpoint="$4" --launcher=slurm "${@:5}"
