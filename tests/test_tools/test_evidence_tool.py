"""The commands of the experiment matrix, as a user types them."""

import importlib.util
import json
import os
import subprocess
import sys

import pytest
from conftest import REPO
from utd_mhad_sample import write_sample

from mmcmcd.errors import ConfigError

TOOL = REPO / 'tools/benchmarks/evidence.py'
CONFIGS = REPO / 'configs'
TEXT = f"""
title = 'Small'
metric = 'accuracy/top1'
seeds = [0, 1]
teachers = dict(labels=dict(
    config='{CONFIGS}/pretrain/supervised_tcn_utdmhad_skeleton.py'))
downstream = '{CONFIGS}/downstream/inertial_utdmhad_ft.py'
budgets = {{'1': {{'train_dataloader.dataset.labels_per_class': 1}}}}
_steps = {{'train_cfg.max_iters': 2}}
_epoch = {{'train_cfg.max_epochs': 1, 'train_dataloader.batch_size': 16}}
_stages = dict(teacher=_steps, student=_epoch, score=_steps)
splits = dict(tune=_stages, test=_stages)
tuning = dict(seeds=[0])
methods = {{'scratch': None, 'CMC': dict(
    config='{CONFIGS}/baselines/inertial_utdmhad_cmc.py', ours=True,
    grid=[{{'model.losses.cmc.temperature': t}} for t in (0.1, 0.4)])}}
"""


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('evidence')
    write_sample(folder / 'data/utd_mhad')
    (folder / 'small.py').write_text(TEXT)
    return folder


def call(folder, *words):
    return subprocess.run(
        [sys.executable, str(TOOL), *words],
        cwd=folder,
        env=dict(
            os.environ,
            MMCMCD_REALDATA=str(folder / 'data'),
            OMP_NUM_THREADS='1',
        ),
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.fixture
def tool(folder, monkeypatch):
    """The tool in this process, which has all imports done."""
    spec = importlib.util.spec_from_file_location('evidence_tool', TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.chdir(folder)
    monkeypatch.setenv('MMCMCD_REALDATA', str(folder / 'data'))

    def call(*words):
        monkeypatch.setattr(sys, 'argv', ['evidence.py', *words])
        module.main()

    return call


def test_tune_run_report(folder):
    done = call(folder, 'tune', 'small.py', '--jobs', '2')
    assert done.returncode == 0, done.stderr
    assert 'of ours: CMC' in done.stdout
    chosen = json.loads((folder / 'small.json').read_text())
    assert chosen['settings']['CMC'] in (0, 1)

    done = call(folder, 'run', 'small.py', '--jobs', '2', '--seeds', '0')
    assert done.returncode == 0, done.stderr
    # What tuning did serves the test, where both are the same.
    assert 'scores 2/2; ' in done.stdout
    records = sorted((folder / 'work_dirs').rglob('record.json'))
    stamps = [path.stat().st_mtime_ns for path in records]
    done = call(folder, 'run', 'small.py')
    assert done.returncode == 0, done.stderr
    assert [path.stat().st_mtime_ns for path in records] == stamps
    assert len([*(folder / 'work_dirs').rglob('record.json')]) > len(records)

    done = call(folder, 'report', 'small.py', '--out', 'page.md')
    assert done.returncode == 0, done.stderr
    page = (folder / 'page.md').read_text()
    assert '4 of 4 cells' in page and '2 seeds' in page
    lines = (folder / 'page.jsonl').read_text().splitlines()
    origin, *cells = map(json.loads, lines)
    assert {cell['seed'] for cell in cells} == {0, 1}
    assert all(cell['origin'] == 0 for cell in cells)
    assert origin['versions'][0].startswith('mmcmcd ')


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (['run', 'other.py'], "config file 'other.py' does not exist"),
        (['run', 'small.py', '--seeds', '7'], '--seeds [7]: there are [0, 1]'),
        (['run', 'small.py', '--jobs', '0'], '--jobs and --threads must be 1'),
        (['report', 'small.py'], 'report needs --out NAME.md'),
        (
            ['run', 'small.py', '--settings', 'no.json'],
            "--settings 'no.json' does not exist",
        ),
    ],
    ids=['matrix', 'seeds', 'jobs', 'out', 'settings'],
)
def test_errors(tool, folder, words, message):
    with pytest.raises(ConfigError) as raised:
        tool(*words)
    assert message in str(raised.value)


def test_what_others_have_is_not_run(tool, folder, capsys):
    """A page's figures, of another machine, stand for the runs."""
    assert (folder / 'page.jsonl').exists()
    tool('run', 'small.py', '--work-dir', 'empty', '--known', 'page.jsonl')
    assert 'nothing to run' in capsys.readouterr().out
    assert not (folder / 'empty').exists()
