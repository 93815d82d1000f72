import csv
import importlib.util
import re
import sys
import uuid

import cv2
import numpy as np
import pytest
import torch
from conftest import REPO
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from mmcmcd.apis import run_tool

TOOL = REPO / 'tools/analysis_tools/visualize_pairs.py'
LABELLED = """
_base_ = './tiny.py'
val_dataloader = dict(dataset=dict(
    ann_file='pairs.csv',
    metainfo=dict(classes=('even', 'odd')),
    sides=dict(source=dict(folder=''), target=dict(folder=''))))
test_dataloader = None
"""


def visualize(monkeypatch, run, checkpoint, out, *args, config=None):
    """Exit status of the tool, run in this process."""
    spec = importlib.util.spec_from_file_location('visualize_pairs', TOOL)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    words = [config or run.config, checkpoint, '--out-dir', out, *args]
    words += ['--cfg-options', f'experiment_name={uuid.uuid4().hex}']
    monkeypatch.setattr(sys, 'argv', ['visualize_pairs', *map(str, words)])
    with pytest.raises(SystemExit) as end:
        run_tool(tool.main)
    return end.value.code or 0


@pytest.fixture
def checkpoint(tiny_run):
    cfg = Config.fromfile(tiny_run.config)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(cfg.model)
    path = tiny_run.root / 'epoch_1.pth'
    torch.save(dict(state_dict=model.state_dict()), path)
    return path


@pytest.fixture
def labelled(tiny_run):
    """Eight depth maps of four photos."""
    rows = [
        f'{i},rgb/{i // 2}.png,depth/{i}.png,{("even", "odd")[i // 2 % 2]}'
        for i in range(8)
    ]
    text = '\n'.join(['pair_id,source,target,label', *rows])
    (tiny_run.root / 'data/pairs.csv').write_text(text + '\n')
    config = tiny_run.root / 'labelled.py'
    config.write_text(LABELLED)
    return config


def read(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def test_pairs_of_a_config(tiny_run, checkpoint, monkeypatch, capsys):
    out = tiny_run.root / 'out'
    assert not visualize(monkeypatch, tiny_run, checkpoint, out, '--topk', 3)
    names = ['features_tsne', 'retrieval_target2source']
    files = {f'{name}.{kind}' for name in names for kind in ('csv', 'png')}
    assert files == {path.name for path in out.iterdir() if path.is_file()}
    printed = capsys.readouterr().out.split()
    assert {str(out / name) for name in files} <= set(printed)
    rows = read(out / 'retrieval_target2source.csv')
    assert len(rows) == 8 * 3
    for row in rows:
        number = row['query'].split('/')[-1]
        assert row['query'].endswith(f'data/depth/{number}')
        is_partner = row['file'].endswith(f'data/rgb/{number}')
        assert int(row['is_partner']) == is_partner
        if is_partner:
            assert row['place'] == row['partner_rank']
    points = read(out / 'features_tsne.csv')
    assert [row['label'] for row in points] == [''] * 8
    assert len({(row['source_x'], row['source_y']) for row in points}) == 8
    for name in names:
        picture = cv2.imread(str(out / f'{name}.png'))
        assert picture.std() > 5


def test_shared_photos_labels_and_both_directions(
    tiny_run, checkpoint, labelled, monkeypatch
):
    out = tiny_run.root / 'out'
    assert not visualize(
        monkeypatch,
        tiny_run,
        checkpoint,
        out,
        *('--split', 'val', '--direction', 'both', '--topk', 20),
        *('--num-queries', 1, '--max-pairs', 6),
        config=labelled,
    )
    # Each file once: 8 depth maps ask 4 photos, and the reverse.
    rows = read(out / 'retrieval_target2source.csv')
    assert len(rows) == 8 * 4
    assert sum(int(row['is_partner']) for row in rows) == 8
    rows = read(out / 'retrieval_source2target.csv')
    assert len(rows) == 4 * 8
    assert sum(int(row['is_partner']) for row in rows) == 8
    best = {}
    for row in rows:
        if row['is_partner'] == '1':
            best.setdefault(row['query'], row['place'])
            assert row['partner_rank'] == best[row['query']]
    points = read(out / 'features_tsne.csv')
    assert len(points) == 6
    for row in points:
        expected = ('even', 'odd')[int(row['label'])]
        assert row['class'] == expected
    same = [row['source'] for row in points]
    places = {row['source']: row['source_x'] for row in points}
    assert [places[s] for s in same] == [row['source_x'] for row in points]
    assert np.unique(same).size < 6


@pytest.mark.parametrize('fault', ['config', 'checkpoint', 'split', 'method'])
def test_a_fault_is_one_line(
    tiny_run, checkpoint, labelled, monkeypatch, capsys, fault
):
    config, args = tiny_run.config, []
    if fault == 'config':
        config, message = tiny_run.seg_config, "config '.*tiny_seg.py' builds"
        seg = Config.fromfile(config)
        with DefaultScope.overwrite_default_scope('mmseg'):
            model = MODELS.build(seg.model)
        torch.save(dict(state_dict=model.state_dict()), checkpoint)
    elif fault == 'checkpoint':
        checkpoint, message = tiny_run.teacher, 'does not fit the config'
    elif fault == 'split':
        config, message = labelled, 'has no test_dataloader'
    else:
        monkeypatch.setitem(sys.modules, 'umap', None)
        args, message = ['--method', 'umap'], 'pip install umap-learn'
    out = tiny_run.root / 'out'
    status = visualize(
        monkeypatch, tiny_run, checkpoint, out, *args, config=config
    )
    assert status == 2
    error = capsys.readouterr().err
    (line,) = (x for x in error.splitlines() if x.startswith('error: '))
    assert re.search(message, line), line
