#!/usr/bin/env bash
# The five folds of ESC-50: each is tested on after training on the others;
# prints the mean over folds. Finished steps are kept.
# Usage: tools/benchmarks/audio/esc50_folds.sh CONFIG PRETRAIN [KEY=VALUE ...]
# PRETRAIN is an exported student, or "scratch"; KEY=VALUE is of --cfg-options.
# WORK=FOLDER in the environment takes the runs.
source "$(dirname "$0")/../common.sh"
require_args 2 "$@"
config=$1
pretrain=$2
shift 2
if [[ $pretrain == scratch ]]; then
    STUDENT=(--cfg-options model.backbone.init_cfg=None)
    name="$(basename "$config" .py)/scratch"
else
    start_from "$config" "$pretrain"
    name="$(basename "$config" .py)/$(basename "$pretrain" .pth)"
    STUDENT=("${STUDENT[@]:2}") # without its work directory
fi
WORK=${WORK:-work_dirs/$name}
files=""
for fold in 1 2 3 4 5; do
    others=$(tr -d "$fold" <<<12345 | sed 's/./&,/g')
    dir=$WORK/fold_$fold
    folds=(
        "train_dataloader.dataset.folds=($others)"
        "val_dataloader.dataset.folds=($fold,)"
        "test_dataloader.dataset.folds=($fold,)"
    )
    if [[ ! -e $dir/finished ]]; then
        "$PYTHON" "$TOOLS/train.py" "$config" --work-dir "$dir" \
            --no-validate "${STUDENT[@]}" "${folds[@]}" "$@"
        touch "$dir/finished"
    fi
    if [[ ! -e $dir/metrics.json ]]; then
        "$PYTHON" "$TOOLS/test.py" "$config" "$(cat "$dir/last_checkpoint")" \
            --work-dir "$dir/test" --out "$dir/metrics.json" \
            --out-item metrics --cfg-options "${folds[@]}" "$@"
    fi
    files+=",$dir/metrics.json"
done
"$PYTHON" "$TOOLS/benchmarks/mean_metrics.py" "$name=${files#,}" \
    --metrics accuracy/top1 accuracy/top5
