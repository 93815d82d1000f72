# shellcheck shell=bash
# Sourced by the launchers: how a tool starts on one machine or on a cluster.
# The arguments of a launcher stand in its own header, the first comment.

set -euo pipefail

TOOLS=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
PYTHON=${PYTHON:-python}
export PYTHONPATH="$TOOLS/..${PYTHONPATH:+:$PYTHONPATH}"

# fail MESSAGE
fail() {
    echo "error: $1" >&2
    sed -n 's/^# Usage: /usage: /p' "$0" >&2
    exit 2
}

# require_args LEAST "$@"
require_args() {
    (($# > $1)) || fail "expected at least $1 arguments, got $(($# - 1))."
}

# require_number NAME VALUE
require_number() {
    [[ $2 =~ ^[1-9][0-9]*$ ]] || fail "$1 must be a whole number, got '$2'."
}

# launch_dist GPUS SCRIPT [ARGS ...]; without a GPU the processes use the CPU
launch_dist() {
    require_number GPUS "$1"
    export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
    exec "$PYTHON" -m torch.distributed.run \
        --nnodes="${NNODES:-1}" \
        --node_rank="${NODE_RANK:-0}" \
        --master_addr="${MASTER_ADDR:-127.0.0.1}" \
        --master_port="${PORT:-29500}" \
        --nproc_per_node="$1" \
        "$TOOLS/$2" "${@:3}"
}

# launch_slurm PARTITION JOB_NAME SCRIPT [ARGS ...]; SRUN_ARGS is split into
# words
launch_slurm() {
    local srun_args
    read -ra srun_args <<< "${SRUN_ARGS:-}"
    set -x
    exec srun -p "$1" \
        --job-name="$2" \
        --gres=gpu:"${GPUS_PER_NODE:-8}" \
        --ntasks="${GPUS:-8}" \
        --ntasks-per-node="${GPUS_PER_NODE:-8}" \
        --cpus-per-task="${CPUS_PER_TASK:-5}" \
        --kill-on-bad-exit=1 \
        ${srun_args[@]+"${srun_args[@]}"} \
        "$PYTHON" -u "$TOOLS/$3" "${@:4}"
}
