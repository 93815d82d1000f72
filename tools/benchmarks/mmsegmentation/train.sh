#!/usr/bin/env bash
# Fine-tuning of a segmentor on this machine: one GPU, or the CPU.
# Usage: tools/benchmarks/mmsegmentation/train.sh CONFIG PRETRAIN [ARGS of train.py ...]
source "$(dirname "$0")/../common.sh"
require_args 2 "$@"
start_from "$1" "$2"
exec "$PYTHON" "$TOOLS/train.py" "$1" \
    "${STUDENT[@]}" model.pretrained=None "${@:3}"
