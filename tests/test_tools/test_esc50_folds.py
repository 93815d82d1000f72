"""Every fold of ESC-50 is tested on once; the figures are averaged."""

import json
import os
import subprocess
import sys

import pytest
from conftest import REPO, process_env

SCRIPT = REPO / 'tools/benchmarks/audio/esc50_folds.sh'
CONFIG = REPO / 'configs/downstream/audio_esc50_le.py'
# Notes what it is called with, and leaves what the tools would.
PYTHON = f"""#!{sys.executable}
import json, os, re, sys
tool, *words = sys.argv[1:]
if tool.endswith('mean_metrics.py'):
    os.execv({sys.executable!r}, [{sys.executable!r}, tool, *words])
with open('calls', 'a') as file:
    print(json.dumps([os.path.basename(tool), *words]), file=file)
def value(name):
    return words[words.index(name) + 1]
os.makedirs(value('--work-dir'), exist_ok=True)
if tool.endswith('train.py'):
    with open(value('--work-dir') + '/last_checkpoint', 'w') as file:
        file.write('some.pth')
else:
    fold = int(re.search(r'fold_(\\d)', value('--out'))[1])
    with open(value('--out'), 'w') as file:
        json.dump({{'accuracy/top1': 10 * fold, 'accuracy/top5': 50}}, file)
"""


@pytest.fixture
def run(tmp_path):
    python = tmp_path / 'python'
    python.write_text(PYTHON)
    python.chmod(0o755)

    def run(*args):
        done = subprocess.run(
            ['bash', str(SCRIPT), str(CONFIG), *map(str, args)],
            cwd=tmp_path,
            env=process_env(PYTHON=str(python), WORK='work'),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def calls(tmp_path):
    lines = (tmp_path / 'calls').read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_folds(run, tmp_path):
    student = tmp_path / 'student-1a2b3c4d.pth'
    student.touch()
    table = run(student, 'train_cfg.max_iters=7')
    assert '| audio_esc50_le/student-1a2b3c4d | 30.0 ± 19.6 | 50.0' in table
    found = calls(tmp_path)
    assert [call[0] for call in found] == ['train.py', 'test.py'] * 5
    for fold, (train, test) in enumerate(
        zip(found[::2], found[1::2], strict=True), 1
    ):
        others = ''.join(f'{i},' for i in range(1, 6) if i != fold)
        folds = [
            f'train_dataloader.dataset.folds=({others})',
            f'val_dataloader.dataset.folds=({fold},)',
            f'test_dataloader.dataset.folds=({fold},)',
        ]
        for call in (train, test):
            options = call[call.index('--cfg-options') :]
            assert {*folds, 'train_cfg.max_iters=7'} <= set(options)
            assert call[1] == str(CONFIG)
        assert f'model.backbone.init_cfg.checkpoint={student}' in train
        assert test[2] == 'some.pth'


def test_finished_folds_are_kept(run, tmp_path):
    first = run('scratch')
    assert 'model.backbone.init_cfg=None' in calls(tmp_path)[0]
    assert run('scratch') == first
    assert len(calls(tmp_path)) == 10
    os.remove(tmp_path / 'work/fold_3/metrics.json')
    assert run('scratch') == first
    assert len(calls(tmp_path)) == 11
