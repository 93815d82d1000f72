#!/usr/bin/env bash
# Usage: tools/slurm_test.sh PARTITION JOB_NAME CONFIG CHECKPOINT [ARGS of test.py ...]
# Environment: GPUS, GPUS_PER_NODE, CPUS_PER_TASK, SRUN_ARGS, PYTHON.
source "$(dirname "$0")/launch.sh"
require_args 4 "$@"
launch_slurm "$1" "$2" test.py "$3" "$4" --launcher=slurm "${@:5}"
