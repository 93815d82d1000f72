#!/usr/bin/env bash
# The tiny Sketchy benchmark of docs/benchmarks/sketchy_tiny.md: one teacher,
# five ways to a student for each seed, few labels. Finished steps are kept.
#   [SEEDS="0 1 2"] [WORK=work_dirs/sketchy_tiny] bash tools/benchmarks/sketchy_tiny.sh
set -euo pipefail
cd "$(dirname "$0")/../.."
SEEDS=${SEEDS:-0 1 2}
WORK=${WORK:-work_dirs/sketchy_tiny}
PYTHON=${PYTHON:-python}
LOSS=model.losses.cmcd

train() { # NAME CONFIG [KEY=VALUE ...]
    local name=$1 config=$2
    shift 2
    [ -e "$WORK/$name/finished" ] && return
    "$PYTHON" tools/train.py "configs/$config.py" --no-validate \
        --work-dir "$WORK/$name" --cfg-options "$@"
    touch "$WORK/$name/finished"
}

distil() { # NAME SEED [KEY=VALUE ...]
    local name=$1-$2 seed=$2
    shift 2
    train "$name" cmcd/sketch_sketchy_tiny randomness.seed="$seed" \
        model.teacher.init_cfg.checkpoint="$teacher" "$@"
    cp "$(cat "$WORK/$name/last_student")" "$WORK/$name/student.pth"
}

evaluate() { # NAME CONFIG FILE [KEY=VALUE ...]
    local name=$1 config=$2 file=$WORK/$1/$3.json
    shift 3
    [ -e "$file" ] && return
    "$PYTHON" tools/test.py "configs/$config.py" \
        "$(cat "$WORK/$name/last_checkpoint")" --work-dir "$WORK/$name/test" \
        --out "$file" --out-item metrics \
        --cfg-options model.teacher.init_cfg.checkpoint="$teacher" "$@"
}

files() { # NAME FILE: one of each seed, for mean_metrics.py
    local list=""
    for seed in $SEEDS; do list+=",$WORK/$1-$seed/$2.json"; done
    echo "$1=${list#,}"
}

train teacher pretrain/simclr_r18_sketchy_tiny_photo randomness.seed=0
teacher=$(cat "$WORK/teacher/last_checkpoint")
train head downstream/photo_sketchy_tiny_r18_le randomness.seed=0 \
    model.backbone.init_cfg.checkpoint="$teacher"
head=$(cat "$WORK/head/last_checkpoint")
for seed in $SEEDS; do
    # The control without a teacher; its backbone needs no export.
    train "ssl-$seed" pretrain/simclr_r18_sketchy_tiny_sketch \
        randomness.seed="$seed"
    cp "$(cat "$WORK/ssl-$seed/last_checkpoint")" "$WORK/ssl-$seed/student.pth"
    distil cmd "$seed" $LOSS.cmc=None
    distil cmc "$seed" $LOSS.cmd=None
    distil both "$seed"
    distil both-unmasked "$seed" train_dataloader.dataset.group_by=sketch
    for name in cmd cmc both both-unmasked; do
        evaluate "$name-$seed" cmcd/sketch_sketchy_tiny retrieval
    done
    for name in cmc both; do
        evaluate "$name-$seed" downstream/sketch_sketchy_tiny_zero_label \
            zero_label model.teacher_head.init_cfg.checkpoint="$head"
    done
done
students=()
for name in ssl cmd cmc both; do
    students+=("$name=$WORK/$name-{seed}/student.pth")
done
few_label() { # PROTOCOL [LABELS ...]
    local protocol=$1
    shift
    # shellcheck disable=SC2086  # seeds are words
    "$PYTHON" tools/benchmarks/few_label_classification.py \
        "configs/downstream/sketch_sketchy_tiny_r18_$protocol.py" \
        --students "${students[@]}" --seeds $SEEDS \
        --labels-per-class "$@" --work-dir "$WORK/$protocol"
}
few_label ft 1 5 all
few_label le 1 all
echo "Retrieval between held-out photos and sketches, no labels:"
"$PYTHON" tools/benchmarks/mean_metrics.py \
    "$(files cmd retrieval)" "$(files cmc retrieval)" \
    "$(files both retrieval)" "$(files both-unmasked retrieval)" \
    --metrics retrieval/target2source_R@1 retrieval/target2source_R@5 \
    retrieval/target2source_R@10 retrieval/target2source_mAP \
    retrieval/source2target_R@1 retrieval/source2target_mAP \
    retrieval/neighbours@10 knn/top1
echo "No labelled sketch, the head of a photo classifier:"
"$PYTHON" tools/benchmarks/mean_metrics.py \
    "$(files cmc zero_label)" "$(files both zero_label)" \
    --metrics accuracy/top1 accuracy/top5
