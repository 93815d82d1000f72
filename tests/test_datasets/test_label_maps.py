"""Broken label maps are refused before a stock loader meets them."""

import cv2
import numpy as np
import pytest

from mmcmcd.datasets.label_maps import check_label_map, read_label_map
from mmcmcd.errors import UnreadableFileError

LABELS = np.random.default_rng(0).integers(0, 40, (24, 32), dtype=np.uint8)


@pytest.fixture(params=['.png', '.bmp'])
def path(request, tmp_path):
    path = tmp_path / f'map{request.param}'
    cv2.imwrite(str(path), LABELS)
    return path


def test_whole_map(path):
    check_label_map(str(path))
    read = read_label_map(str(path))
    assert (read.reshape(24, 32, -1)[..., 0] == LABELS).all()


@pytest.mark.parametrize('check', [check_label_map, read_label_map])
@pytest.mark.parametrize('content', [b'', b'no image', None])
def test_no_map(path, check, content):
    path.write_bytes(path.read_bytes()[:60] if content is None else content)
    with pytest.raises(UnreadableFileError, match=str(path)):
        check(str(path))


def test_any_damage_within_a_png(tmp_path):
    """Also where decoders would fill, or take other labels."""
    path = tmp_path / 'map.png'
    cv2.imwrite(str(path), LABELS)
    whole = path.read_bytes()
    for place in range(16, len(whole) - 12, 7):
        damaged = bytearray(whole)
        damaged[place] ^= 0x10
        path.write_bytes(damaged)
        with pytest.raises(UnreadableFileError, match=str(path)):
            check_label_map(str(path))
