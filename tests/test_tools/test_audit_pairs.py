import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from mmcmcd.apis import run_tool

REPO = Path(__file__).resolve().parents[2]
CONFIG = """
default_scope = 'mmpretrain'
_data = dict(
    type='mmcmcd.PairedModalityDataset',
    data_root=r'{root}',
    pipeline=[
        dict(type='mmcmcd.OnSide', sides='target',
             transforms=[dict(type='mmcmcd.LoadDepthFromFile',
                              depth_scale=1000.)])])
train_dataloader = dict(batch_size=1, num_workers=0, dataset=dict(
    type='RepeatDataset', times=3, dataset=_data))
val_dataloader = dict(batch_size=1, num_workers=0, dataset=dict(
    type='ConcatDataset',
    datasets=[_data, dict(_data, ann_file='list.txt')]))
"""


@pytest.fixture
def config(tmp_path):
    for folder in ('rgb', 'depth'):
        (tmp_path / folder).mkdir()
    for i in range(3):
        image = np.full((8, 12, 3), 10 * i, np.uint8)
        cv2.imwrite(str(tmp_path / f'rgb/{i}.jpg'), image)
        depth = np.full((8, 12), 1000 * (i + 1), np.uint16)
        cv2.imwrite(str(tmp_path / f'depth/{i}.png'), depth)
    (tmp_path / 'list.txt').write_text('0\n5\n')
    path = tmp_path / 'config.py'
    path.write_text(CONFIG.format(root=tmp_path))
    return path


def run(monkeypatch, *args):
    """Exit status of the tool, run in this process."""
    path = REPO / 'tools/misc/audit_pairs.py'
    spec = importlib.util.spec_from_file_location('audit_tool', path)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    argv = ['audit_pairs.py', *map(str, args), '--num-workers', '1']
    monkeypatch.setattr(sys, 'argv', argv)
    with pytest.raises(SystemExit) as end:
        run_tool(tool.main)
    return end.value.code or 0


def test_clean(config, monkeypatch, capsys, tmp_path):
    out = tmp_path / 'report.json'
    assert run(monkeypatch, config, '--out', out) == 0
    text = capsys.readouterr()
    assert '1 / 2 / 3 m' in text.out and 'no faults' in text.out
    assert 'ETA' in text.err
    (report,) = json.loads(out.read_text())
    assert report['clean'] and report['decoded'] == 3
    assert report['sides']['target']['sizes'] == {'12x8': 3}


def test_every_wrapped_set_is_audited(config, monkeypatch, capsys):
    assert run(monkeypatch, config, '--split', 'val') == 1
    text = capsys.readouterr().out
    assert text.count('PairedModalityDataset in') == 2
    assert 'FAULT: no target file: 1\n    5' in text


def test_unreadable_file(config, monkeypatch, capsys, tmp_path):
    (tmp_path / 'depth/1.png').write_bytes(b'')
    assert run(monkeypatch, config) == 1
    assert 'unreadable target file: 1' in capsys.readouterr().out
    assert run(monkeypatch, config, '--max-files', '1') == 0


@pytest.mark.parametrize(
    'args, words',
    [
        (['--split', 'test'], 'no test_dataloader'),
        (
            [
                '--cfg-options',
                'train_dataloader.dataset.dataset.data_root=gone',
            ],
            "data root 'gone' does not exist",
        ),
    ],
)
def test_user_errors(config, monkeypatch, capsys, args, words):
    assert run(monkeypatch, config, *args) == 2
    assert words in capsys.readouterr().err


def test_shipped_sketch_config(tmp_path, monkeypatch, capsys):
    rows = ['photo,sketch,class,split']
    for i in range(4):
        photo, sketch = f'photo/cat/{i}.jpg', f'sketch/cat/{i}-1.png'
        picture = np.full((8, 12, 3), 255, np.uint8)
        picture[2, 3:9] = 0
        for name in (photo, sketch):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(tmp_path / name), picture)
        rows.append(f'{photo},{sketch},cat,train')
    (tmp_path / 'pairs.csv').write_text('\n'.join(rows))
    config = REPO / 'configs/cmcd/sketch_sketchy.py'
    root = f'train_dataloader.dataset.data_root={tmp_path}'
    assert run(monkeypatch, config, '--cfg-options', root) == 0
    assert 'complete pairs: 4, decoded: 4' in capsys.readouterr().out
    cv2.imwrite(str(tmp_path / 'sketch/cat/2-1.png'), 255 - picture)
    assert run(monkeypatch, config, '--cfg-options', root) == 1
    text = capsys.readouterr().out
    words = 'FAULT: inverted sketch in target (white on black): 1'
    assert f'{words}\n    cat/2-1' in text


def test_as_a_program(config, tmp_path):
    (tmp_path / 'depth/1.png').unlink()
    done = subprocess.run(
        [sys.executable, REPO / 'tools/misc/audit_pairs.py', config],
        capture_output=True,
        text=True,
        timeout=100,
        cwd=tmp_path,
        env={**os.environ, 'PYTHONPATH': str(REPO)},
    )
    assert done.returncode == 1, done.stderr
    assert 'no target file: 1' in done.stdout
    assert 'Traceback' not in done.stderr
