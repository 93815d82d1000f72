#!/usr/bin/env bash
# Test of a fine-tuned segmentor on this machine: one GPU, or the CPU.
# Usage: tools/benchmarks/mmsegmentation/test.sh CONFIG CHECKPOINT [ARGS of test.py ...]
source "$(dirname "$0")/../common.sh"
require_args 2 "$@"
exec "$PYTHON" "$TOOLS/test.py" "$@"
