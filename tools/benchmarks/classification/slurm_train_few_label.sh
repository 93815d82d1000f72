#!/usr/bin/env bash
# Training from LABELS images of every class, on a cluster. Another draw of
# them: train_dataloader.dataset.draw=1 among ARGS.
# Usage: tools/benchmarks/classification/slurm_train_few_label.sh PARTITION JOB_NAME CONFIG PRETRAIN LABELS [ARGS of train.py ...]
# Environment: GPUS (default 4), GPUS_PER_NODE, CPUS_PER_TASK, SRUN_ARGS, PYTHON.
source "$(dirname "$0")/../common.sh"
require_args 5 "$@"
start_from "$3" "$4" "$5"
use_gpus 4
launch_slurm "$1" "$2" train.py "$3" --launcher=slurm "${STUDENT[@]}" "${@:6}"
