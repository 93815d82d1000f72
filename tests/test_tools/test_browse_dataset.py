import importlib.util
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from mmcmcd.apis import run_tool
from mmcmcd.apis.browse import draw_stages, trace_pipeline
from mmcmcd.datasets import PairedModalityDataset

REPO = Path(__file__).resolve().parents[2]
CONFIG = """
default_scope = 'mmpretrain'
_data = dict(
    type='mmcmcd.PairedModalityDataset',
    data_root=r'{root}',
    seg_map=dict(folder='label', suffix='.png'),
    pipeline=[
        dict(type='mmcmcd.OnSide', sides='source',
             transforms=[dict(type='mmcmcd.LoadImageStrict')]),
        dict(type='mmcmcd.OnSide', sides='target',
             transforms=[dict(type='mmcmcd.LoadDepthFromFile',
                              depth_scale=1000.)]),
        dict(type='mmseg.LoadAnnotations'),
        dict(type='mmcmcd.SharedGeometry',
             transforms=[dict(type='RandomFlip', prob=1.0)]),
        dict(type='mmcmcd.PackPairedInputs')])
train_dataloader = dict(batch_size=1, num_workers=0, dataset=_data)
val_dataloader = dict(batch_size=1, num_workers=0, dataset=dict(
    type='ConcatDataset',
    datasets=[dict(type='RepeatDataset', times=2, dataset=_data), _data]))
test_dataloader = dict(batch_size=1, num_workers=0, dataset=dict(
    type='mmseg.BaseSegDataset', data_root=r'{root}', img_suffix='.png',
    data_prefix=dict(img_path='depth', seg_map_path='label'),
    metainfo=dict(classes=('a', 'b'), palette=[[1, 2, 3], [40, 50, 60]]),
    pipeline=[
        dict(type='mmcmcd.LoadDepthFromFile', depth_scale=1000.),
        dict(type='mmseg.LoadAnnotations'),
        dict(type='mmseg.PackSegInputs')]))
"""
H, W = 60, 220


@pytest.fixture
def config(tmp_path):
    """A bright square left, in all three files, and a hole top right."""
    square = (slice(20, 40), slice(30, 60))
    for i in ('0', 'sub/1'):
        for folder in ('rgb', 'depth', 'label'):
            (tmp_path / folder / 'sub').mkdir(parents=True, exist_ok=True)
        image = np.full((H, W, 3), (200, 20, 20), np.uint8)
        image[square] = (20, 20, 200)
        depth = np.full((H, W), 4000, np.uint16)
        depth[square] = 1000
        depth[:10, -10:] = 0
        label = np.zeros((H, W), np.uint8)
        label[square] = 1
        cv2.imwrite(str(tmp_path / f'rgb/{i}.jpg'), image)
        cv2.imwrite(str(tmp_path / f'depth/{i}.png'), depth)
        cv2.imwrite(str(tmp_path / f'label/{i}.png'), label)
    path = tmp_path / 'config.py'
    path.write_text(CONFIG.format(root=tmp_path))
    return path


def run(monkeypatch, name, *args):
    """Exit status of a tool, run in this process."""
    path = REPO / f'tools/misc/{name}'
    spec = importlib.util.spec_from_file_location('misc_tool', path)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    monkeypatch.setattr(sys, 'argv', [name, *map(str, args)])
    with pytest.raises(SystemExit) as end:
        run_tool(tool.main)
    return end.value.code or 0


def browse(monkeypatch, config, out, *args):
    return run(monkeypatch, 'browse_dataset.py', config, '-o', out, *args)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_one_picture_per_pair(config, monkeypatch, tmp_path):
    out = tmp_path / 'out'
    assert browse(monkeypatch, config, out) == 0
    assert names(out) == ['0.png', 'contact_sheet.png', 'sub_1.png']
    picture = cv2.imread(str(out / '0.png'))
    # Four panels: source, target, labels, edges of target.
    assert picture.shape[1] >= 4 * W
    bottom = picture[-H - 4 : -4]
    panels = [bottom[:, k * (W + 4) :][:, :W] for k in range(4)]
    right = (slice(22, 38), slice(W - 58, W - 32))
    source, target, labels, edges = panels
    assert np.ptp(labels[right].reshape(-1, 3), axis=0).tolist() == [0, 0, 0]
    assert source[right][..., 2].min() > 150  # red in OpenCV's order
    near, far = target[30, W - 45], target[30, 40]
    assert near[2] > near[0] and far[0] > far[2]
    assert (target[2:8, 2:8] == 0).all()
    red = (edges == (0, 0, 255)).all(axis=-1)
    assert red[15:45, W - 65 : W - 25].sum() > 60
    assert not red[:, 60 : W - 70].any()


def test_modes(config, monkeypatch, tmp_path):
    heights = {}
    for mode in ('original', 'transformed', 'concat', 'pipeline'):
        out = tmp_path / mode
        assert browse(monkeypatch, config, out, '-m', mode, '-n', 1) == 0
        assert names(out) == ['0.png', 'contact_sheet.png']
        heights[mode] = cv2.imread(str(out / '0.png')).shape[0]
    row = heights['original']
    assert heights == {
        'original': row,
        'transformed': row,
        'concat': 2 * row,
        'pipeline': 3 * row,
    }
    original = cv2.imread(str(tmp_path / 'original/0.png'))
    flipped = cv2.imread(str(tmp_path / 'transformed/0.png'))
    part = (slice(-H - 4, -4), slice(0, W))
    assert np.array_equal(original[part], flipped[part][:, ::-1])


def test_wrapped_and_segmentation_sets(config, monkeypatch, tmp_path):
    out = tmp_path / 'val'
    assert browse(monkeypatch, config, out, '--phase', 'val', '-n', 1) == 0
    assert names(out) == [
        '0_0.png',
        '0_contact_sheet.png',
        '1_0.png',
        '1_contact_sheet.png',
    ]
    out = tmp_path / 'test'
    assert browse(monkeypatch, config, out, '--phase', 'test') == 0
    assert names(out) == ['0.png', '1.png', 'contact_sheet.png']
    picture = cv2.imread(str(out / '0.png'))
    assert picture[-34, W + 4 + 45].tolist() == [60, 50, 40]
    assert picture[-34, W + 4 + 145].tolist() == [3, 2, 1]


def test_misalignment_is_seen(config, tmp_path):
    """Edges of the depth fall on those of the image only when aligned."""
    depth = np.full((H, W), 4000, np.uint16)
    depth[20:40, 130:160] = 1000
    cv2.imwrite(str(tmp_path / 'depth/0.png'), depth)
    dataset = PairedModalityDataset(
        str(tmp_path),
        pipeline=[
            dict(
                type='mmcmcd.OnSide',
                sides='source',
                transforms=[dict(type='mmcmcd.LoadImageStrict')],
            ),
            dict(
                type='mmcmcd.OnSide',
                sides='target',
                transforms=[
                    dict(type='mmcmcd.LoadDepthFromFile', depth_scale=1e3)
                ],
            ),
        ],
    )
    _, stages = trace_pipeline(dataset, 0)
    edges = draw_stages(stages)[-H - 4 : -4, 2 * (W + 4) :][:, :W]
    red = (edges == (0, 0, 255)).all(axis=-1)
    assert red[:, 125:165].any() and not red[:, :100].any()


def test_sketches_are_grey_and_their_strokes_lie_over_the_photo(tmp_path):
    for folder in ('photo', 'sketch'):
        (tmp_path / folder).mkdir()
    photo = np.full((H, W, 3), (200, 120, 40), np.uint8)
    sketch = np.full((H, W), 255, np.uint8)
    sketch[20:24, 30:190] = 0
    cv2.imwrite(str(tmp_path / 'photo/0.png'), photo)
    cv2.imwrite(str(tmp_path / 'sketch/0.png'), sketch)
    dataset = PairedModalityDataset(
        str(tmp_path),
        sides=dict(
            source=dict(folder='photo', suffix='.png'),
            target=dict(folder='sketch', suffix='.png'),
        ),
        pipeline=[
            dict(
                type='mmcmcd.OnSide',
                sides=side,
                transforms=[dict(type=f'mmcmcd.{loader}')],
            )
            for side, loader in (
                ('source', 'LoadImageStrict'),
                ('target', 'LoadSketch'),
            )
        ],
    )
    _, stages = trace_pipeline(dataset, 0)
    bottom = draw_stages(stages)[-H - 4 : -4]
    source, target, strokes = (
        bottom[:, k * (W + 4) :][:, :W] for k in range(3)
    )
    np.testing.assert_array_equal(source, photo)
    np.testing.assert_array_equal(target, sketch[..., None].repeat(3, 2))
    red = (strokes == (0, 0, 255)).all(axis=-1)
    np.testing.assert_array_equal(red, sketch == 0)


def test_user_errors(config, monkeypatch, capsys, tmp_path):
    option = ['--cfg-options', 'train_dataloader.dataset.pipeline=[]']
    assert browse(monkeypatch, config, tmp_path / 'o', *option) == 2
    assert 'loads no image' in capsys.readouterr().err
    assert browse(monkeypatch, tmp_path / 'no.py', tmp_path / 'o') == 2
    (tmp_path / 'depth/0.png').write_bytes(b'')
    assert browse(monkeypatch, config, tmp_path / 'o') == 2
    assert 'depth/0.png' in capsys.readouterr().err


def test_print_config(config, monkeypatch, capsys):
    options = ['--cfg-options', 'train_dataloader.batch_size=77']
    assert run(monkeypatch, 'print_config.py', config, *options) == 0
    text = capsys.readouterr().out
    assert 'batch_size=77' in text and 'RandomFlip' in text
    compile(text, 'printed', 'exec')
