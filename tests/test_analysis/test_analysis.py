import math

import mmcv
import numpy as np
import pytest

from mmcmcd.analysis import mean_interval, save_segmentation_picture


def test_interval_is_students_t():
    mean, half = mean_interval([1.0, 2.0, 3.0])
    assert mean == 2
    # t(0.975, 2) = 4.3027 and s = 1.
    assert half == pytest.approx(4.3027 / math.sqrt(3), abs=1e-4)


def test_one_value_has_no_interval():
    mean, half = mean_interval([5.0])
    assert mean == 5 and math.isnan(half)


def test_picture_shows_every_column(tmp_path):
    path = tmp_path / 'picture.png'
    row = {
        'RGB': np.full((12, 16, 3), 200, np.uint8),
        'depth': np.linspace(0, 5, 192, dtype=np.float32).reshape(12, 16),
        'truth': np.full((12, 16), 1),
    }
    save_segmentation_picture(
        path, [row, row], ('a', 'b'), [(255, 0, 0), (0, 0, 255)]
    )
    image = mmcv.imread(path, channel_order='rgb')
    # One column a field: wider than high, and the truth's blue is there.
    assert image.shape[1] > image.shape[0]
    blue = (image == (0, 0, 255)).all(axis=2)
    assert blue.mean() > 0.05
    assert blue[:, : image.shape[1] // 2].mean() < 0.02
