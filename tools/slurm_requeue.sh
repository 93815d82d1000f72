#!/usr/bin/env bash
# Usage: sbatch --requeue --signal=TERM@90 [OPTIONS of sbatch ...] tools/slurm_requeue.sh CONFIG WORK_DIR [ARGS of train.py ...]
# Environment: SRUN_ARGS, PYTHON; TOOLS, the folder of the tools, where sbatch is
# not called from the one above it.
#
# A job that goes on by itself: it always resumes what WORK_DIR holds. 90 seconds
# before its time is up, or when it is preempted, train.py writes a checkpoint
# and ends with 143; then the job is put into the queue again. A job that is
# cancelled, fails or is finished is not. --signal=B:USR1@90 does the same by way
# of this script.

# Not by the folder of this file: sbatch runs a copy of it.
launch=${TOOLS:-${SLURM_SUBMIT_DIR:-.}/tools}/launch.sh
if [[ ! -f $launch ]]; then
    echo "error: no $launch. Set TOOLS to the folder of the tools." >&2
    exit 2
fi
source "$launch"
require_args 2 "$@"
[[ -n ${SLURM_JOB_ID:-} ]] || fail 'this is no job: start it by sbatch.'
read -ra srun_args <<< "${SRUN_ARGS:-}"

# Bash acts upon a signal at once only while it waits for a job behind it.
srun --kill-on-bad-exit=1 \
    ${srun_args[@]+"${srun_args[@]}"} \
    "$PYTHON" -u "$TOOLS/train.py" "$1" --work-dir="$2" \
    --resume --launcher=slurm "${@:3}" &
step=$!

# forward SIGNAL; and wait again, because this has ended the waiting
forward() {
    interrupted=1
    kill -s "$1" "$step" 2> /dev/null || true
}
# Those of --signal go to the step alone, or to this script as USR1: a TERM is
# the end of the job, whoever asked for it.
ending=
trap 'forward TERM' USR1
trap 'ending=1; forward TERM' TERM
interrupted=1
while ((interrupted)); do
    interrupted=0
    status=0
    wait "$step" || status=$?
done

if ((status == 143)) && [[ -z $ending ]]; then
    echo "Stopped, with a checkpoint: job $SLURM_JOB_ID is requeued."
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
