import cv2
import numpy as np
import pytest
from scipy import stats

from mmcmcd.analysis import spearman_interval
from mmcmcd.analysis.generalization_picture import save_gap_picture
from mmcmcd.errors import ConfigError


def naive_spearman(first, second):
    """Without ties: 1 - 6 sum d^2 / (n (n^2 - 1))."""
    ranks = [sorted(side).index for side in (first, second)]
    total = sum(
        (ranks[0](a) - ranks[1](b)) ** 2
        for a, b in zip(first, second, strict=True)
    )
    number = len(first)
    return 1 - 6 * total / (number * (number**2 - 1))


def test_correlation_and_interval():
    rng = np.random.default_rng(0)
    first = rng.normal(size=20)
    second = first + rng.normal(size=20)
    value, low, high = spearman_interval(first, second, draws=300)
    expected = naive_spearman(first.tolist(), second.tolist())
    assert value == pytest.approx(expected)
    assert low < value < high
    # Twice the points of the same law: about 1 / sqrt(2) of the width.
    many = rng.normal(size=200)
    _, low_2, high_2 = spearman_interval(
        many, many + rng.normal(size=200), draws=300
    )
    assert high_2 - low_2 < 0.6 * (high - low)


def test_the_interval_is_that_of_scipy_draw_by_draw():
    rng = np.random.default_rng(2)
    first = rng.normal(size=12).round(1)
    second = first + rng.normal(size=12)
    _, low, high = spearman_interval(first, second, draws=50, seed=4)
    drawn = np.random.default_rng(4).integers(0, 12, (50, 12))
    found = [stats.spearmanr(first[d], second[d]).statistic for d in drawn]
    assert (low, high) == pytest.approx(np.quantile(found, [0.025, 0.975]))


def test_a_constant_side_has_no_correlation():
    assert np.isnan(spearman_interval([1, 2, 3, 4], [5, 5, 5, 5])).all()


@pytest.mark.parametrize('second', [[1, 2, 3], [1, 2, 3, 4, 5]])
def test_too_few_or_unequal_points_are_refused(second):
    with pytest.raises(ConfigError, match='4 points or more'):
        spearman_interval([1, 2, 3], second)


def test_the_picture_is_drawn(tmp_path):
    path = tmp_path / 'gap.png'
    panels = dict(error=[1, 2, 4, 3], gain=[4, 3, 1, 2])
    save_gap_picture(path, [0, 1, 2, 3], panels, list('aabb'), 'gap')
    assert cv2.imread(str(path)).std() > 5
