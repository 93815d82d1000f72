#!/usr/bin/env bash
# Fine-tuning of a segmentor on a cluster. Named and called as mmpretrain's;
# openmim itself is not needed.
# Usage: tools/benchmarks/mmsegmentation/mim_slurm_train.sh PARTITION CONFIG PRETRAIN [ARGS of train.py ...]
# Environment: JOB_NAME, GPUS (default 4), GPUS_PER_NODE, CPUS_PER_TASK, SRUN_ARGS, PYTHON.
source "$(dirname "$0")/../common.sh"
require_args 3 "$@"
start_from "$2" "$3"
use_gpus 4
launch_slurm "$1" "${JOB_NAME:-train}" train.py "$2" --launcher=slurm \
    "${STUDENT[@]}" model.pretrained=None "${@:4}"
