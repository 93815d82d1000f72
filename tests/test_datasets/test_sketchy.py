import os
import zlib
from collections import Counter
from pathlib import Path

import pytest
from mmengine.registry import DATASETS as ROOT

from mmcmcd.datasets import SketchyImages, SketchyPairs
from mmcmcd.datasets.photo_sketch_table import image_id
from mmcmcd.errors import ConfigError, DatasetError

REAL = Path(os.environ.get('MMCMCD_REALDATA', 'none')) / 'sketchy125'
PHOTO = 'photo/tx_0/{0}/{1}.jpg'
SKETCH = 'sketch/tx_0/{0}/{1}-{2}.png'


def row(name, photo, number, split='train'):
    return [
        PHOTO.format(name, photo),
        SKETCH.format(name, photo, number),
        name,
        split,
    ]


ROWS = [
    row('dog', 'n1', 1),
    row('dog', 'n1', 2),
    row('dog', 'n2', 1),
    row('cat', 'n3', 1),
    row('cat', 'n3', 2),
    row('dog', 'n4', 1, 'test'),
    row('cat', 'n5', 1, 'test'),
]


def write(root, rows, header='photo,sketch,class,split', files=True):
    lines = [header, *(','.join(cells) for cells in rows)]
    (root / 'pairs.csv').write_text('\n'.join(lines) + '\n')
    for cells in rows if files else ():
        for name in cells[:2]:
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    return str(root)


def items(dataset):
    return [dataset.get_data_info(i) for i in range(len(dataset))]


def drop_file(root, rows):
    write(root, rows)
    (root / rows[0][0]).unlink()


# -------------------------------------------------------------------- pairs


def test_item(tmp_path):
    root = write(tmp_path, ROWS)
    dataset = SketchyPairs(data_root=root)
    assert len(dataset) == 5
    item = dataset[1]
    assert 0 <= item.pop('group_index') < 2**63
    assert item == dict(
        pair_id='dog/n1-2',
        group_id='dog/n1',
        sample_idx=1,
        sides=('source', 'target'),
        source=dict(img_path=f'{root}/photo/tx_0/dog/n1.jpg'),
        target=dict(img_path=f'{root}/sketch/tx_0/dog/n1-2.png'),
        gt_label=1,
    )
    groups = [item['group_index'] for item in dataset]
    assert groups[0] == groups[1] and groups[3] == groups[4]
    assert len(set(groups)) == 3


def test_groups(tmp_path):
    root = write(tmp_path, ROWS)
    by_sketch = items(SketchyPairs(data_root=root, group_by='sketch'))
    assert [i['group_id'] for i in by_sketch] == [
        i['pair_id'] for i in by_sketch
    ]
    with pytest.raises(ConfigError, match="group_by='class'"):
        SketchyPairs(data_root=root, group_by='class')


def test_splits(tmp_path):
    rows = [row('a', f'n{i}', k) for i in range(200) for k in (1, 2)]
    rows += [row('a', 'n999', 1, 'test')]
    root = write(tmp_path, rows)
    photos = {
        split: Counter(
            item['group_id']
            for item in items(SketchyPairs(split, data_root=root))
        )
        for split in ('train', 'fit', 'val', 'test')
    }
    assert photos['test'] == {'a/n999': 1}
    assert photos['fit'] + photos['val'] == photos['train']
    assert not photos['fit'].keys() & photos['val'].keys()
    assert set(photos['train'].values()) == {2}
    assert 25 <= len(photos['val']) <= 55  # a fifth of 200, by a hash


def test_table_with_a_split_for_tuning(tmp_path):
    root = write(tmp_path, [*ROWS, row('cat', 'n6', 1, 'val')])
    for split, number in dict(train=5, fit=5, val=1, test=2).items():
        assert len(SketchyPairs(split, data_root=root)) == number


def test_classes_are_those_of_the_whole_table(tmp_path, monkeypatch):
    logs = []
    monkeypatch.setattr(
        'mmcmcd.datasets.sketchy.print_log',
        lambda text, **_: logs.append(text),
    )
    rows = [*ROWS, row('ant', 'n7', 1, 'test'), row('ant', 'n7', 2, 'test')]
    root = write(tmp_path, rows)
    dataset = SketchyPairs(data_root=root)
    assert dataset.metainfo['classes'] == ('ant', 'cat', 'dog')
    assert [item['gt_label'] for item in dataset] == [2, 2, 2, 1, 1]
    assert len(logs) == 1 and '1 of 3 classes' in logs[0]
    assert "no image in split 'train': ant." in logs[0]


def test_classes_of_the_user_order_the_labels(tmp_path):
    root = write(tmp_path, ROWS)
    metainfo = dict(classes=['dog', 'cat'])
    dataset = SketchyPairs(data_root=root, metainfo=metainfo)
    assert [item['gt_label'] for item in dataset] == [0, 0, 0, 1, 1]


@pytest.mark.parametrize(
    'classes, words',
    [
        (['dog'], '1 classes that are not among the 1 of .*: cat'),
        (['dog', 'cat', 'cow'], "no image of 1 classes of metainfo.*: cow'?"),
        (['dog', 'Cat'], 'among the 2 of .*: cat; and no image of 1.*: Cat'),
    ],
)
@pytest.mark.parametrize('kind', [SketchyPairs, SketchyImages])
def test_classes_that_do_not_fit(tmp_path, classes, words, kind):
    root = write(tmp_path, ROWS)
    with pytest.raises(DatasetError, match=words):
        kind(data_root=root, metainfo=dict(classes=classes))


@pytest.mark.parametrize(
    'make, words',
    [
        (
            drop_file,
            r'no source file: 2 \(dog/n1-1: /.*/photo/tx_0/dog/n1\.jpg, '
            r'dog/n1-2: /[^<>]*$',
        ),
        (
            lambda root, rows: write(
                root,
                [*rows, [r'photo\x.jpg', rows[0][1][:-5] + '8', *rows[0][2:]]],
                files=False,
            ),
            r'source path with a backslash \(write /\): 1 \(dog/n1-8: .*x\.j',
        ),
        (
            lambda root, rows: write(
                root, [*rows, row('dog', 'n1', 3, ''), ['', 's/b', 'x', 'val']]
            ),
            r"2 empty values: line 9 \('split'\), line 10 \('photo'\)\. Exp",
        ),
        (
            lambda root, rows: (root / 'pairs.csv').write_bytes(
                b'photo,sketch,class,split\na.jpg,a-1.png,caf\xe9,train\n'
            ),
            r"pairs.csv', line 2: not encoded as UTF-8. Save",
        ),
        (
            lambda root, rows: write(root, [*rows, rows[0]]),
            r'listed more than once: 1 \(dog/n1-1\)',
        ),
        (
            lambda root, rows: write(
                root,
                [*rows, [rows[0][0], 'tx_1/dog/n1-1.jpg', 'dog', 'train']],
            ),
            r'listed more than once: 1 \(dog/n1-1\)',
        ),
        (
            lambda root, rows: write(
                root, [*rows, row('cat', 'n6', 1, 'tset')]
            ),
            r"1 rows of an unknown split: 'tset' \(1\); expected train, val",
        ),
        (
            lambda root, rows: write(
                root, [*rows, row('dog', 'n1', 3, 'test')]
            ),
            r'1 photos are in two splits.*: dog/n1 \(test, train\)',
        ),
        (
            lambda root, rows: write(root, rows, 'photo,sketch,label,split'),
            "no column 'class'; it has 'photo', 'sketch', 'label', 'split'",
        ),
        (
            lambda root, rows: write(
                root, [*rows, ['', 'a/b-1.png', 'dog', 'train']], files=False
            ),
            r"1 empty values: line 9 \('photo'\)",
        ),
        (lambda root, rows: write(root, []), 'has no row'),
        (lambda root, rows: None, r'pairs.csv. does not exist.*Get the'),
    ],
)
@pytest.mark.parametrize('kind', [SketchyPairs, SketchyImages])
def test_faults_of_the_table(tmp_path, make, words, kind):
    make(tmp_path, ROWS)
    with pytest.raises(DatasetError, match=words):
        kind(data_root=str(tmp_path))


def test_several_faults_make_one_message(tmp_path):
    root = write(
        tmp_path,
        [*ROWS, row('dog', 'n1', 3, 'test'), row('cat', 'n8', 1, 'x')],
    )
    # A table that mixes up training and test is refused in any case.
    with pytest.raises(DatasetError, match='unknown split.*in two splits'):
        SketchyPairs(data_root=root, strict=False)


def test_a_rendering_is_no_other_photo(tmp_path):
    other = ['photo/tx_1/dog/n1.jpg', 'sketch/tx_0/dog/n1-7.png', 'dog']
    root = write(tmp_path, [*ROWS, [*other, 'test']])
    with pytest.raises(DatasetError, match='in two splits.*: dog/n1 '):
        SketchyPairs(data_root=root)


@pytest.mark.parametrize(
    'path, name',
    [
        ('photo/cat/n1_2.jpg', 'cat/n1_2'),
        ('photo/tx_000000000000/cat/n1_2.jpg', 'cat/n1_2'),
        ('256x256/sketch/tx_000100000000/cat/n1_2-1.png', 'cat/n1_2-1'),
        ('rendered_256x256/256x256/photo/cat/n1.v2.jpg', 'cat/n1.v2'),
        ('./photo//cat/n1_2.jpg', 'cat/n1_2'),
        ('cat/photos/0.jpg', 'cat/photos/0'),
        ('photos/0.jpg', 'photos/0'),
        ('a/photo/btx_1/tx_a/tx_1.png', 'a/photo/btx_1/tx_a/tx_1'),
        ('0.jpg', '0'),
    ],
)
def test_image_id(path, name):
    assert image_id(path) == name


def test_folders_that_end_alike_are_not_mixed_up(tmp_path):
    rows = [
        [f'{name}/photos/0.jpg', f'{name}/drawings/0.png', name, split]
        for name, split in (('cat', 'train'), ('dog', 'train'), ('ox', 'test'))
    ]
    first, second = items(SketchyPairs(data_root=write(tmp_path, rows)))
    assert first['group_id'] == 'cat/photos/0'
    assert first['pair_id'] == 'cat/drawings/0'
    assert first['group_index'] != second['group_index']


def test_table_of_a_spreadsheet(tmp_path):
    root = write(tmp_path, ROWS)
    table = tmp_path / 'pairs.csv'
    table.write_bytes(b'\xef\xbb\xbf' + table.read_bytes())
    assert len(SketchyPairs(data_root=root)) == 5


@pytest.mark.parametrize('kind', [SketchyPairs, SketchyImages])
def test_missing_data_and_wrong_arguments(tmp_path, kind):
    with pytest.raises(DatasetError, match=r"'gone'.*tools/dataset_conv"):
        kind(data_root='gone')
    root = write(tmp_path, ROWS[:5])
    with pytest.raises(ConfigError, match="split='tset'"):
        kind('tset', data_root=root)
    with pytest.raises(DatasetError, match=r"'test'; it has train \(5\)"):
        kind('test', data_root=root)


# ------------------------------------------------------------------- images


def test_images_of_both_sides(tmp_path):
    root = write(tmp_path, ROWS)
    sketches = items(SketchyImages(data_root=root))
    assert sketches[1] == dict(
        img_path=f'{root}/sketch/tx_0/dog/n1-2.png',
        gt_label=1,
        group_id='dog/n1',
        sample_idx=1,
    )
    assert len(sketches) == 5
    photos = SketchyImages(side='source', data_root=root)
    assert [Path(item['img_path']).name for item in items(photos)] == [
        'n1.jpg',
        'n2.jpg',
        'n3.jpg',
    ]
    assert photos.CLASSES == ('cat', 'dog')
    with pytest.raises(ConfigError, match="side='student'"):
        SketchyImages(side='student', data_root=root)


def test_relative_data_root_and_classes_from_a_file(tmp_path, monkeypatch):
    (tmp_path / 'data').mkdir()
    write(tmp_path / 'data', ROWS)
    (tmp_path / 'names.txt').write_text('dog\ncat\n')
    monkeypatch.chdir(tmp_path)
    dataset = SketchyImages(data_root='data', classes='names.txt')
    assert dataset.CLASSES == ('dog', 'cat')
    assert items(dataset)[0]['img_path'].startswith('data/sketch/')


def test_few_labels(tmp_path):
    root = write(tmp_path, ROWS)
    few = SketchyImages(labels_per_class=2, data_root=root)
    assert Counter(few.get_gt_labels()) == {0: 2, 1: 2}
    with pytest.raises(
        DatasetError, match=r'labels_per_class=3, but 1 of 2.*: cat \(2\)'
    ):
        SketchyImages(labels_per_class=3, data_root=root)
    with pytest.raises(DatasetError, match=r': cat \(1\), dog \(2\)'):
        SketchyImages(labels_per_class=3, side='source', data_root=root)


# ---------------------------------------------------------------- real data


@pytest.mark.skipif(not REAL.is_dir(), reason='needs MMCMCD_REALDATA')
class TestRealSample:
    @staticmethod
    def build(split, kind='Pairs', **kwargs):
        cfg = dict(split=split, data_root=str(REAL), **kwargs)
        return items(ROOT.build(dict(type=f'mmcmcd.Sketchy{kind}', **cfg)))

    def test_counts_and_ends(self):
        train, test = self.build('train'), self.build('test')
        assert (len(train), len(test)) == (1580, 295)
        assert {item['gt_label'] for item in train} == set(range(75))
        assert {item['gt_label'] for item in test} == set(range(75))
        assert len({item['group_index'] for item in train}) == 272
        assert len({item['group_index'] for item in test}) == 75
        ends = [
            (train[0], 'airplane/n02691156_10151', 1, 0),
            (test[-1], 'zebra/n02391049_1042', 1, 74),
        ]
        for item, photo, number, label in ends:
            assert item['group_id'] == photo
            assert item['pair_id'] == f'{photo}-{number}'
            assert item['source']['img_path'] == f'{REAL}/photo/{photo}.jpg'
            assert item['target']['img_path'] == (
                f'{REAL}/sketch/{photo}-{number}.png'
            )
            assert item['gt_label'] == label

    def test_no_photo_is_in_two_splits(self):
        photos = {
            split: {item['group_id'] for item in self.build(split)}
            for split in ('train', 'test', 'fit', 'val')
        }
        assert not photos['train'] & photos['test']
        assert not photos['fit'] & photos['val']
        assert photos['fit'] | photos['val'] == photos['train']
        assert 0.1 < len(photos['val']) / len(photos['train']) < 0.3

    def test_division_for_tuning_stays(self):
        """Tuned settings refer to just these photos."""
        sizes, digests = {}, {}
        for split in ('fit', 'val'):
            pairs = self.build(split)
            photos = sorted({item['group_id'] for item in pairs})
            sizes[split] = len(pairs), len(photos)
            digests[split] = zlib.crc32('\n'.join(photos).encode())
        assert sizes == dict(fit=(1270, 220), val=(310, 52))
        assert digests == dict(fit=3486295588, val=1891615992)

    def test_images(self):
        assert len(self.build('train', 'Images')) == 1580
        assert len(self.build('train', 'Images', side='source')) == 272
        few = self.build('train', 'Images', labels_per_class=5, draw=1)
        times = Counter(item['gt_label'] for item in few)
        assert times == dict.fromkeys(range(75), 5)
