import csv
import os
from pathlib import Path

import numpy as np
import pytest

from mmcmcd.datasets import nyu_meta as meta
from mmcmcd.errors import DatasetError


def test_class_names_and_palettes():
    assert len(meta.NYU40_CLASSES) == 40
    assert meta.NYU40_CLASSES[:4] == ('wall', 'floor', 'cabinet', 'bed')
    assert meta.NYU40_CLASSES[39] == 'otherprop'
    # fmt: off
    assert meta.NYU13_CLASSES == (
        'bed', 'books', 'ceiling', 'chair', 'floor', 'furniture', 'objects',
        'picture', 'sofa', 'table', 'tv', 'wall', 'window')
    # fmt: on
    for palette, size in ((meta.NYU40_PALETTE, 40), (meta.NYU13_PALETTE, 13)):
        assert len({tuple(colour) for colour in palette}) == size


def test_raw_to_40_known_values():
    raw = np.array([[0, 1, 3], [4, 894, 5]], np.uint16)
    mapped = meta.map_raw_to_40(raw)
    assert mapped.dtype == np.uint8
    # unlabelled, book, cabinet / ceiling, torah (the last), chair
    assert mapped.tolist() == [[255, 39, 2], [21, 39, 4]]
    assert set(np.unique(meta.lut_raw_to_40())) == {*range(40), 255}


def test_40_to_13_known_values():
    names = ['wall', 'floor', 'door', 'desk', 'books', 'television', 'lamp']
    ids = np.array([meta.NYU40_CLASSES.index(n) for n in names] + [255])
    mapped = meta.map_40_to_13(ids.astype(np.uint8))
    assert mapped.dtype == np.uint8 and mapped[-1] == 255
    assert [meta.NYU13_CLASSES[i] for i in mapped[:-1]] == [
        'wall', 'floor', 'wall', 'table', 'books', 'tv', 'objects'
    ]  # fmt: skip


def test_labels_out_of_range_are_refused():
    with pytest.raises(DatasetError, match=r'0\.\.894.*got 0\.\.895'):
        meta.map_raw_to_40(np.array([0, 895]))
    with pytest.raises(DatasetError, match=r'0\.\.39.*\[40, 200\]'):
        meta.map_40_to_13(np.array([0, 40, 200, 255], np.uint8))


def test_tables_cannot_be_changed_by_accident():
    with pytest.raises(ValueError):
        meta.lut_40_to_13()[0] = 3
    ids = meta.split_ids('train')
    ids[0] = 99
    assert meta.split_ids('train')[0] == 2


def test_official_split():
    train, test = meta.split_ids('train'), meta.split_ids('test')
    assert (len(train), len(test)) == (795, 654)
    assert sorted([*train, *test]) == list(range(1449))
    assert train[:3].tolist() == [2, 3, 4] and test[:3].tolist() == [0, 1, 8]
    with pytest.raises(DatasetError, match="got 'val'"):
        meta.split_ids('val')


def test_against_published_tables():
    root = os.environ.get('MMCMCD_REALDATA', '')
    root = Path(root, 'nyuv2_meta')
    if not root.is_absolute() or not root.is_dir():
        pytest.skip('MMCMCD_REALDATA is not set')
    with open(root / 'classes894_to_40.csv') as file:
        rows = list(csv.DictReader(file))
    expected = [int(row['class40_id_1based']) - 1 for row in rows]
    assert meta.lut_raw_to_40()[1:].tolist() == expected
    with open(root / 'classes40_to_13.csv') as file:
        rows = list(csv.DictReader(file))
    expected = [int(row['class13_id_1based']) - 1 for row in rows]
    assert meta.lut_40_to_13()[:40].tolist() == expected
    for split in ('train', 'test'):
        ids = np.loadtxt(root / f'{split}_ids_1based.txt', dtype=int)
        assert meta.split_ids(split).tolist() == sorted(ids - 1)
