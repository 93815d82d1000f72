import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.registry import DATASETS, DefaultScope

from mmcmcd.datasets import NYUDepthSegDataset, NYURGBDPairs
from mmcmcd.datasets.nyu_meta import NYU13_CLASSES, NYU40_CLASSES
from mmcmcd.errors import ConfigError, DatasetError

REPO = Path(__file__).resolve().parents[2]
REAL = Path(os.environ.get('MMCMCD_REALDATA', 'none')) / 'nyuv2'


@pytest.fixture
def root(tmp_path):
    """Three frames in the layout of the converter."""
    for folder in ('rgb', 'depth', 'label40', 'label13', 'splits'):
        (tmp_path / folder).mkdir()
    for i in range(3):
        rgb = np.full((6, 8, 3), 50 * i, np.uint8)
        depth = np.full((6, 8), 1000 + i, np.uint16)
        label = np.array([[0, 1, 3, 255, 12, 5, 4, 2]] * 6, np.uint8)
        cv2.imwrite(str(tmp_path / f'rgb/{i:04d}.jpg'), rgb)
        cv2.imwrite(str(tmp_path / f'depth/{i:04d}.png'), depth)
        cv2.imwrite(str(tmp_path / f'label40/{i:04d}.png'), label)
        cv2.imwrite(str(tmp_path / f'label13/{i:04d}.png'), label)
    (tmp_path / 'splits/train.txt').write_text('0000\n0002\n')
    return tmp_path


def test_pairs(root):
    (root / 'rgb/0001.jpg').rename(root / 'rgb/0001.png')
    assert len(NYURGBDPairs(str(root))) == 3
    dataset = NYURGBDPairs(
        str(root),
        ann_file='splits/train.txt',
        seg_map=dict(folder='label40', suffix='.png'),
    )
    item = dataset[1]
    assert item['pair_id'] == '0002'
    assert item['source']['img_path'] == str(root / 'rgb/0002.jpg')
    assert item['target']['img_path'] == str(root / 'depth/0002.png')
    assert item['seg_map_path'] == str(root / 'label40/0002.png')
    assert dataset.metainfo['dataset_type'] == 'nyu_depth_v2'


@pytest.mark.parametrize('cls', [NYURGBDPairs, NYUDepthSegDataset])
def test_missing_root_says_how_to_get_the_data(cls):
    with pytest.raises(DatasetError) as error:
        cls(data_root='data/no_such_nyu')
    message = str(error.value)
    assert str(Path('data/no_such_nyu').resolve()) in message
    assert '--mat nyu_depth_v2_labeled.mat --out data/nyu_depth_v2' in message
    assert 'make demo' in message and '\n' not in message


@pytest.mark.parametrize('cls', [NYURGBDPairs, NYUDepthSegDataset])
def test_missing_list_says_how_to_finish_the_conversion(root, cls):
    (root / 'splits/train.txt').unlink()
    (root / 'splits').rmdir()
    with pytest.raises(DatasetError) as error:
        cls(data_root=str(root), ann_file='splits/train.txt')
    message = str(error.value)
    assert "splits/train.txt' does not exist" in message
    assert '--mat nyu_depth_v2_labeled.mat --out data/nyu_depth_v2' in message
    assert 'run it again if it was interrupted: it resumes' in message


@pytest.mark.parametrize(
    'number, names', [(40, NYU40_CLASSES), (13, NYU13_CLASSES)]
)
def test_seg_classes(root, number, names):
    dataset = NYUDepthSegDataset(
        num_classes=number, data_root=str(root), ann_file='splits/train.txt'
    )
    assert dataset.metainfo['classes'] == names
    assert len(dataset.metainfo['palette']) == number
    assert dataset.label_map is None and len(dataset) == 2
    item = dataset.get_data_info(1)
    assert item['img_path'] == str(root / 'depth/0002.png')
    assert item['seg_map_path'] == str(root / f'label{number}/0002.png')


@pytest.mark.parametrize('number', [40, 13])
def test_seg_subset_of_classes_is_remapped(root, number):
    names = NYU40_CLASSES if number == 40 else NYU13_CLASSES
    chosen = (names[3], names[1])
    dataset = NYUDepthSegDataset(
        num_classes=number,
        data_root=str(root),
        metainfo=dict(classes=chosen),
        pipeline=[dict(type='mmseg.LoadAnnotations')],
    )
    assert dataset.metainfo['classes'] == chosen
    full = NYUDepthSegDataset(num_classes=number, data_root=str(root))
    colours = full.metainfo['palette']
    assert list(dataset.metainfo['palette']) == [colours[3], colours[1]]
    loaded = dataset[0]['gt_seg_map'][0].tolist()
    assert loaded == [255, 1, 0, 255, 255, 255, 255, 255]


def test_seg_pipeline_in_the_scope_of_mmseg(root):
    cfg = dict(
        type='mmcmcd.NYUDepthSegDataset',
        data_root=str(root),
        ann_file='splits/train.txt',
        pipeline=[
            dict(type='mmcmcd.LoadDepthFromFile', depth_scale=1000.0),
            dict(type='LoadAnnotations'),
            dict(type='PackSegInputs'),
        ],
    )
    with DefaultScope.overwrite_default_scope('mmseg'):
        item = DATASETS.build(cfg)[1]
    assert item['inputs'].shape == (1, 6, 8)
    assert item['inputs'].unique().tolist() == [pytest.approx(1.002)]
    ids = item['data_samples'].gt_sem_seg.data[0, 0].tolist()
    assert ids == [0, 1, 3, 255, 12, 5, 4, 2]


@pytest.mark.parametrize(
    'kwargs, words',
    [
        (dict(num_classes=41), '40 or 13'),
        (dict(metainfo=dict(classes=('wall', 'wal'))), "'wal'"),
    ],
)
def test_seg_wrong_arguments(root, kwargs, words):
    with pytest.raises(ConfigError, match=words):
        NYUDepthSegDataset(data_root=str(root), **kwargs)


def test_seg_missing_files_stop_at_once(root):
    build = dict(data_root=str(root))
    (root / 'label40/0001.png').unlink()
    with pytest.raises(DatasetError, match='1 of 3 label maps.*0001.png'):
        NYUDepthSegDataset(**build)
    assert len(NYUDepthSegDataset(num_classes=13, **build)) == 3
    (root / 'splits/x.txt').write_text('0000\n0009\n')
    with pytest.raises(DatasetError, match='1 of 2 depth maps.*0009.png'):
        NYUDepthSegDataset(ann_file='splits/x.txt', **build)
    with pytest.raises(DatasetError, match=r'y.txt.*train.txt, x.txt'):
        NYUDepthSegDataset(ann_file='splits/y.txt', **build)
    with pytest.raises(DatasetError, match='data_prefix.img_path'):
        NYUDepthSegDataset(data_prefix=dict(img_path='dpt'), **build)
    with pytest.raises(DatasetError, match="ends with '.tif'"):
        NYUDepthSegDataset(img_suffix='.tif', **build)


def test_seg_without_labels_for_prediction(root):
    dataset = NYUDepthSegDataset(
        data_root=str(root), data_prefix=dict(img_path='depth'), test_mode=True
    )
    assert len(dataset) == 3
    assert 'seg_map_path' not in dataset.get_data_info(0)


def test_datasets_import_without_mmseg():
    code = (
        'import sys\n'
        'class Block:\n'
        '    def find_spec(self, name, path=None, target=None):\n'
        '        if name.split(".")[0] == "mmseg":\n'
        '            raise ModuleNotFoundError(name)\n'
        'import importlib.util as u\n'
        'find = u.find_spec\n'
        'u.find_spec = lambda n: None if n == "mmseg" else find(n)\n'
        'sys.meta_path.insert(0, Block())\n'
        'import mmcmcd.datasets as d\n'
        'print(d.__all__, "mmseg" in sys.modules)\n'
    )
    done = subprocess.run(
        [sys.executable, '-c', code],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, 'PYTHONPATH': str(REPO)},
    )
    assert done.returncode == 0, done.stderr
    last = done.stdout.strip().splitlines()[-1]
    assert 'NYURGBDPairs' in last and 'NYUDepthSegDataset' not in last
    assert last.endswith('False')


@pytest.mark.skipif(not REAL.is_dir(), reason='needs MMCMCD_REALDATA')
def test_real_frames():
    seg_map = dict(folder='label', suffix='.png')
    pairs = NYURGBDPairs(str(REAL), ann_file='train.txt', seg_map=seg_map)
    assert len(pairs) == 636 and pairs[0]['pair_id'] == '0002'
    assert len(NYURGBDPairs(str(REAL))) == 795
    seg = NYUDepthSegDataset(
        data_root=str(REAL),
        ann_file='few_50.txt',
        data_prefix=dict(img_path='depth', seg_map_path='label'),
        pipeline=[
            dict(type='mmcmcd.LoadDepthFromFile', depth_scale=25.5),
            dict(type='mmseg.LoadAnnotations'),
        ],
    )
    item = seg[7]
    assert len(seg) == 50 and item['img'].shape == (480, 640)
    assert item['img'].min() > 0 and item['img'].max() <= 10
    assert set(np.unique(item['gt_seg_map'])) <= {*range(40), 255}
