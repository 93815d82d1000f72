import numpy as np
import pytest
from scipy import stats

from mmcmcd.analysis.learning_curve import (
    DOUBLING,
    corrected_interval,
    fit_error_curve,
)


def curve_error(terms, chance):
    return chance * (1 - np.exp(-np.asarray(terms)))


def test_a_curve_of_the_form_is_found():
    labels, pairs = np.array([[n, m] for n in (10, 40) for m in (9, 25)]).T
    terms = 0.1 + 0.5 / np.sqrt(labels) + 0.3 / np.sqrt(pairs)
    curve = fit_error_curve(labels, pairs, curve_error(terms, 0.6), 0.6)
    assert curve == pytest.approx((0.1, 0.5, 0.3, 0.6))
    before, after = (
        curve_error(0.1 + 0.5 / np.sqrt(n) + 0.3 / 5, 0.6) for n in (40, 80)
    )
    less = DOUBLING * curve.labels / np.sqrt(40)
    assert curve.saved(less, 40, 25) == pytest.approx(before - after)


def test_small_errors_are_the_terms():
    errors = 0.001 + 0.005 / np.sqrt([10, 20, 40])
    curve = fit_error_curve([10, 20, 40], [5, 5, 5], errors, 0.8)
    assert curve[:3] == pytest.approx((0.001 / 0.8, 0.005 / 0.8, 0), rel=0.01)


def test_what_did_not_vary_is_in_the_floor():
    terms = 0.1 + 0.5 / np.sqrt([10, 20, 40])
    curve = fit_error_curve(
        [10, 20, 40], [0, 0, 0], curve_error(terms, 0.7), 0.7
    )
    assert curve == pytest.approx((0.1, 0.5, 0, 0.7))


def test_no_term_is_negative():
    curve = fit_error_curve([10, 20, 40], [5, 5, 5], [0.1, 0.2, 0.3], 0.9)
    assert curve.labels == curve.pairs == 0
    assert 0.1 < curve_error(curve.floor, 0.9) < 0.3


def test_worse_than_guessing_is_finite():
    curve = fit_error_curve([10, 20], [5, 5], [0.9, 0.4], 0.5)
    assert np.isfinite(curve).all()
    assert curve.labels > 0


def test_the_interval_of_splits_is_wider():
    values, ratio = [0.1, 0.2, 0.4, 0.3], 1 / 3
    mean, half = corrected_interval(values, ratio)
    variance = sum((v - 0.25) ** 2 for v in values) / 3
    quantile = stats.t.ppf(0.975, 3)
    assert mean == pytest.approx(0.25)
    assert half == pytest.approx(
        quantile * np.sqrt(variance * (1 / 4 + ratio))
    )
    assert np.isnan(corrected_interval([0.5], ratio)[1])
