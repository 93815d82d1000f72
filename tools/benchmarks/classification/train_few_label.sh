#!/usr/bin/env bash
# Training from LABELS images of every class, on this machine: one GPU, or the
# CPU. Another draw of them: train_dataloader.dataset.draw=1 among ARGS.
# Usage: tools/benchmarks/classification/train_few_label.sh CONFIG PRETRAIN LABELS [ARGS of train.py ...]
source "$(dirname "$0")/../common.sh"
require_args 3 "$@"
start_from "$1" "$2" "$3"
exec "$PYTHON" "$TOOLS/train.py" "$1" "${STUDENT[@]}" "${@:4}"
