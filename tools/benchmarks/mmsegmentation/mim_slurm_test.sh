#!/usr/bin/env bash
# Test of a fine-tuned segmentor on a cluster. Named and called as
# mmpretrain's; openmim itself is not needed.
# Usage: tools/benchmarks/mmsegmentation/mim_slurm_test.sh PARTITION CONFIG CHECKPOINT [ARGS of test.py ...]
# Environment: JOB_NAME, GPUS (default 4), GPUS_PER_NODE, CPUS_PER_TASK, SRUN_ARGS, PYTHON.
source "$(dirname "$0")/../common.sh"
require_args 3 "$@"
require_file CONFIG "$2"
require_file CHECKPOINT "$3"
use_gpus 4
launch_slurm "$1" "${JOB_NAME:-test}" test.py "$2" "$3" --launcher=slurm \
    "${@:4}"
