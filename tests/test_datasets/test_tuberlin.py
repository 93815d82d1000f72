from collections import Counter
from pathlib import Path

import pytest
from mmengine.registry import DATASETS

from mmcmcd.datasets import TUBerlin
from mmcmcd.errors import ConfigError, DatasetError


@pytest.fixture
def root(tmp_path):
    """Three classes of eight sketches, numbered through as in the archive."""
    for i in range(24):
        name = ('alarm clock', 'bear (animal)', 'zebra')[i // 8]
        path = tmp_path / 'png' / name / f'{i + 1}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / 'png/filelist.txt').touch()
    return tmp_path


def items(root, *args, **kwargs):
    dataset = TUBerlin(*args, data_root=str(root), **kwargs)
    return [dataset.get_data_info(i) for i in range(len(dataset))]


def test_items(root):
    cfg = dict(type='mmcmcd.TUBerlin', data_root=str(root), split='test')
    dataset = DATASETS.build(cfg)
    assert dataset.CLASSES == ('alarm clock', 'bear (animal)', 'zebra')
    assert dataset.get_data_info(3) == dict(
        img_path=f'{root}/png/bear (animal)/10.png', gt_label=1, sample_idx=3
    )


def test_folds(root):
    everything = set((root / 'png').glob('*/*.png'))
    tested = []
    for fold in range(3):
        test = items(root, 'test', fold)
        train = {Path(item['img_path']) for item in items(root, 'train', fold)}
        names = [Path(item['img_path']) for item in test]
        assert train == everything - set(names)
        times = Counter(item['gt_label'] for item in test)
        assert times == dict.fromkeys(range(3), 2 if fold == 2 else 3)
        tested += names
    assert len(tested) == 24 and set(tested) == everything


def test_few_labels(root):
    few = items(root, labels_per_class=2, draw=3)
    assert Counter(item['gt_label'] for item in few) == {0: 2, 1: 2, 2: 2}
    assert few != items(root, labels_per_class=2, draw=4)
    with pytest.raises(DatasetError, match=r'alarm clock \(5\), bear'):
        items(root, labels_per_class=6)


def test_classes_of_the_user(root):
    classes = ['zebra', 'bear (animal)', 'alarm clock']
    first = items(root, metainfo=dict(classes=classes))[0]
    assert 'zebra' in first['img_path'] and first['gt_label'] == 0
    with pytest.raises(DatasetError, match='not among the 2.*: alarm clock'):
        items(root, classes=classes[:2])
    with pytest.raises(DatasetError, match='no image of 1 classes.*: cow'):
        items(root, classes=[*classes, 'cow'])


def test_missing_and_empty_folders(root):
    with pytest.raises(DatasetError, match=r"'gone'.*sketches_png.zip"):
        items('gone')
    with pytest.raises(DatasetError, match=r'other.*does not exist'):
        items(root, data_prefix='other')
    (root / 'png/ant').mkdir()
    with pytest.raises(DatasetError, match='1 classes without a sketch: ant'):
        items(root)
    (root / 'empty').mkdir()
    with pytest.raises(DatasetError, match='no folder of a class'):
        items(root, data_prefix='empty')


def test_wrong_arguments(root):
    with pytest.raises(ConfigError, match="split='val'"):
        items(root, 'val')
    with pytest.raises(ConfigError, match='fold=3'):
        items(root, fold=3)
