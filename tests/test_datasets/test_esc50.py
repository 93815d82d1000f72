from collections import Counter

import pytest
from mmengine.registry import DATASETS

from mmcmcd.datasets import ESC50
from mmcmcd.errors import ConfigError, DatasetError

HEADER = 'filename,fold,target,category,esc10,src_file,take'
# Not in alphabetical order, as in the official table.
CLASSES = ('dog', 'rooster', 'cow')


@pytest.fixture
def root(tmp_path):
    """Five folds, two sounds a class and fold, cut from one recording."""
    rows = [
        f'{fold}-{fold}{target}-{take}-{target}.wav,{fold},{target},'
        f'{CLASSES[target]},False,{fold}{target},{take}'
        for fold in range(1, 6)
        for target in range(3)
        for take in 'AB'
    ]
    write(tmp_path, rows)
    (tmp_path / 'audio').mkdir()
    for row in rows:
        (tmp_path / 'audio' / row.split(',')[0]).touch()
    return tmp_path


def write(root, rows, header=HEADER):
    (root / 'meta').mkdir(exist_ok=True)
    (root / 'meta/esc50.csv').write_text('\n'.join([header, *rows]) + '\n')


def rows_of(root):
    return (root / 'meta/esc50.csv').read_text().splitlines()[1:]


def items(root, *args, **kwargs):
    kwargs = dict(data_root=str(root), serialize_data=False, **kwargs)
    dataset = ESC50(*args, **kwargs)
    return [dataset.get_data_info(i) for i in range(len(dataset))]


def test_items(root):
    cfg = dict(type='mmcmcd.ESC50', data_root=str(root))
    dataset = DATASETS.build(cfg)
    assert dataset.CLASSES == CLASSES
    assert len(dataset) == 24
    assert dataset.get_data_info(9) == dict(
        img_path=f'{root}/audio/2-21-B-1.wav',
        gt_label=1,
        group_id='21',
        sample_idx=9,
    )


def test_folds(root):
    train = items(root, folds=(1, 2, 4, 5))
    test = items(root, folds=[3])
    assert (len(train), len(test)) == (24, 6)
    assert {i['img_path'].split('/')[-1][0] for i in test} == {'3'}
    assert {i['img_path'].split('/')[-1][0] for i in train} == set('1245')
    for folds in ((), (1, 1)):
        with pytest.raises(ConfigError, match='one or more different folds'):
            items(root, folds=folds)
    with pytest.raises(ConfigError, match='no fold 0, 6; it has 1, 2, 3, 4'):
        items(root, folds=(0, 1, 6))


def test_few_labels(root):
    few = items(root, labels_per_class=4, draw=1)
    assert Counter(item['gt_label'] for item in few) == {0: 4, 1: 4, 2: 4}
    # Of different recordings first.
    assert len({item['group_id'] for item in few}) == 12
    with pytest.raises(DatasetError, match='labels_per_class=9'):
        items(root, labels_per_class=9)


def test_classes_of_the_user(root):
    names = ['cow', 'dog', 'rooster']
    got = items(root, folds=(1,), metainfo=dict(classes=names))
    assert [item['gt_label'] for item in got] == [1, 1, 2, 2, 0, 0]
    with pytest.raises(DatasetError, match='not among the 1 of metainfo'):
        items(root, metainfo=dict(classes=['cow']))


@pytest.mark.parametrize(
    'change, words',
    [
        (lambda rows: [], 'has no row'),
        (lambda rows: [*rows, 'x.wav,a,1,rooster,,1,A'], 'line 32: fold and'),
        (lambda rows: [*rows, 'x.wav,1,,rooster,,1,A'], 'line 32: fold and'),
        (lambda rows: [*rows, ',1,1,rooster,,1,A'], 'line 32: filename or'),
        (lambda rows: [*rows, 'x.wav,1,1,dog,,1,A'], 'a class two numbers'),
        (lambda rows: [*rows, 'x.wav,1,1,hen,,1,A'], 'number two classes'),
        (
            lambda rows: [*rows, 'x.wav,1,1,rooster,,1,A'],
            r'1 of 25 sounds .* are missing: /.*/audio/x\.wav\. Get the',
        ),
    ],
)
def test_faults_of_the_table(root, change, words):
    write(root, change(rows_of(root)))
    with pytest.raises(DatasetError, match=words):
        items(root)


def test_missing_data(root):
    with pytest.raises(DatasetError, match=r"'gone'.*Environmental Sound"):
        items('gone')
    write(root, rows_of(root), HEADER.replace('category', 'name'))
    with pytest.raises(DatasetError, match="no column 'category'; it has 'f"):
        items(root)
    (root / 'meta/esc50.csv').unlink()
    with pytest.raises(DatasetError, match='does not exist.*Get the archive'):
        items(root)
