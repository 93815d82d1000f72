#!/usr/bin/env bash
# The tiny NYU benchmark of docs/benchmarks/nyu_depth_tiny.md: one teacher, a
# student of each method for each seed, few labels; joint training. Finished
# steps are kept. Several may run side by side, each with its SEEDS; once more
# with all of them prints the tables.
#   [SEEDS="0 1 2 3 4"] [WORK=work_dirs/nyu_tiny] bash tools/benchmarks/nyu_tiny.sh
set -euo pipefail
cd "$(dirname "$0")/../.."
SEEDS=${SEEDS:-0 1 2 3 4}
WORK=${WORK:-work_dirs/nyu_tiny}
PYTHON=${PYTHON:-python}
SEGMENTOR=configs/downstream/depth_nyu_tiny_fcn_r18.py

train() { # NAME CONFIG [KEY=VALUE ...]
    local name=$1 config=$2
    shift 2
    [ -e "$WORK/$name/finished" ] && return
    "$PYTHON" tools/train.py "configs/$config.py" --work-dir "$WORK/$name" \
        --cfg-options "$@"
    touch "$WORK/$name/finished"
}

distil() { # NAME SEED CONFIG [KEY=VALUE ...]
    local name=$1-$2 seed=$2 config=$3
    shift 3
    train "$name" "cmcd/$config" randomness.seed="$seed" \
        model.teacher.init_cfg.checkpoint="$teacher" \
        train_cfg.val_interval=40 "$@"
    cp "$(cat "$WORK/$name/last_student")" "$WORK/$name/student.pth"
}

mkdir -p "$WORK"
( # The first of several trains it, the others wait.
    flock 9
    train teacher pretrain/simclr_r18_nyu_tiny_rgb randomness.seed=0
) 9> "$WORK/lock"
teacher=$(cat "$WORK/teacher/last_checkpoint")
for seed in $SEEDS; do
    distil cmc "$seed" depth_nyu_tiny model.losses.cmcd.cmd=None
    distil dense "$seed" depth_nyu_dense_tiny
    # As many epochs as take the time of distillation and fine-tuning.
    train "joint-$seed" cmcd/depth_nyu_joint_tiny randomness.seed="$seed" \
        model.teacher.init_cfg.checkpoint="$teacher" \
        train_cfg.max_epochs=35 train_cfg.val_interval=35 \
        param_scheduler.1.T_max=30 param_scheduler.1.end=35
done
# shellcheck disable=SC2086  # seeds are words
"$PYTHON" tools/benchmarks/few_label_segmentation.py "$SEGMENTOR" \
    --students "cmc=$WORK/cmc-{seed}/student.pth" \
    "dense=$WORK/dense-{seed}/student.pth" --seeds $SEEDS \
    --label-lists few_50.txt few_100.txt --work-dir "$WORK/few_label"
echo "Joint training, 50 labels:"
grep -H -o 'mIoU: [0-9.]*' "$WORK"/joint-*/*/*.log
