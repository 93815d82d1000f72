"""The slurm scripts hand the right command to `srun` (a stand-in here)."""

import os

import pytest
from conftest import REPO, run_command


@pytest.fixture
def fake_srun(tmp_path):
    script = tmp_path / 'bin' / 'srun'
    script.parent.mkdir()
    script.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    script.chmod(0o755)
    return f'{script.parent}{os.pathsep}{os.environ["PATH"]}'


def test_train(fake_srun):
    done = run_command(
        [
            'bash',
            REPO / 'tools/slurm_train.sh',
            'part',
            'job',
            'cfg.py',
            'work',
            '--amp',
        ],
        PATH=fake_srun,
        GPUS='16',
        GPUS_PER_NODE='8',
    )
    assert done.returncode == 0, done.stderr
    words = done.stdout.split()
    assert {
        'part',
        '--job-name=job',
        '--ntasks=16',
        '--ntasks-per-node=8',
        '--gres=gpu:8',
    } <= set(words)
    command = words[
        next(i for i, w in enumerate(words) if w.endswith('train.py')) :
    ]
    assert command[1:] == [
        'cfg.py',
        '--work-dir=work',
        '--launcher=slurm',
        '--amp',
    ]


def test_test(fake_srun):
    done = run_command(
        [
            'bash',
            REPO / 'tools/slurm_test.sh',
            'part',
            'job',
            'cfg.py',
            'model.pth',
            '--out',
            'x.json',
        ],
        PATH=fake_srun,
    )
    assert done.returncode == 0, done.stderr
    words = done.stdout.split()
    command = words[
        next(i for i, w in enumerate(words) if w.endswith('test.py')) :
    ]
    assert command[1:] == [
        'cfg.py',
        'model.pth',
        '--launcher=slurm',
        '--out',
        'x.json',
    ]
