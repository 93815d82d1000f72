import copy
import json

import cv2
import numpy as np
import pytest
from mmengine.dataset import ConcatDataset, RepeatDataset
from mmengine.registry import DATASETS as ROOT
from torch.utils.data import DataLoader

from mmcmcd.datasets import PairedModalityDataset
from mmcmcd.errors import ConfigError, DatasetError, UnreadableFileError
from mmcmcd.registry import DATASETS, TRANSFORMS

SIDES = dict(
    source=dict(folder='rgb', suffix='.jpg'),
    target=dict(folder='depth', suffix='.png'),
)
LOAD = [
    dict(
        type='mmcmcd.OnSide',
        sides='source',
        transforms=[dict(type='mmcmcd.LoadImageStrict')],
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


def touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b'x')


def fake_set(root, ids):
    for i in ids:
        touch(root, f'rgb/{i}.jpg', f'depth/{i}.png', f'label/{i}.png')


def real_set(root, number):
    """Images whose value is the number of the pair."""
    for folder in ('rgb', 'depth'):
        (root / folder).mkdir()
    for i in range(number):
        image = np.full((8, 12, 3), i, np.uint8)
        cv2.imwrite(str(root / f'rgb/{i:02d}.jpg'), image)
        depth = np.full((8, 12), 1000 * (i + 1), np.uint16)
        cv2.imwrite(str(root / f'depth/{i:02d}.png'), depth)


def build(root, **kwargs):
    return PairedModalityDataset(str(root), **kwargs)


def ids(dataset):
    return [dataset.get_data_info(i)['pair_id'] for i in range(len(dataset))]


@TRANSFORMS.register_module()
class RejectPairs:
    """Rejects the given ids; None stands for a rejection without words."""

    def __init__(self, reject, how='raise'):
        self.reject = reject
        self.how = how

    def __call__(self, results):
        if results['pair_id'] in self.reject:
            if self.how == 'none':
                return None
            if self.how == 'bug':
                raise KeyError('a bug')
            raise UnreadableFileError(f'{results["pair_id"]} is broken')
        return results


# ---------------------------------------------------------------- folders


def test_folder_item_is_complete(tmp_path):
    fake_set(tmp_path, ['b', 'a', 'sub/c'])
    dataset = build(tmp_path, seg_map=dict(folder='label', suffix='.png'))
    assert ids(dataset) == ['a', 'b', 'sub/c']
    item = dataset[2]
    assert 0 <= item.pop('group_index') < 2**63
    assert item == dict(
        pair_id='sub/c',
        group_id='sub/c',
        sample_idx=2,
        sides=('source', 'target'),
        source=dict(img_path=str(tmp_path / 'rgb/sub/c.jpg')),
        target=dict(img_path=str(tmp_path / 'depth/sub/c.png')),
        seg_map_path=str(tmp_path / 'label/sub/c.png'),
        reduce_zero_label=False,
        label_map=None,
        seg_fields=[],
    )
    assert dataset.metainfo['sides'] == ('source', 'target')


def test_both_sides_in_one_folder(tmp_path):
    touch(tmp_path, 'x_rgb.png', 'x_depth.png', 'y_rgb.png', 'y_depth.png')
    sides = dict(
        source=dict(suffix='_rgb.png'), target=dict(suffix='_depth.png')
    )
    dataset = build(tmp_path, sides=sides)
    assert ids(dataset) == ['x', 'y']
    assert dataset[0]['target']['img_path'] == str(tmp_path / 'x_depth.png')


def test_three_sides_and_alternative_suffixes(tmp_path):
    fake_set(tmp_path, ['a', 'b'])
    touch(tmp_path, 'ir/a.tif', 'ir/b.tiff')
    sides = dict(SIDES, thermal=dict(folder='ir', suffix=['.tif', '.tiff']))
    dataset = build(tmp_path, sides=sides)
    assert dataset.sides == ('source', 'target', 'thermal')
    assert dataset[1]['sides'] == dataset.sides
    assert dataset[1]['thermal']['img_path'] == str(tmp_path / 'ir/b.tiff')


def test_missing_partners_are_counted_and_named(tmp_path):
    fake_set(tmp_path, [f'{i:02d}' for i in range(10)])
    for i in range(7):
        (tmp_path / f'depth/{i:02d}.png').unlink()
    (tmp_path / 'rgb/09.jpg').unlink()
    with pytest.raises(DatasetError) as error:
        build(tmp_path)
    message = str(error.value)
    assert '8 faulty and 2 complete' in message
    assert 'no target file: 7 (00, 01, 02, 03, 04, ...)' in message
    assert 'no source file: 1 (09)' in message
    assert 'strict=False' in message


def test_not_strict_keeps_complete_pairs_and_warns(tmp_path, capture_logs):
    fake_set(tmp_path, ['a', 'b', 'c'])
    (tmp_path / 'depth/b.png').unlink()
    dataset = build(tmp_path, strict=False)
    assert ids(dataset) == ['a', 'c']
    assert len(capture_logs) == 1
    assert 'no target file: 1 (b)' in capture_logs[0]


def test_two_files_for_one_id_is_a_fault(tmp_path):
    fake_set(tmp_path, ['a'])
    touch(tmp_path, 'rgb/a.png')
    sides = dict(SIDES, source=dict(folder='rgb', suffix=['.jpg', '.png']))
    with pytest.raises(
        DatasetError, match=r'several source files of one id: 1 \(a\)'
    ):
        build(tmp_path, sides=sides)


IMAGES = dict(suffix=['.jpg', '.jpeg', '.png', '.webp'])


def test_two_sides_may_name_the_same_files(tmp_path):
    """Photos only: the other side is made from them by a transform."""
    names = ['B/b.jpeg', 'B/c.PNG', 'B/deep/d.JPG', 'a.JPEG', 'e.webp']
    touch(tmp_path, *names, 'notes.txt', 'B/f.jpg.txt')
    dataset = build(tmp_path, sides=dict(source=IMAGES, target=IMAGES))
    assert ids(dataset) == names
    for item in dataset:
        assert item['source'] == item['target']
        assert item['group_id'] == item['pair_id']
    paths = {item['source']['img_path'] for item in dataset}
    assert paths == {str(tmp_path / name) for name in names}


def test_same_files_may_differ_by_suffix_only(tmp_path):
    names = ['x/a.JPG', 'x/a.jpg', 'x/a.jpg.png', 'x/a.png', 'y/a.jpg']
    touch(tmp_path, *names)
    sides = dict(source=IMAGES, target=dict(IMAGES, folder=''))
    dataset = build(tmp_path, sides=sides)
    assert ids(dataset) == names
    for name, item in zip(names, dataset, strict=True):
        assert item['target']['img_path'] == str(tmp_path / name)
    # The same ids in a list, or named once a side.
    (tmp_path / 'l.txt').write_text('x/a.png\ny/a.jpg\n')
    dataset = build(tmp_path, sides=sides, ann_file='l.txt')
    assert ids(dataset) == ['x/a.png', 'y/a.jpg']
    (tmp_path / 'l.txt').write_text('x/a.png x/a.png\nx/a.jpg x/a.jpg\n')
    dataset = build(tmp_path, sides=sides, ann_file='l.txt')
    assert ids(dataset) == ['x/a.png', 'x/a.jpg']
    (tmp_path / 'l.txt').write_text('y/a\n')
    with pytest.raises(DatasetError, match=r'1 \(y/a\)\. .*/<name>\.jpg\|'):
        build(tmp_path, sides=sides, ann_file='l.txt')


def test_same_files_with_maps_are_known_without_suffix(tmp_path):
    touch(tmp_path, 'p/a.jpg', 'm/a.png')
    side = dict(folder='p', suffix='.jpg')
    sides = dict(source=side, target=side)
    maps = dict(folder='m', suffix='.png')
    dataset = build(tmp_path, sides=sides, seg_map=maps)
    assert ids(dataset) == ['a']


def test_extension_in_upper_or_lower_case(tmp_path):
    touch(tmp_path, 'rgb/a.JPG', 'depth/a.png', 'rgb/B.jpg', 'depth/B.PNG')
    touch(tmp_path, 'depth/b.PNG', 'rgb/b.Jpg')
    dataset = build(tmp_path)
    assert ids(dataset) == ['B', 'a', 'b']
    paths = [
        (item['source']['img_path'], item['target']['img_path'])
        for item in dataset
    ]
    assert paths == [
        (f'{tmp_path}/rgb/{source}', f'{tmp_path}/depth/{target}')
        for source, target in (
            ('B.jpg', 'B.PNG'),
            ('a.JPG', 'a.png'),
            ('b.Jpg', 'b.PNG'),
        )
    ]
    (tmp_path / 'l.txt').write_text('a\nB')
    assert ids(build(tmp_path, ann_file='l.txt')) == ['a', 'B']
    touch(tmp_path, 'rgb/a.jpg')
    with pytest.raises(DatasetError, match=r'several source .*id: 1 \(a\)'):
        build(tmp_path)


def test_rest_of_a_suffix_keeps_its_case(tmp_path):
    touch(tmp_path, 'x_l.png', 'x_L.PNG')
    sides = dict(source=dict(suffix='_l.png'), target=dict(suffix='_L.png'))
    dataset = build(tmp_path, sides=sides)
    assert ids(dataset) == ['x']
    assert dataset[0]['source']['img_path'] == str(tmp_path / 'x_l.png')
    assert dataset[0]['target']['img_path'] == str(tmp_path / 'x_L.PNG')


def test_missing_root_folder_and_suffix(tmp_path):
    with pytest.raises(DatasetError, match='nowhere.*does not exist'):
        build(tmp_path / 'nowhere')
    fake_set(tmp_path, ['a'])
    sides = dict(SIDES, target=dict(folder='renamed', suffix='.png'))
    with pytest.raises(DatasetError, match="side 'target'.*renamed"):
        build(tmp_path, sides=sides)
    sides = dict(SIDES, target=dict(folder='depth', suffix='.tif'))
    with pytest.raises(DatasetError, match=r"ends with '.tif' \(there: a.png"):
        build(tmp_path, sides=sides)
    # What cannot be found at all is no matter of strictness.
    with pytest.raises(DatasetError, match='nowhere'):
        build(tmp_path / 'nowhere', strict=False)


def test_no_complete_pair_left(tmp_path):
    touch(tmp_path, 'rgb/a.jpg', 'depth/b.png')
    with pytest.raises(DatasetError, match='found no pair'):
        build(tmp_path, strict=False)


@pytest.mark.parametrize(
    'kwargs, words',
    [
        (dict(sides=dict(source=dict(suffix='.jpg'))), '2 or more'),
        (dict(sides=dict(SIDES, label=dict(suffix='.x'))), 'label'),
        (dict(sides=dict(SIDES, third=dict(sufix='.x'))), 'sufix'),
        (dict(sides=dict(SIDES, third=dict(folder='x'))), 'suffix'),
        (dict(seg_map=dict(dir='x')), 'dir'),
        (dict(on_unreadable='ignore'), "'error' or 'skip'"),
        (dict(max_skip_fraction=5), 'between 0'),
        (dict(ann_file='list.lst'), '.txt'),
        (dict(group_pattern='z+'), 'does not match'),
    ],
)
def test_wrong_arguments(tmp_path, kwargs, words):
    fake_set(tmp_path, ['a'])
    touch(tmp_path, 'list.lst')
    with pytest.raises(ConfigError, match=words):
        build(tmp_path, **kwargs)


# ------------------------------------------------------------------- lists


def test_list_of_ids_restricts_and_orders(tmp_path):
    fake_set(tmp_path, ['a', 'b', 'sub/c', 'd'])
    (tmp_path / 'few.txt').write_text('d\n\nsub/c \na')
    assert ids(build(tmp_path, ann_file='few.txt')) == ['d', 'sub/c', 'a']


def test_listed_without_file_and_listed_twice(tmp_path):
    fake_set(tmp_path, ['a', 'b'])
    (tmp_path / 'few.txt').write_text('a\nzz\nb\na\n')
    with pytest.raises(DatasetError) as error:
        build(tmp_path, ann_file='few.txt')
    assert 'no source file: 1 (zz)' in str(error.value)
    assert 'no target file: 1 (zz)' in str(error.value)
    assert 'listed more than once: 1 (a)' in str(error.value)
    assert ids(build(tmp_path, ann_file='few.txt', strict=False)) == ['a', 'b']


def test_list_of_paths(tmp_path):
    touch(tmp_path, 'p/1.jpg', 's/1 a.png', 's/1 b.png')
    (tmp_path / 'l.txt').write_text('p/1.jpg\ts/1 a.png\np/1.jpg\ts/1 b.png')
    sides = dict(source=dict(), target=dict())
    dataset = build(tmp_path, sides=sides, ann_file='l.txt')
    assert ids(dataset) == ['p/1+s/1 a', 'p/1+s/1 b']
    assert dataset[1]['source']['img_path'] == str(tmp_path / 'p/1.jpg')
    assert dataset[1]['target']['img_path'] == str(tmp_path / 's/1 b.png')


def test_paths_that_agree_give_one_id(tmp_path):
    fake_set(tmp_path, ['a'])
    (tmp_path / 'l.txt').write_text('a.jpg a.png')
    dataset = build(tmp_path, ann_file='l.txt')
    assert ids(dataset) == ['a']


@pytest.mark.parametrize(
    'text, words',
    [
        ('a.jpg a.png a.tif\n', 'line 1: 3 fields'),
        ('a\na.jpg a.png\n', 'one of the two'),
        ('\n\n', 'found no pair'),
    ],
)
def test_malformed_list(tmp_path, text, words):
    fake_set(tmp_path, ['a'])
    (tmp_path / 'l.txt').write_text(text)
    with pytest.raises(DatasetError, match=words):
        build(tmp_path, ann_file='l.txt')


def test_missing_list_names_those_that_exist(tmp_path):
    fake_set(tmp_path, ['a'])
    touch(tmp_path, 'splits/train.txt')
    with pytest.raises(
        DatasetError,
        match=(r'trian.txt.*In its.*: train.txt.*Set data_root to the folder'),
    ):
        build(tmp_path, ann_file='splits/trian.txt')


# ------------------------------------------------------------- annotations

ROWS = [
    dict(pair_id='k1', source='1.jpg', target='x.png', group_id='g', label=1),
    dict(pair_id='k2', source='2.jpg', target='y.png', group_id='h', label=0),
    dict(pair_id='k3', source='1.jpg', target='z.png', group_id='g', label=2),
]


def annotate(root, kind, rows):
    for name in ('1', '2'):
        touch(root, f'rgb/{name}.jpg')
    for name in ('x', 'y', 'z'):
        touch(root, f'depth/{name}.png')
    if kind == 'csv':
        keys = list(rows[0])
        lines = [','.join(str(r[k]) for k in keys) for r in rows]
        (root / 'ann.csv').write_text('\n'.join([','.join(keys), *lines]))
    elif kind == 'json':
        (root / 'ann.json').write_text(json.dumps(rows))
    else:
        content = dict(metainfo=dict(classes=['p', 'q', 'r']), data_list=rows)
        (root / 'ann.json').write_text(json.dumps(content))
    return f'ann.{kind[:4]}' if kind != 'openmmlab' else 'ann.json'


@pytest.mark.parametrize('kind', ['csv', 'json', 'openmmlab'])
def test_annotation(tmp_path, kind):
    dataset = build(tmp_path, ann_file=annotate(tmp_path, kind, ROWS))
    assert ids(dataset) == ['k1', 'k2', 'k3']
    assert [i['gt_label'] for i in dataset] == [1, 0, 2]
    assert [i['group_id'] for i in dataset] == ['g', 'h', 'g']
    first, second, third = (i['group_index'] for i in dataset)
    assert first == third != second
    assert dataset[2]['source']['img_path'] == str(tmp_path / 'rgb/1.jpg')
    assert dataset[2]['target']['img_path'] == str(tmp_path / 'depth/z.png')
    known = dataset.metainfo.get('classes')
    assert known == (['p', 'q', 'r'] if kind == 'openmmlab' else None)


def test_labels_by_name_and_seg_map_column(tmp_path):
    touch(tmp_path, 'seg/1.png', 'seg/2.png')
    rows = [
        dict(ROWS[0], label='chair', seg_map='seg/1.png'),
        dict(ROWS[1], label='bed', seg_map='seg/2.png'),
    ]
    dataset = build(
        tmp_path,
        ann_file=annotate(tmp_path, 'csv', rows),
        metainfo=dict(classes=('bed', 'chair')),
        seg_map=dict(),
    )
    assert [i['gt_label'] for i in dataset] == [1, 0]
    assert dataset[1]['seg_map_path'] == str(tmp_path / 'seg/2.png')


@pytest.mark.parametrize(
    'change, fault',
    [
        (dict(target=''), "empty column 'target': 1 (k2)"),
        (dict(target='gone.png'), 'no target file: 1 (k2: {}/gone.png)'),
        (
            dict(target='a\\b.png'),
            'target path with a backslash (write /): 1 (k2: {}/a\\b.png)',
        ),
        (dict(group_id=''), "empty column 'group_id': 1 (k2)"),
        (dict(label=''), "empty column 'label': 1 (k2)"),
        (dict(label='sofa'), 'label is no integer'),
        (dict(label=-1), 'label out of range: 1 (k2)'),
        (dict(pair_id='k1'), 'listed more than once: 1 (k1)'),
        (dict(pair_id=''), "empty column 'pair_id': 1 (2+y)"),
    ],
)
def test_faulty_annotation(tmp_path, change, fault):
    rows = copy.deepcopy(ROWS)
    rows[1].update(change)
    rows[2]['group_id'] = 'other'
    ann_file = annotate(tmp_path, 'csv', rows)
    with pytest.raises(DatasetError) as error:
        build(tmp_path, ann_file=ann_file)
    assert fault.format(tmp_path / 'depth') in str(error.value)
    # Columns say where the files are, not the id.
    assert 'Expected' not in str(error.value)
    dataset = build(tmp_path, ann_file=ann_file, strict=False)
    assert ids(dataset) == ['k1', 'k3']


def test_label_beyond_the_classes(tmp_path):
    ann_file = annotate(tmp_path, 'csv', ROWS)
    with pytest.raises(DatasetError, match=r'label out of range: 1 \(k3\)'):
        build(tmp_path, ann_file=ann_file, metainfo=dict(classes=('a', 'b')))


def test_unknown_side(tmp_path):
    ann_file = annotate(tmp_path, 'json', ROWS)
    sides = dict(source=dict(folder='rgb'), taget=dict(folder='depth'))
    with pytest.raises(DatasetError, match="no column 'taget'.*'target'"):
        build(tmp_path, sides=sides, ann_file=ann_file)


@pytest.mark.parametrize(
    'name, text, words',
    [
        ('a.json', '{"data_list": 3}', 'list of objects'),
        ('a.json', '[{"x"', 'not valid JSON'),
        ('a.csv', 'source,target\na.jpg,a.png,b\n', 'line 2: more cells'),
        ('a.csv', 'source\nA\n\xe9.jpg', "a.csv', line 3: not .*as UTF-8"),
    ],
)
def test_malformed_annotation(tmp_path, name, text, words):
    fake_set(tmp_path, ['a'])
    (tmp_path / name).write_text(text, encoding='latin-1')
    with pytest.raises(DatasetError, match=words):
        build(tmp_path, ann_file=name)


# --------------------------------------------------------- groups, wrappers


def test_one_group_for_all_is_refused(tmp_path):
    fake_set(tmp_path, ['room_1', 'room_2'])
    with pytest.raises(DatasetError, match=r"one group \('room'\)"):
        build(tmp_path, group_pattern=r'^(\w+)_\d+$')


def test_group_pattern(tmp_path):
    fake_set(tmp_path, ['kitchen_1', 'hall_1', 'kitchen_2'])
    dataset = build(tmp_path, group_pattern=r'^(\w+)_\d+$')
    assert [i['group_id'] for i in dataset] == ['hall', 'kitchen', 'kitchen']
    hall, first, second = (i['group_index'] for i in dataset)
    assert hall != first == second
    # Equal in another view of the same set, different in another set.
    fake_set(tmp_path / 'other', ['hall_1'])
    other = build(tmp_path / 'other', group_pattern=r'^(\w+)_\d+$')
    again = build(tmp_path, group_pattern=r'^(\w+)_\d+$', indices=1)
    assert again[0]['group_index'] == hall != other[0]['group_index']
    ann_file = annotate(tmp_path, 'csv', ROWS)
    with pytest.raises(ConfigError, match='Remove one'):
        build(tmp_path, ann_file=ann_file, group_pattern='.')


@pytest.mark.parametrize('serialize', [True, False])
def test_framework_features(tmp_path, serialize):
    fake_set(tmp_path, 'abcdef')
    make = dict(serialize_data=serialize)
    assert ids(build(tmp_path, indices=2, **make)) == ['a', 'b']
    dataset = build(tmp_path, **make)
    assert ids(dataset.get_subset([4, 1])) == ['e', 'b']
    assert dataset[-1]['pair_id'] == 'f' and dataset[-1]['sample_idx'] == 5
    assert len(list(dataset)) == 6
    with pytest.raises(IndexError):
        dataset[6]
    many = ConcatDataset([dataset, dataset.get_subset([4, 1])])
    assert len(many) == 8 and many[6]['pair_id'] == 'e'
    assert RepeatDataset(dataset, 2)[11]['pair_id'] == 'f'
    lazy = build(tmp_path, lazy_init=True, **make)
    assert not lazy._fully_initialized and lazy.metainfo['sides']
    assert lazy[1]['pair_id'] == 'b'


def test_filter_of_a_subclass(tmp_path):
    class Filtered(PairedModalityDataset):
        def filter_data(self):
            drop = self.filter_cfg['drop']
            return [d for d in self.data_list if d['pair_id'] != drop]

    fake_set(tmp_path, 'abc')
    dataset = Filtered(str(tmp_path), filter_cfg=dict(drop='b'))
    assert ids(dataset) == ['a', 'c'] and dataset.num_skipped == 0


def test_built_from_any_scope(tmp_path):
    fake_set(tmp_path, 'ab')
    cfg = dict(type='mmcmcd.PairedModalityDataset', data_root=str(tmp_path))
    assert len(ROOT.build(cfg)) == 2
    assert DATASETS.get('PairedModalityDataset') is PairedModalityDataset


def test_folder_is_listed_once(tmp_path, monkeypatch):
    fake_set(tmp_path, [f'{i:03d}' for i in range(50)])
    (tmp_path / 'l.txt').write_text('\n'.join(f'{i:03d}' for i in range(50)))
    calls = []
    from mmengine.fileio import LocalBackend

    original = LocalBackend.list_dir_or_file
    monkeypatch.setattr(
        LocalBackend,
        'list_dir_or_file',
        lambda self, path, *args: (
            calls.append(path) or original(self, path, *args)
        ),
    )
    assert len(build(tmp_path, ann_file='l.txt')) == 50
    assert len(build(tmp_path)) == 50
    assert len(calls) == 4


# -------------------------------------------------------- unreadable files


def corrupt(path, how):
    if how == 'missing':
        path.unlink()
    elif how == 'empty':
        path.write_bytes(b'')
    elif how == 'truncated':
        path.write_bytes(path.read_bytes()[:-20])
    elif how == '8 bit':
        cv2.imwrite(str(path), np.ones((8, 12), np.uint8))


@pytest.mark.parametrize(
    'name, how',
    [
        ('rgb/02.jpg', 'truncated'),
        ('rgb/02.jpg', 'empty'),
        ('rgb/02.jpg', 'missing'),
        ('depth/02.png', 'truncated'),
        ('depth/02.png', 'empty'),
        ('depth/02.png', '8 bit'),
    ],
)
@pytest.mark.parametrize('test_mode', [True, False])
def test_broken_file_drops_or_stops_the_pair(tmp_path, name, how, test_mode):
    real_set(tmp_path, 5)
    dataset = build(tmp_path, pipeline=LOAD, test_mode=test_mode)
    skipping = build(
        tmp_path,
        pipeline=LOAD,
        test_mode=test_mode,
        on_unreadable='skip',
        max_skip_fraction=0.2,
    )
    corrupt(tmp_path / name, how)
    with pytest.raises(UnreadableFileError) as error:
        dataset[2]
    assert str(error.value).count("'02'") == 1
    assert str(tmp_path / name) in str(error.value)
    item = skipping[2]
    assert item['pair_id'] == '03'
    assert item['source']['img'][0, 0, 0] == 3
    assert item['target']['img'][0, 0] == 4
    assert skipping.num_skipped == 1


def skipping_set(root, reject, number=10, **kwargs):
    if not (root / 'rgb').exists():
        fake_set(root, [str(i) for i in range(number)])
    pipeline = [dict(type='mmcmcd.RejectPairs', reject=reject)]
    kwargs = dict(on_unreadable='skip', max_skip_fraction=0.5, **kwargs)
    return build(root, pipeline=pipeline, **kwargs)


def test_skipping_is_deterministic_and_wraps(tmp_path):
    dataset = skipping_set(tmp_path, ['3', '4', '9'])
    for _ in range(2):
        assert [item['pair_id'] for item in dataset] == list('0125556780')
    assert dataset.num_skipped == 3


@pytest.mark.parametrize('workers', [0, 2])
def test_skips_of_workers_are_counted_once(tmp_path, workers):
    dataset = skipping_set(tmp_path, ['3', '4', '9'])
    loader = DataLoader(
        RepeatDataset(dataset, 2),
        batch_size=2,
        num_workers=workers,
        persistent_workers=workers > 0,
        collate_fn=list,
    )
    for _ in range(2):
        seen = [item['pair_id'] for batch in loader for item in batch]
        assert seen == list('0125556780') * 2
        assert dataset.num_skipped == 3


def test_one_warning_per_pair(tmp_path, capture_logs):
    dataset = skipping_set(tmp_path, ['3', '4'])
    for _ in range(3):
        [item['pair_id'] for item in dataset]
    assert len(capture_logs) == 2
    assert all('whole pair' in text for text in capture_logs)


@pytest.mark.parametrize('workers', [0, 1])
def test_too_many_skips_stop(tmp_path, workers):
    dataset = skipping_set(tmp_path, list('034567'))
    loader = DataLoader(dataset, num_workers=workers, collate_fn=list)
    with pytest.raises(DatasetError) as error:
        list(loader)
    assert not isinstance(error.value, UnreadableFileError)
    message = str(error.value)
    assert '6 of 10 pairs' in message and '0, 3, 4, 5, 6, ...' in message
    assert 'max_skip_fraction=0.5' in message and '7 is broken' in message


def test_all_skipped(tmp_path):
    fake_set(tmp_path, 'ab')
    dataset = build(
        tmp_path,
        pipeline=[dict(type='mmcmcd.RejectPairs', reject=['a', 'b'])],
        on_unreadable='skip',
        max_skip_fraction=1.0,
    )
    with pytest.raises(DatasetError, match='no pair is readable'):
        dataset[0]


@pytest.mark.parametrize('test_mode', [True, False])
def test_none_is_never_replaced_at_random(tmp_path, test_mode):
    fake_set(tmp_path, 'abc')
    reject = dict(type='mmcmcd.RejectPairs', reject=['b'], how='none')
    make = dict(pipeline=[reject], test_mode=test_mode)
    with pytest.raises(UnreadableFileError, match="'b' was rejected"):
        build(tmp_path, **make)[1]
    dataset = build(
        tmp_path, on_unreadable='skip', max_skip_fraction=0.5, **make
    )
    assert dataset[1]['pair_id'] == 'c' and dataset.num_skipped == 1


def test_bugs_are_not_skipped(tmp_path):
    fake_set(tmp_path, 'abc')
    reject = dict(type='mmcmcd.RejectPairs', reject=['b'], how='bug')
    dataset = build(tmp_path, pipeline=[reject], on_unreadable='skip')
    with pytest.raises(KeyError, match='a bug'):
        dataset[1]
    assert dataset.num_skipped == 0


def test_subsets_and_copies_count_for_themselves(tmp_path):
    dataset = skipping_set(tmp_path, ['0', '1'])
    dataset[0]
    subset = dataset.get_subset([0, 5])
    twin = copy.deepcopy(dataset)
    assert (dataset.num_skipped, subset.num_skipped) == (2, 0)
    assert subset[0]['pair_id'] == '5'
    assert (dataset.num_skipped, subset.num_skipped) == (2, 1)
    assert twin.num_skipped == 2
    assert twin._skipped._flags.is_shared()
    dataset.get_subset_([7, 8])
    assert dataset.num_skipped == 0 and dataset[1]['pair_id'] == '8'


@pytest.fixture
def capture_logs(monkeypatch):
    """Messages that the data set hands to mmengine's logger."""
    messages = []
    monkeypatch.setattr(
        'mmcmcd.datasets.paired_dataset.print_log',
        lambda text, **_: messages.append(text),
    )
    return messages
