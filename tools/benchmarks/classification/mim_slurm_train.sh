#!/usr/bin/env bash
# Linear evaluation or fine-tuning, as CONFIG says, on a cluster. Named and
# called as mmselfsup's; openmim itself is not needed.
# Usage: tools/benchmarks/classification/mim_slurm_train.sh PARTITION JOB_NAME CONFIG PRETRAIN [ARGS of train.py ...]
# Environment: GPUS (default 8), GPUS_PER_NODE, CPUS_PER_TASK, SRUN_ARGS, PYTHON.
source "$(dirname "$0")/../common.sh"
require_args 4 "$@"
start_from "$3" "$4"
launch_slurm "$1" "$2" train.py "$3" --launcher=slurm "${STUDENT[@]}" "${@:5}"
