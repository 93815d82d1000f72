import json

import cv2
import numpy as np
import pytest
from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS as ROOT
from mmengine.registry import DefaultScope
from PIL import Image

from mmcmcd.datasets import PairedModalityDataset, SketchyImages
from mmcmcd.datasets.pair_audit import audit_pairs
from mmcmcd.errors import ConfigError, DatasetError, UnreadableFileError


def pipeline(geometry=True, resize=False):
    side_resize = [dict(type='mmcv.Resize', scale=(12, 8))] if resize else []
    load = [
        dict(
            type='mmcmcd.OnSide',
            sides='source',
            transforms=[dict(type='mmcmcd.LoadImageStrict'), *side_resize],
        ),
        dict(
            type='mmcmcd.OnSide',
            sides='target',
            transforms=[
                dict(
                    type='mmcmcd.LoadDepthFromFile',
                    depth_scale=1000.0,
                    expected_dtype='uint16',
                )
            ],
        ),
    ]
    flip = dict(
        type='mmcmcd.SharedGeometry',
        transforms=[dict(type='mmcv.RandomFlip', prob=0.5)],
    )
    return [*load, *([flip] if geometry else [])]


def config(root, **kwargs):
    return {
        **dict(
            type='mmcmcd.PairedModalityDataset',
            data_root=str(root),
            seg_map=dict(folder='label', suffix='.png'),
            metainfo=dict(classes=('a', 'b', 'c')),
            pipeline=pipeline(),
        ),
        **kwargs,
    }


@pytest.fixture
def root(tmp_path):
    """Four pairs of known values."""
    for folder in ('rgb', 'depth', 'label'):
        (tmp_path / folder).mkdir()
    for i in range(4):
        write(tmp_path, i)
    return tmp_path


def write(root, i, rgb=(8, 12), depth_dtype=np.uint16, depth=1000, label=1):
    image = np.full((*rgb, 3), 10 * i, np.uint8)
    cv2.imwrite(str(root / f'rgb/{i}.png'), image)
    cv2.imwrite(str(root / f'rgb/{i}.jpg'), image)
    (root / f'rgb/{i}.png').unlink()
    target = np.full((8, 12), depth * (i + 1), depth_dtype)
    target[:2] = 0
    cv2.imwrite(str(root / f'depth/{i}.png'), target)
    seg_map = np.full((8, 12), label, np.uint8)
    seg_map[:4] = 255
    cv2.imwrite(str(root / f'label/{i}.png'), seg_map)


def test_clean_set(root):
    report = audit_pairs(config(root))
    assert report.clean and report.pairs == report.decoded == 4
    target = report.sides['target']
    assert target.sizes == {'12x8': 4} and target.stored == {'16-bit grey': 4}
    assert (target.minimum, target.maximum) == (1.0, 4.0)
    assert target.mean == pytest.approx(2.5)
    assert target.invalid == pytest.approx(0.25)
    source = report.sides['source']
    assert (source.minimum, source.maximum) == (0, 30)
    assert source.invalid is None and source.stored == {'8-bit RGB': 4}
    assert report.labels == {1: 4 * 48, 255: 4 * 48}
    text = report.format()
    assert 'no faults' in text and '1 / 2.5 / 4 m' in text
    assert 'unlabelled: 50.00%' in text
    assert json.loads(json.dumps(report.to_dict()))['clean'] is True


@pytest.mark.parametrize('num_workers', [1, 2])
def test_all_faults_in_one_run(root, num_workers):
    for i in range(4, 12):
        write(root, i)
    (root / 'depth/1.png').unlink()
    (root / 'rgb/2.jpg').unlink()
    (root / 'label/3.png').unlink()
    path = root / 'rgb/4.jpg'
    path.write_bytes(path.read_bytes()[:-20])
    (root / 'depth/5.png').write_bytes(b'')
    write(root, 6, depth=1, depth_dtype=np.uint8)
    write(root, 7, rgb=(9, 12))
    write(root, 8, label=3)
    write(root, 9, depth=0)
    (root / 'label/10.png').write_bytes(b'no image')
    ids = '\n'.join(map(str, [*range(12), 0, 77]))
    (root / 'list.txt').write_text(ids)
    report = audit_pairs(
        config(root, ann_file='list.txt'), num_workers=num_workers
    )
    found = {kind: len(names) for kind, names in report.faults.items()}
    assert found == {
        'no target file': 2,
        'no source file': 2,
        'no seg_map file': 2,
        'listed more than once': 1,
        'unreadable source file': 1,
        'unreadable target file': 2,
        'unreadable seg_map file': 1,
        'sizes differ within a pair': 1,
        'label ids outside 0..2 and 255': 1,
        'no valid pixel in target': 1,
    }
    assert not report.clean and report.pairs == 9 and report.decoded == 5
    faults = report.faults
    assert faults['no target file'] == ['1', '77']
    assert 'truncated' in faults['unreadable source file'][0]
    assert 'Wrong bit depth' in faults['unreadable target file'][1]
    assert faults['sizes differ within a pair'] == [
        '7: source 12x9, target 12x8, seg_map 12x8'
    ]
    assert faults['label ids outside 0..2 and 255'] == ['8: [3]']
    text = report.format()
    assert text.count('FAULT:') == 10 and text.endswith('FAULTY')


@pytest.mark.parametrize(
    'steps, clean',
    [
        ([], False),
        (pipeline(), False),
        (pipeline(resize=True), True),
        (pipeline(geometry=False), True),
    ],
)
def test_sizes_may_differ_if_it_does_no_harm(root, steps, clean):
    write(root, 2, rgb=(16, 24))
    report = audit_pairs(config(root, pipeline=steps))
    assert report.clean is clean
    entry = report.notes if clean else report.faults
    assert list(entry) == ['sizes differ within a pair']


def test_depth_stored_in_two_ways(root):
    write(root, 2, depth_dtype=np.uint8, depth=1)
    steps = pipeline()
    del steps[1]['transforms'][0]['expected_dtype']
    report = audit_pairs(config(root, pipeline=steps))
    assert report.faults == {
        'target not stored as 16-bit grey like most': [
            f'2: 8-bit grey: {root}/depth/2.png'
        ]
    }


def test_sample_is_spread(root):
    write(root, 3, label=9)
    report = audit_pairs(config(root), max_files=2)
    assert report.pairs == 4 and report.decoded == 2
    assert report.sides['target'].maximum == 4.0
    assert list(report.faults) == ['label ids outside 0..2 and 255']


def test_data_set_object_and_missing_classes(root):
    dataset = PairedModalityDataset(
        str(root), seg_map=dict(folder='label', suffix='.png')
    )
    write(root, 0, label=77)
    report = audit_pairs(dataset)
    assert report.clean and set(report.labels) == {1, 77, 255}
    # Nothing is known of the unit without a loader.
    assert report.sides['target'].maximum == 4000


def test_nothing_complete(root):
    for i in range(4):
        (root / f'depth/{i}.png').unlink()
    (root / 'depth/x.png').write_bytes(b'')
    report = audit_pairs(config(root))
    assert report.pairs == 0 and not report.clean
    assert 'no complete pair' in report.faults
    assert report.format().endswith('FAULTY')


def test_nothing_to_audit(root):
    with pytest.raises(DatasetError, match='does not exist'):
        audit_pairs(config(root / 'gone'))
    (root / 'a.json').write_text('{"metainfo": {}, "data_list": [{"x": 1}]}')
    cfg = dict(
        ann_file=str(root / 'a.json'),
        data_prefix=dict(),
    )
    with pytest.raises(ConfigError, match='BaseDataset can not be audited'):
        audit_pairs(BaseDataset(**cfg))


@pytest.mark.parametrize('kind', ['mmcmcd.PairedModalityDataset', None])
def test_type_by_name_or_class(root, kind):
    (root / 'depth/1.png').unlink()
    report = audit_pairs(config(root, type=kind or PairedModalityDataset))
    assert report.faults == {'no target file': ['1']}


# ------------------------------------------------------------------ sketches


def sketch_config(root, **loader):
    load = dict(source=dict(type='mmcmcd.LoadImageStrict'),
                target=dict(type='mmcmcd.LoadSketch', **loader))  # fmt: skip
    steps = [
        dict(type='mmcmcd.OnSide', sides=side, transforms=[transform])
        for side, transform in load.items()
    ]
    return dict(
        type='mmcmcd.SketchyPairs', data_root=str(root), pipeline=steps
    )


@pytest.fixture
def sketches(tmp_path):
    """Five sketches of one photo each, all but the first stored oddly."""
    drawing = np.full((8, 12), 255, np.uint8)
    drawing[2, 3:9] = 0
    alpha = np.zeros((8, 12, 4), np.uint8)
    alpha[2, 3:9, 3] = 255
    grey = Image.fromarray(drawing)
    pictures = [
        grey,
        Image.fromarray(alpha, 'RGBA'),
        grey.convert('P'),
        Image.fromarray(255 - drawing),
        grey.convert('LA'),
    ]
    rows = ['photo,sketch,class,split']
    for i, picture in enumerate(pictures):
        name = 'ab'[i % 2]
        photo, sketch = f'photo/{name}/{i}.jpg', f'sketch/{name}/{i}-1.png'
        for path in (photo, sketch):
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        Image.new('RGB', (12, 8)).save(tmp_path / photo)
        picture.save(tmp_path / sketch)
        rows.append(f'{photo},{sketch},{name},train')
    (tmp_path / 'pairs.csv').write_text('\n'.join(rows))
    return tmp_path


INVERTED = 'inverted sketch in target (white on black)'


@pytest.mark.parametrize('on_inverted', ['error', 'invert', 'keep'])
@pytest.mark.parametrize('num_workers', [1, 2])
def test_sketches(sketches, on_inverted, num_workers):
    cfg = sketch_config(sketches, on_inverted=on_inverted)
    report = audit_pairs(cfg, num_workers=num_workers)
    refused = on_inverted == 'error'
    assert report.clean is not refused
    assert report.pairs == report.decoded == 5
    odd = {
        'target stored as 8-bit RGBA': ['b/1-1'],
        'target stored as 8-bit palette': ['a/2-1'],
        'target stored as 8-bit grey with alpha': ['a/4-1'],
    }
    inverted = {INVERTED: ['b/3-1']}
    assert report.faults == (inverted if refused else {})
    assert report.notes == {**odd, **({} if refused else inverted)}
    assert report.sides['target'].stored['8-bit grey'] == 2


def test_the_audit_leaves_the_data_set_as_it_was(sketches):
    dataset = ROOT.build(sketch_config(sketches))
    audit_pairs(dataset)
    with pytest.raises(UnreadableFileError, match='Inverted sketch'):
        dataset[3]


def test_faulty_photo_sketch_pairs(sketches):
    (sketches / 'photo/a/2.jpg').unlink()
    (sketches / 'sketch/b/1-1.png').write_bytes(b'')
    Image.new('L', (12, 8), 255).save(sketches / 'sketch/a/0-1.png')
    report = audit_pairs(sketch_config(sketches, on_inverted='keep'))
    photo = sketches / 'photo/a/2.jpg'
    assert report.faults['no source file'] == [f'a/2-1: {photo}']
    blank, empty = report.faults['unreadable target file']
    assert blank.startswith('a/0-1') and 'Blank sketch' in blank
    assert empty.startswith('b/1-1') and 'empty' in empty
    with (sketches / 'pairs.csv').open('a') as file:
        file.write('\nphoto/a/2.jpg,sketch/a/2-2.png,a,test')
    with pytest.raises(DatasetError, match='in two splits'):
        audit_pairs(sketch_config(sketches))


def test_single_sketches(sketches):
    steps = [dict(type='mmcmcd.LoadSketch'), dict(type='PackInputs')]
    cfg = dict(type=SketchyImages, data_root=str(sketches), pipeline=steps)
    report = audit_pairs(cfg)
    inverted = str(sketches / 'sketch/b/3-1.png')
    assert report.faults == {INVERTED.replace('target', 'img'): [inverted]}
    assert report.pairs == report.decoded == 5


def test_seg_data_set(root):
    cfg = dict(
        type='BaseSegDataset',
        data_root=str(root),
        data_prefix=dict(img_path='depth', seg_map_path='label'),
        img_suffix='.png',
        metainfo=dict(classes=('a', 'b')),
        pipeline=[
            dict(type='mmcmcd.LoadDepthFromFile', depth_scale=1000.0),
            dict(type='LoadAnnotations'),
        ],
    )
    write(root, 0, label=2)
    cv2.imwrite(str(root / 'label/1.png'), np.zeros((8, 11), np.uint8))
    with DefaultScope.overwrite_default_scope('mmseg'):
        report = audit_pairs(cfg)
    assert report.sides['img'].maximum == 4.0
    assert {k: len(v) for k, v in report.faults.items()} == {
        'label ids outside 0..1 and 255': 1,
        'sizes differ within a pair': 1,
    }
