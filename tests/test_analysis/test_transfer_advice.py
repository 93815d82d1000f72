import numpy as np
import pytest
import torch

from mmcmcd.analysis.transfer_advice import (
    TEACHER,
    Errors,
    TransferFeatures,
    expected_gains,
    measure_errors,
    scarcity,
)
from mmcmcd.errors import ConfigError
from mmcmcd.evaluation.functional.generalization import relational_discrepancy

DOUBLING = 1 - 2**-0.5


def sample(count, seed=0, noise=1.0, width=6):
    """Three classes, each with a direction of its own."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    features = 2 * np.eye(3, width)[labels]
    return features + noise * rng.normal(size=features.shape), labels


def error(terms):
    """Of half of the samples by guessing."""
    return 0.5 * (1 - np.exp(-terms))


def errors_of(table, ratio=1.0):
    """Errors (two equal splits) from terms by (labels, pairs)."""
    labels, pairs = np.array([*table]).T
    row = error(np.array([*table.values()]))
    return Errors(labels, pairs, np.array([row] * 2), ratio)


def empty(pairs=(100,), **kwargs):
    labelled = {m: np.zeros((64, 1)) for m in pairs}
    return TransferFeatures(np.arange(64) % 2, labelled, **kwargs)


def test_gains_of_known_curves():
    """Floors, slopes of labels and of pairs as declared."""
    counts = (12, 24, 48)
    table = {(n, 0): 0.08 + 0.4 / n**0.5 for n in counts}
    for m in (25, 100):
        table |= {(n, m): 0.2 + 0.6 / n**0.5 + 1 / m**0.5 for n in counts}
    gains = expected_gains(empty((25, 100, TEACHER)), errors_of(table))
    assert [*gains] == sorted(gains, key=lambda a: -gains[a].mean)
    terms = 0.2 + 0.6 / 8 + 1 / 10
    # Of the source the teacher's floor, which is the lower one.
    less = dict(labels=0.6 / 8, pairs=1 / 10, source=0.08)
    for action, term in less.items():
        expected = error(terms) - error(terms - DOUBLING * term)
        assert gains[action].mean == pytest.approx(expected)


def test_the_share_of_pairs_is_of_what_the_teacher_is_better():
    rng = np.random.default_rng(0)
    teacher = rng.normal(size=(40, 5))
    seen = teacher + 0.2 * rng.normal(size=teacher.shape)
    unseen = teacher + rng.normal(size=teacher.shape)
    counts = (12, 24, 48)
    table = {(n, 0): 0.1 + 0.4 / n**0.5 for n in counts}
    table |= {(n, 100): 0.3 + 0.4 / n**0.5 for n in counts}
    data = empty(
        (100, TEACHER), seen=(teacher, seen), unseen=(teacher, unseen)
    )
    apart = [
        relational_discrepancy(*map(torch.from_numpy, (teacher, side)))
        for side in (seen, unseen)
    ]
    share = (apart[1] - apart[0]) / (2 * apart[1])
    assert scarcity(data) == pytest.approx(share)
    assert 0.1 < share < 0.5
    gains = expected_gains(data, errors_of(table))
    terms = 0.3 + 0.4 / 8
    expected = error(terms) - error(terms - 0.2 * share)
    assert gains['pairs'].mean == pytest.approx(expected)


def test_what_nothing_tells_is_not_judged():
    table = {(n, 100): 0.2 + 0.6 / n**0.5 for n in (12, 24, 48)}
    gains = expected_gains(empty(), errors_of(table))
    assert next(iter(gains)) == 'labels'
    for action in ('pairs', 'source'):
        assert gains[action].mean is None
        assert gains[action].basis.startswith('not judged: needs ')


def test_the_interval_is_that_of_the_splits():
    slopes = 0.6, 1.2
    tables = [
        {(n, 100): 0.2 + slope / n**0.5 for n in (12, 24, 48)}
        for slope in slopes
    ]
    rows = [errors_of(table).errors[0] for table in tables]
    errors = errors_of(tables[0])._replace(errors=np.array(rows))
    each = []
    for slope in slopes:
        terms = 0.2 + slope / 8
        each.append(error(terms) - error(terms - DOUBLING * slope / 8))
    gain = expected_gains(empty(), errors)['labels']
    half = 12.7062 * np.std(each, ddof=1) * np.sqrt(1 / 2 + 1)
    assert gain.half == pytest.approx(half, rel=1e-4)
    assert min(each) < gain.mean < max(each)


def test_errors_fall_with_labels_and_good_features():
    good, labels = sample(120, noise=1.2)
    bad = good + 2 * np.random.default_rng(1).normal(size=good.shape)
    data = TransferFeatures(labels, {50: bad, TEACHER: good})
    errors = measure_errors(data, splits=10)
    assert errors.errors.shape == (10, 6)
    assert errors.ratio == pytest.approx(1 / 3)
    mean = dict(
        zip(
            zip(errors.pairs.tolist(), errors.labels.tolist(), strict=True),
            errors.errors.mean(axis=0),
            strict=True,
        )
    )
    assert {n for _, n in mean} == {22, 45, 90}
    assert mean[50, 90] < mean[50, 22] - 0.03
    assert mean[TEACHER, 90] < mean[50, 90] - 0.1


def test_held_out_samples_are_not_fitted_to():
    """Labels that no feature tells are wrong two times of three."""
    rng = np.random.default_rng(0)
    data = TransferFeatures(
        np.arange(150) % 3, {9: rng.normal(size=(150, 60))}
    )
    found = measure_errors(data, splits=10).errors.mean()
    # Balanced classes that are held out are a little worse than chance.
    assert 0.6 < found < 0.8


def test_test_samples_take_the_place_of_held_out_ones():
    features, labels = sample(60)
    tests, truth = sample(90, seed=1)
    data = TransferFeatures(
        labels, {9: features}, tests={9: tests}, test_labels=truth
    )
    errors = measure_errors(data, splits=6)
    assert sorted(set(errors.labels)) == [15, 30, 60]
    assert errors.ratio == 1
    data.test_labels = (truth + 1) % 3
    assert measure_errors(data, splits=6).errors.mean() > 0.5


@pytest.mark.parametrize('labels', [[0, 1] * 3, [1] * 20])
def test_too_few_labels_are_refused(labels):
    data = TransferFeatures(np.array(labels), {9: np.zeros((len(labels), 2))})
    with pytest.raises(ConfigError, match='8 labelled samples'):
        measure_errors(data)
