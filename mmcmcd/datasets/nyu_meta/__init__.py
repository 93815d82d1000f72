"""Class tables and official split of NYU-Depth V2.

The values are facts published with the data set (N. Silberman, D. Hoiem,
P. Kohli, R. Fergus, *Indoor Segmentation and Support Inference from RGBD
Images*, ECCV 2012): the 894 raw label names of
``nyu_depth_v2_labeled.mat`` and the 795 / 654 split.  The usual 40 classes are
those of S. Gupta, P. Arbelaez, J. Malik, *Perceptual Organization and
Recognition of Indoor Scenes from RGB-D Images*, CVPR 2013; the 13 classes
those of C. Couprie et al., *Indoor Semantic Segmentation using depth
information*, ICLR 2013, numbered as in SemanticFusion / SceneNet RGB-D
(alphabetically).  Names keep their published spelling.  The colours of the 40
classes are the customary ones of ScanNet's label tools.

Everything here counts from zero, unlike the publications: class ids, frame
ids.  255 is "unlabelled" and is ignored by losses and metrics.
"""

import csv
from functools import cache
from importlib.resources import files

import numpy as np

from mmcmcd.errors import DatasetError

__all__ = [
    'IGNORE_INDEX',
    'NUM_FRAMES',
    'NYU13_CLASSES',
    'NYU13_PALETTE',
    'NYU40_CLASSES',
    'NYU40_PALETTE',
    'lut_40_to_13',
    'lut_raw_to_40',
    'map_40_to_13',
    'map_raw_to_40',
    'split_ids',
]

NUM_FRAMES = 1449
IGNORE_INDEX = 255


def _rows(name):
    text = files(__package__).joinpath(name).read_text(encoding='utf-8')
    return list(csv.DictReader(text.splitlines()))


_TO_13 = _rows('40_to_13.csv')
NYU40_CLASSES = tuple(row['class40_name'] for row in _TO_13)
NYU13_CLASSES = tuple(sorted({row['class13_name'] for row in _TO_13}))

# fmt: off
NYU40_PALETTE = [
    [174, 199, 232], [152, 223, 138], [31, 119, 180], [255, 187, 120],
    [188, 189, 34], [140, 86, 75], [255, 152, 150], [214, 39, 40],
    [197, 176, 213], [148, 103, 189], [196, 156, 148], [23, 190, 207],
    [178, 76, 76], [247, 182, 210], [66, 188, 102], [219, 219, 141],
    [140, 57, 197], [202, 185, 52], [51, 176, 203], [200, 54, 131],
    [92, 193, 61], [78, 71, 183], [172, 114, 82], [255, 127, 14],
    [91, 163, 138], [153, 98, 156], [140, 153, 101], [158, 218, 229],
    [100, 125, 154], [178, 127, 135], [120, 185, 128], [146, 111, 194],
    [44, 160, 44], [112, 128, 144], [96, 207, 209], [227, 119, 194],
    [213, 92, 176], [94, 106, 211], [82, 84, 163], [100, 85, 144],
]
# fmt: on
# A 13-class name takes the colour of the member it is named after.
_MEMBER = {'furniture': 'cabinet', 'objects': 'otherprop', 'tv': 'television'}
NYU13_PALETTE = [
    NYU40_PALETTE[NYU40_CLASSES.index(_MEMBER.get(name, name))]
    for name in NYU13_CLASSES
]


def _lut(size, ids):
    table = np.full(size, IGNORE_INDEX, np.uint8)
    table[: len(ids)] = ids
    table.flags.writeable = False
    return table


@cache
def lut_raw_to_40():
    """Look-up table from the 895 raw labels to the 40 classes.

    Returns:
        np.ndarray: (895,) uint8, read-only; raw label 0 (unlabelled) gives
        255.
    """
    ids = [int(r['class40_id_1based']) - 1 for r in _rows('raw_to_40.csv')]
    return _lut(len(ids) + 1, [IGNORE_INDEX, *ids])


@cache
def lut_40_to_13():
    """Look-up table from the 40 classes to the 13 classes.

    Returns:
        np.ndarray: (256,) uint8, read-only; every id from 40 on gives 255.
    """
    return _lut(256, [NYU13_CLASSES.index(r['class13_name']) for r in _TO_13])


def map_raw_to_40(label):
    """Map raw NYU labels to the 40 classes.

    Args:
        label (np.ndarray): Integers in 0..894, any shape; 0 = unlabelled.

    Returns:
        np.ndarray: uint8 of the same shape, 0..39 or 255.

    Raises:
        DatasetError: A label lies outside 0..894.
    """
    label = np.asarray(label)
    table = lut_raw_to_40()
    if label.size and (label.min() < 0 or label.max() >= len(table)):
        raise DatasetError(
            'raw NYU labels must lie in 0..894 (0 = unlabelled), got '
            f'{label.min()}..{label.max()}; is this the "labels" array of '
            'nyu_depth_v2_labeled.mat?'
        )
    return table[label]


def map_40_to_13(label):
    """Map labels of the 40 classes to the 13 classes.

    Args:
        label (np.ndarray): uint8, any shape, 0..39 or 255.

    Returns:
        np.ndarray: uint8 of the same shape, 0..12 or 255.

    Raises:
        DatasetError: A label is neither in 0..39 nor 255.
    """
    label = np.asarray(label)
    known = (label >= 0) & (label < len(NYU40_CLASSES))
    bad = label[~known & (label != IGNORE_INDEX)]
    if bad.size:
        raise DatasetError(
            'labels of the 40 NYU classes must be 0..39, or 255 for '
            f'unlabelled, got {np.unique(bad)[:5].tolist()}; is this a map '
            'of raw labels, or one that counts from 1?'
        )
    return lut_40_to_13()[label]


@cache
def _train_ids():
    text = files(__package__).joinpath('train_ids_1based.txt').read_text()
    ids = []
    for line in text.split():
        first, _, last = line.partition('-')
        ids.extend(range(int(first) - 1, int(last or first)))
    return ids


def split_ids(split):
    """Frame ids of the official split.

    Args:
        split (str): 'train' (795 frames) or 'test' (the 654 others).

    Returns:
        np.ndarray: Ascending int64 frame ids, 0..1448.

    Raises:
        DatasetError: Another split is asked for.
    """
    train = np.array(_train_ids(), dtype=np.int64)
    if split == 'train':
        return train
    if split == 'test':
        return np.setdiff1d(np.arange(NUM_FRAMES), train)
    raise DatasetError(
        "the official split of NYU-Depth V2 has 'train' and 'test', got "
        f'{split!r}; cut a validation part from train yourself'
    )
