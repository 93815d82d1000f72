# shellcheck shell=bash
# Sourced by the benchmark scripts, which start step 3 from an exported
# student: student-*.pth of a distillation run, or what
# tools/model_converters/export_student.py writes.

source "$(dirname "${BASH_SOURCE[0]}")/../launch.sh"

# require_file NAME FILE; a URL or PACKAGE::CONFIG is not looked up
require_file() {
    [[ -f $2 || $2 == *:* ]] || fail "$1 '$2' does not exist."
}

# use_gpus NUMBER: on a cluster, unless the environment says otherwise
use_gpus() {
    export GPUS=${GPUS:-$1} GPUS_PER_NODE=${GPUS_PER_NODE:-$1}
}

# start_from CONFIG PRETRAIN [LABELS]: sets STUDENT, options of train.py that
# load PRETRAIN into model.backbone, take but LABELS images of every class, and
# give every combination its own work directory. More key=value words, or
# options, may follow them.
start_from() {
    require_file CONFIG "$1"
    require_file PRETRAIN "$2"
    local name
    name="$(basename "$1" .py)/$(basename "$2" .pth)"
    STUDENT=(
        --work-dir "work_dirs/$name${3:+-${3}_per_class}"
        --cfg-options
        model.backbone.init_cfg.type=Pretrained
        "model.backbone.init_cfg.checkpoint=$2"
        model.backbone.init_cfg.prefix=backbone.
    )
    if [[ -n ${3:-} ]]; then
        require_number LABELS "$3"
        STUDENT+=("train_dataloader.dataset.labels_per_class=$3")
    fi
}
