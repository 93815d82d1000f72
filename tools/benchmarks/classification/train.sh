#!/usr/bin/env bash
# Linear evaluation or fine-tuning, as CONFIG says, on this machine: one GPU,
# or the CPU.
# Usage: tools/benchmarks/classification/train.sh CONFIG PRETRAIN [ARGS of train.py ...]
source "$(dirname "$0")/../common.sh"
require_args 2 "$@"
start_from "$1" "$2"
exec "$PYTHON" "$TOOLS/train.py" "$1" "${STUDENT[@]}" "${@:3}"
