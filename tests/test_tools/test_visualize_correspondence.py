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
from torch.nn.functional import normalize

from mmcmcd.apis import correspondence, run_tool

TOOL = REPO / 'tools/analysis_tools/visualize_correspondence.py'
DENSE = """
_base_ = './tiny.py'
_cells = dict(
    loss=dict(type='mmcmcd.CMCLoss'), stage=0,
    source_norm=dict(type='mmcmcd.Center', num_features=16))
model = dict(
    teacher=dict(out_indices=(1, 3)), student=dict(out_indices=(1, 3)),
    dense=dict(
        cells=_cells,
        wide=dict(_cells, projector=dict(
            type='Conv2d', in_channels=16, out_channels=24, kernel_size=1))))
_pipeline = [
    dict(type='mmcmcd.OnSide', sides='source',
         transforms=[dict(type='LoadImageFromFile')]),
    dict(type='mmcmcd.OnSide', sides='target', transforms=[
        dict(type='mmcmcd.LoadDepthFromFile', depth_scale=1000.),
        dict(type='mmcmcd.NormalizeDepth', mode='range', max_depth=10.)]),
    dict(type='mmcmcd.PackPairedInputs')]
val_dataloader = dict(dataset=dict(pipeline=_pipeline))
test_dataloader = dict(dataset=dict(pipeline=_pipeline))
"""


def visualize(monkeypatch, config, checkpoint, out, *args):
    """Exit status of the tool, run in this process."""
    spec = importlib.util.spec_from_file_location('correspondence', TOOL)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    words = [config, checkpoint, '--out', out, *args]
    words += ['--cfg-options', f'experiment_name={uuid.uuid4().hex}']
    monkeypatch.setattr(sys, 'argv', ['tool', *map(str, words)])
    with pytest.raises(SystemExit) as end:
        run_tool(tool.main)
    return end.value.code or 0


@pytest.fixture
def dense(tiny_run):
    """A config of two comparisons on 4 x 4 cells, and a checkpoint of it."""
    config = tiny_run.root / 'dense.py'
    config.write_text(DENSE)
    path = tiny_run.root / 'epoch_1.pth'
    save(config, path)
    # No depth was measured in the cell (1, 2), of row 1 and column 2.
    file = str(tiny_run.root / 'data/depth/3.png')
    depth = cv2.imread(file, cv2.IMREAD_UNCHANGED)
    depth[8:16, 16:24] = 0
    cv2.imwrite(file, depth)
    return config, path


def save(config, path):
    cfg = Config.fromfile(config)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(cfg.model)
    torch.save(dict(state_dict=model.state_dict()), path)


@pytest.fixture
def drawn(monkeypatch):
    """What is handed to the picture, which is not drawn."""
    kept = []
    monkeypatch.setattr(
        correspondence,
        'save_correspondence_picture',
        lambda path, rows, title: kept.extend(rows),
    )
    return kept


def test_the_command(tiny_run, dense):
    out = tiny_run.root / 'out/picture.png'
    done = tiny_run.tool(
        'analysis_tools/visualize_correspondence.py',
        *dense,
        *('--out', out, '--dense', 'cells', '--pairs', 2, '--points', 3),
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str(out)
    assert cv2.imread(str(out)).std() > 5


def test_similarities_are_those_of_the_maps(
    tiny_run, dense, drawn, monkeypatch
):
    out = tiny_run.root / 'picture.png'
    points = ('--points', '0.3,0.9', '1,0')
    assert not visualize(
        monkeypatch,
        *dense,
        out,
        *('--pair-ids', '3', '5', *points, '--dense', 'cells'),
        *('--split', 'val'),
    )
    cfg = Config.fromfile(dense[0])
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(cfg.model)
    model.load_state_dict(torch.load(dense[1])['state_dict'])
    model.eval()
    assert [row.name for row in drawn] == ['3', '5']
    for row in drawn:
        assert row.cells.tolist() == [[3, 1], [0, 3]]
        file = f'{row.name}.png'
        rgb = cv2.imread(str(tiny_run.root / 'data/rgb' / file))
        assert (row.source == rgb[..., ::-1]).all()
        depth = cv2.imread(str(tiny_run.root / 'data/depth' / file), -1)
        assert row.target.shape == (32, 32, 3)
        assert ((row.target == 0).all(axis=2) == (depth == 0)).all()
        source = torch.from_numpy((rgb - 127.0) / 64).permute(2, 0, 1)
        target = torch.from_numpy(depth / 10_000.0 - 2)
        with torch.no_grad():
            teacher = model.teacher.extract(source[None].float(), None, [0])
            student = model.student(target[None, None].float())[0]
        teacher, student = (
            normalize(x[0], dim=0) for x in (teacher.maps[0], student)
        )
        for (y, x), similarity in zip(row.cells, row.similarity, strict=True):
            expected = torch.einsum('chw,c->hw', teacher, student[:, y, x])
            if row.name == '3':
                expected[1, 2] = torch.nan
            np.testing.assert_allclose(similarity, expected, atol=1e-5)


def test_points_and_pairs_are_spread(tiny_run, dense, drawn, monkeypatch):
    out = tiny_run.root / 'picture.png'
    args = ('--dense', 'cells', '--pairs', 4, '--points', 20)
    assert not visualize(monkeypatch, *dense, out, *args)
    assert [row.name for row in drawn] == ['0', '2', '4', '6']
    for row in drawn:
        assert {tuple(c) for c in row.cells} == set(np.ndindex(4, 4))


@pytest.mark.parametrize(
    ('args', 'message'),
    [
        ([], r"comparisons \['cells', 'wide'\].*choose one.*--dense"),
        (['--dense', 'c'], r"comparisons \['cells', 'wide'\], not 'c'"),
        (['--dense', 'wide'], "'wide'.*16 dimensions.*student 24.*projector"),
        (
            ['--dense', 'cells', '--pair-ids', '3', '99'],
            "test set has no pair '99': its 8 pairs are 0, 1, 2",
        ),
        (
            ['--dense', 'cells', '--pair-ids', 3, '--points', '.6,.4'],
            "point 0.6,0.4 of pair '3' is on a location without",
        ),
    ],
)
def test_a_fault_is_one_line(
    tiny_run, dense, monkeypatch, capsys, args, message
):
    out = tiny_run.root / 'picture.png'
    assert visualize(monkeypatch, *dense, out, *args) == 2
    error = capsys.readouterr().err
    (line,) = (x for x in error.splitlines() if x.startswith('error: '))
    assert re.search(message, line), line
    assert not out.exists()


def test_configs_without_dense_comparison(
    tiny_run, dense, monkeypatch, capsys
):
    _, checkpoint = dense
    save(tiny_run.config, checkpoint)
    out = tiny_run.root / 'picture.png'
    assert visualize(monkeypatch, tiny_run.config, checkpoint, out) == 2
    assert 'has no dense comparison' in capsys.readouterr().err


@pytest.mark.parametrize('words', [['0.5,2'], ['2', '0,0'], ['0']])
def test_points_that_are_none(tiny_run, dense, monkeypatch, capsys, words):
    out = tiny_run.root / 'picture.png'
    assert visualize(monkeypatch, *dense, out, '--points', *words) == 2
    assert '--points' in capsys.readouterr().err
