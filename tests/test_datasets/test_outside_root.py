"""Lists cannot name files outside of the data root."""

import csv
import json

import cv2
import numpy as np
import pytest

from mmcmcd.datasets import (
    ESC50,
    NYURGBDPairs,
    PairedModalityDataset,
    SketchyImages,
    SketchyPairs,
)
from mmcmcd.datasets.pair_audit import audit_pairs
from mmcmcd.errors import DatasetError


@pytest.fixture
def root(tmp_path):
    root = tmp_path / 'data'
    image = np.full((8, 8, 3), 9, np.uint8)
    for folder in ('data/rgb', 'data/depth', 'data/label', 'secret'):
        (tmp_path / folder).mkdir(parents=True)
        for name in 'abx':
            cv2.imwrite(str(tmp_path / folder / f'{name}.png'), image)
    np.savez(tmp_path / 'secret/s.npz', a=np.ones((4, 2)))
    return root


def write_list(root, kind, value, side='target'):
    good = dict(source='a.png', target='a.png', seg_map='a.png')
    rows = [good, {**good, 'source': 'b.png', side: value}]
    if kind == 'json':
        text = json.dumps(rows)
    elif kind == 'csv':
        text = '\n'.join(
            [','.join(good), *(','.join(r.values()) for r in rows)]
        )
    else:
        text = '\n'.join([f'{r["source"]}\t{r["target"]}\n' for r in rows])
    (root / f'list.{kind}').write_text(text)
    return f'list.{kind}'


def build(root, **kwargs):
    return PairedModalityDataset(
        str(root),
        dict(source=dict(folder='rgb'), target=dict(folder='depth')),
        **kwargs,
    )


PLACES = {'txt': 'line 3', 'csv': 'line 3', 'json': 'entry 2'}


@pytest.mark.parametrize('kind', PLACES)
@pytest.mark.parametrize('strict', [True, False])
@pytest.mark.parametrize(
    'value',
    [
        '../../secret/x.png',
        'x/../../../secret/x.png',
        '{}/secret/x.png',
        '../../secret/s.npz/a',
        '..\\..\\secret\\x.png',
        'file://{}/secret/x.png',
        'http://localhost/x.png',
    ],
)
def test_refused_with_place_and_remedy(root, kind, strict, value):
    value = value.format(root.parent)
    ann_file = write_list(root, kind, value)
    with pytest.raises(DatasetError) as error:
        build(root, ann_file=ann_file, strict=strict)
    message = str(error.value)
    assert f'target {value!a} ({PLACES[kind]})' in message
    assert f"data root '{root}'" in message and ann_file in message
    assert '1 entries' in message and 'allow_outside_root=True' in message


@pytest.mark.parametrize('value', ['../../secret/x.png', '{}/secret/x.png'])
def test_allowed_if_the_config_says_so(root, value):
    ann_file = write_list(root, 'csv', value.format(root.parent))
    dataset = build(root, ann_file=ann_file, allow_outside_root=True)
    path = dataset[1]['target']['img_path']
    assert path.endswith('secret/x.png') and cv2.imread(path) is not None


def test_folder_of_a_side_may_be_outside(root):
    ann_file = write_list(root, 'csv', f'{root.parent}/secret/x.png')
    sides = dict(
        source=dict(folder='rgb'),
        target=dict(folder=str(root.parent / 'secret')),
    )
    dataset = PairedModalityDataset(str(root), sides, ann_file=ann_file)
    assert len(dataset) == 2


@pytest.mark.parametrize('value', ['../depth/x.png', '{}/depth/x.png'])
def test_inside_is_free(root, value):
    ann_file = write_list(root, 'csv', value.format(root))
    path = build(root, ann_file=ann_file)[1]['target']['img_path']
    assert path == f'{root}/depth/x.png'


def test_links_on_the_disk_are_the_owners(root):
    (root / 'depth/link').symlink_to(root.parent / 'secret')
    ann_file = write_list(root, 'csv', 'link/x.png')
    assert len(build(root, ann_file=ann_file)) == 2
    # What is checked is what is opened: not the link's neighbour.
    (root.parent / 'y.png').write_bytes(b'x')
    ann_file = write_list(root, 'csv', 'link/../y.png')
    with pytest.raises(DatasetError, match='no target file'):
        build(root, ann_file=ann_file)


def test_seg_map_and_pair_id(root):
    suffix = dict(suffix='.png')
    ann_file = write_list(root, 'csv', '../../secret/x.png', 'seg_map')
    with pytest.raises(DatasetError, match=r"seg_map '\.\./\.\./secret"):
        build(root, ann_file=ann_file, seg_map=dict(folder='label'))
    (root / 'ids.txt').write_text('a\n\n../../secret/x\n')
    with pytest.raises(DatasetError, match=r"secret/x' \(line 3\)"):
        NYURGBDPairs(str(root), ann_file='ids.txt')
    (root / 'ids.csv').write_text('pair_id,source\n../../secret/x,a.png\n')
    sides = dict(
        source=dict(folder='rgb'), target=dict(folder='depth', **suffix)
    )
    with pytest.raises(DatasetError, match='target .*secret/x'):
        PairedModalityDataset(str(root), sides, ann_file='ids.csv')


def test_without_a_root_it_is_the_current_folder(root, monkeypatch):
    monkeypatch.chdir(root)
    sides = dict(source={}, target={})
    (root / 'l.txt').write_text(f'rgb/a.png\t{root}/depth/a.png\n')
    assert len(PairedModalityDataset('', sides, ann_file='l.txt')) == 1
    (root / 'l.txt').write_text(f'rgb/a.png\t{root.parent}/secret/a.png\n')
    with pytest.raises(DatasetError, match="data root '.'"):
        PairedModalityDataset('', sides, ann_file='l.txt')
    dataset = PairedModalityDataset(
        '', sides, ann_file='l.txt', allow_outside_root=True
    )
    assert len(dataset) == 1


@pytest.mark.parametrize('kind', PLACES)
def test_audit_reports_it(root, kind):
    ann_file = write_list(root, kind, '../../secret/x.png')
    report = audit_pairs(
        dict(
            type='mmcmcd.PairedModalityDataset',
            data_root=str(root),
            sides=dict(source=dict(folder='rgb'), target=dict(folder='depth')),
            ann_file=ann_file,
        )
    )
    assert report.pairs == 1 and not report.clean
    (detail,) = report.faults['path outside of the data root']
    assert "target '../../secret/x.png'" in detail
    assert PLACES[kind] in detail
    assert 'secret' in report.format()


# ------------------------------------------------- tables of data sets


def write_table(path, rows):
    path.parent.mkdir(exist_ok=True)
    with open(path, 'w', newline='') as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def test_sketchy(root):
    rows = [
        dict(photo='rgb/a.png', sketch='depth/a.png'),
        dict(photo='../secret/x.png', sketch='depth/b.png'),
    ]
    for row in rows:
        row.update({'class': 'cat', 'split': 'train'})
    write_table(root / 'pairs.csv', rows)
    for cls, kwargs in (
        (SketchyPairs, {}),
        (SketchyImages, dict(side='source')),
    ):
        with pytest.raises(DatasetError, match=r"source '\.\./secret/x"):
            cls(data_root=str(root), **kwargs)
        allowed = cls(data_root=str(root), allow_outside_root=True, **kwargs)
        assert len(allowed) == 2


def test_esc50(root):
    rows = [
        dict(filename=name, fold=1, target=0, category='dog', src_file=1)
        for name in ('../rgb/a.png', '../../secret/x.png')
    ]
    write_table(root / 'meta/esc50.csv', rows)
    with pytest.raises(DatasetError, match='line 3: filename .*secret'):
        ESC50(folds=(1,), data_root=str(root), data_prefix='depth')


def test_nyu_segmentation(root):
    from mmcmcd.datasets.nyu_seg import NYUDepthSegDataset

    (root / 'ids.txt').write_text('a\n../../secret/x\n')
    with pytest.raises(DatasetError, match=r'out of the data root.*secret/x'):
        NYUDepthSegDataset(
            data_root=str(root),
            data_prefix=dict(img_path='depth', seg_map_path='label'),
            ann_file='ids.txt',
        )


# ------------------------------------------------- lists that are garbage


@pytest.mark.parametrize(
    'text, words',
    [
        ('[' * 100000, 'not valid JSON'),
        ('[{"label": ' + '9' * 5000 + '}]', 'not valid JSON'),
        (
            '[{"source": "a.png", "source": "b.png", "target": "a.png"}]',
            r"keys \['source'\] more than once",
        ),
        ('{"metainfo": 3, "data_list": []}', "'metainfo' must be"),
        (
            '{"metainfo": {"classes": 3}, "data_list": []}',
            'a list of names',
        ),
        ('[{"source": 5, "target": "a.png"}]', 'source is no path'),
        ('[{"source": "a\\u0000", "target": "a.png"}]', 'no file can have'),
        ('[{"source": "\\ud800", "target": "a.png"}]', 'no file can have'),
        ('[{"source": "' + 'x' * 5000 + '", "target": "a.png"}]', 'no source'),
        (
            '[{"source": "' + 'x' * 300 + '/a", "target": "a.png"}]',
            'no source',
        ),
        ('[{"source":"a.png","target":"a.png","label":Infinity}]', 'integer'),
        ('[{"source":"a.png","target":"a.png","label":1.5}]', 'integer'),
        ('[{"source":"a.png","target":"a.png","label":true}]', 'integer'),
        (
            '[{"source":"a.png","target":"a.png","label":' + '9' * 30 + '}]',
            'out of range',
        ),
    ],
)
def test_json(root, text, words):
    (root / 'l.json').write_text(text)
    with pytest.raises(DatasetError, match=words):
        build(root, ann_file='l.json')


@pytest.mark.parametrize(
    'text, words',
    [
        ('source,target,source\na.png,a.png,b.png\n', 'more than once'),
        ('source,target\n"' + 'x' * 200000 + '",a.png\n', 'no table'),
    ],
)
def test_csv(root, text, words):
    (root / 'l.csv').write_text(text)
    with pytest.raises(DatasetError, match=words):
        build(root, ann_file='l.csv')


def test_a_list_that_is_a_folder(root):
    (root / 'l.txt').mkdir()
    with pytest.raises(DatasetError, match='cannot be read'):
        build(root, ann_file='l.txt')
