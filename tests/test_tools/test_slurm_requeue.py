"""A job that is stopped is requeued, and goes on: Slurm has stand-ins here."""

import os
import shutil
import signal
import subprocess
import time

import pytest
from conftest import REPO, process_env
from noisy_run import TOTAL, NoisyRun

# Runs the command, as srun does on the first node. mmengine's slurm launcher
# needs a GPU.
SRUN = """#!/usr/bin/env bash
printf '%s\\n' "$@" > "$STAND_IN/srun_args"
while [[ $1 == --* ]]; do shift; done
exec "${@/--launcher=slurm/--launcher=none}"
"""
SCONTROL = """#!/usr/bin/env bash
echo "$@" >> "$STAND_IN/scontrol_args"
"""


class Job(NoisyRun):
    """A job whose script runs from a spool directory, as sbatch's copies."""

    def __init__(self, root):
        super().__init__(root)
        self.bin = root / 'bin'
        self.bin.mkdir()
        for name, text in dict(srun=SRUN, scontrol=SCONTROL).items():
            (self.bin / name).write_text(text)
            (self.bin / name).chmod(0o755)
        self.script = root / 'spool' / 'slurm_script'
        self.script.parent.mkdir()
        shutil.copy(REPO / 'tools/slurm_requeue.sh', self.script)

    def start(self, *args, **env):
        slurm = dict(SLURM_JOB_ID='123', SLURM_SUBMIT_DIR=str(REPO))
        own = dict(
            PATH=f'{self.bin}{os.pathsep}{os.environ["PATH"]}',
            PYTHONPATH=f'{REPO}:{self.root}',
            STAND_IN=str(self.root),
        )
        return subprocess.Popen(
            ['bash', self.script, *args],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=process_env(**{**slurm, **own, **env}),
            cwd=self.root,
        )

    def finish(self, process):
        output, _ = process.communicate(timeout=120)
        return process.returncode, output

    def train(self, stop=None):
        work_dir, *args = self.arguments('job', stop=stop)
        work_dir = work_dir.removeprefix('--work-dir=')
        process = self.start(self.config, work_dir, *args)
        return self.finish(process)

    @property
    def calls(self):
        path = self.root / 'scontrol_args'
        return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def job(tmp_path):
    return Job(tmp_path)


def test_stopped_job_is_requeued_and_goes_on(job):
    status, output = job.train(stop=dict(stop_at=7))
    assert status == 143, output
    assert f'Stopped by SIGTERM after iteration 7 of {TOTAL}' in output
    assert 'job 123 is requeued' in output
    assert job.calls == ['requeue 123']
    given = (job.root / 'srun_args').read_text().splitlines()
    start = given.index(f'{REPO}/tools/train.py')
    assert given[start + 1 : start + 5] == [
        str(job.config),
        f'--work-dir={job.root}/job',
        '--resume',
        '--launcher=slurm',
    ]

    status, output = job.train()
    assert status == 0, output
    assert len(job.diary('job')) == TOTAL
    assert job.calls == ['requeue 123']


# A step that ends as train.py does, after the time that this takes.
STEP = """#!/usr/bin/env bash
trap 'sleep 0.3; echo stopped by TERM; exit 143' TERM
echo "$@" > "$STAND_IN/srun_args"
touch "$STAND_IN/started"
while true; do sleep 0.05; done
"""


@pytest.mark.parametrize(
    ('signum', 'calls'),
    [
        # --signal=B:USR1@90
        (signal.SIGUSR1, ['requeue 123']),
        # scancel, and the time limit
        (signal.SIGTERM, []),
    ],
)
def test_signal_to_the_script(job, signum, calls):
    (job.bin / 'srun').write_text(STEP)
    process = job.start('c.py', 'work', '--amp', SRUN_ARGS='-p part')
    deadline = time.monotonic() + 30
    while not (job.root / 'started').exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signum)
    status, output = job.finish(process)
    # It waited for the step.
    assert (status, 'stopped by TERM' in output) == (143, True)
    assert job.calls == calls
    given = (job.root / 'srun_args').read_text().split()
    assert given[:3] == ['--kill-on-bad-exit=1', '-p', 'part']
    assert given[-4:] == [
        '--work-dir=work',
        '--resume',
        '--launcher=slurm',
        '--amp',
    ]


@pytest.mark.parametrize('code', [0, 1, 2, 137])
def test_other_ends_are_handed_on(job, code):
    (job.bin / 'srun').write_text(f'#!/bin/sh\nexit {code}\n')
    status, _ = job.finish(job.start('c.py', 'work'))
    assert (status, job.calls) == (code, [])


def test_wrong_calls(job):
    status, output = job.finish(job.start('c.py'))
    assert status == 2
    assert 'error: expected at least 2 arguments, got 1.' in output
    assert 'usage: sbatch --requeue --signal=TERM@90' in output
    status, output = job.finish(job.start('c.py', 'w', SLURM_JOB_ID=''))
    assert status == 2
    assert 'error: this is no job: start it by sbatch.' in output
    submitted = dict(SLURM_SUBMIT_DIR=str(job.root))
    status, output = job.finish(job.start('c.py', 'w', **submitted))
    assert status == 2
    assert f'error: no {job.root}/tools/launch.sh. Set TOOLS' in output
    (job.bin / 'srun').write_text('#!/bin/sh\nexit 5\n')
    told = dict(submitted, TOOLS=str(REPO / 'tools'))
    assert job.finish(job.start('c.py', 'w', **told))[0] == 5
