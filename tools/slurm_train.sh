#!/usr/bin/env bash
# Usage: tools/slurm_train.sh PARTITION JOB_NAME CONFIG WORK_DIR [ARGS of train.py ...]
# Environment: GPUS, GPUS_PER_NODE, CPUS_PER_TASK, SRUN_ARGS, PYTHON.
source "$(dirname "$0")/launch.sh"
require_args 4 "$@"
launch_slurm "$1" "$2" train.py "$3" --work-dir="$4" --launcher=slurm "${@:5}"
