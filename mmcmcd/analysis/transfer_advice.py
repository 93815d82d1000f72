"""What would help most: more pairs, more labels or another source?"""

import warnings
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch

from ..errors import ConfigError
from ..evaluation.functional.generalization import relational_discrepancy
from .learning_curve import DOUBLING, corrected_interval, fit_error_curve

# In place of a number of pairs.
TEACHER = 0
# Shares of the labels that the heads of a learning curve get.
_SHARES = (0.25, 0.5, 1.0)
_HELD_OUT = 0.25
_FEWEST_LABELS = 8


@dataclass
class TransferFeatures:
    """What the networks make of labelled samples and of pairs.

    Attributes:
        labels (np.ndarray): (n, ) classes of the labelled samples.
        labelled (dict[int, np.ndarray]): (n, D) features of these samples, by
            the number of pairs that the student was distilled on; the
            teacher's of their sources, where known, as ``TEACHER``. The
            student with most pairs is the one that is asked about.
        seen (tuple | None): Features (N, D) of the teacher and of that
            student for pairs of the distillation.
        unseen (tuple | None): The same for held-out pairs.
        tests (dict[int, np.ndarray]): (T, D) features of test samples, by
            the same keys; empty without any.
        test_labels (np.ndarray | None): (T, ) their classes.
    """

    labels: np.ndarray
    labelled: dict
    seen: tuple | None = None
    unseen: tuple | None = None
    tests: dict = field(default_factory=dict)
    test_labels: np.ndarray | None = None

    @property
    def pairs(self) -> int:
        """Pairs of the student that is asked about."""
        return max(self.labelled)


class Gain(NamedTuple):
    """Error that an action should take away.

    Attributes:
        mean (float | None): In [0, 1]; None if nothing tells.
        half (float): Half width of its interval of 95 %.
        basis (str): What it was concluded from, or what is missing.
    """

    mean: float | None
    half: float
    basis: str


class Errors(NamedTuple):
    """Errors of heads on what they were not fitted to.

    Attributes:
        labels (np.ndarray): (E, ) how many labels each head was fitted to.
        pairs (np.ndarray): (E, ) pairs of its student, or ``TEACHER``.
        errors (np.ndarray): (J, E) by split.
        ratio (float): See
            :func:`mmcmcd.analysis.learning_curve.corrected_interval`.
    """

    labels: np.ndarray
    pairs: np.ndarray
    errors: np.ndarray
    ratio: float


def fit_head(features: np.ndarray, labels: np.ndarray):
    """Fit a logistic regression on standardised features, with C = 1.

    Args:
        features (np.ndarray): (n, D).
        labels (np.ndarray): (n, ), two classes or more.

    Returns:
        Pipeline: Of scikit-learn.

    Raises:
        ConfigError: scikit-learn is not installed.
    """
    try:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
    except ImportError as error:
        raise ConfigError(
            'Linear heads are fitted by scikit-learn, which is not '
            'installed: pip install scikit-learn.'
        ) from error
    head = make_pipeline(StandardScaler(), LogisticRegression(max_iter=200))
    with warnings.catch_warnings():
        # Nearly converged will do for an error.
        warnings.simplefilter('ignore', ConvergenceWarning)
        return head.fit(features, labels)


def measure_errors(
    data: TransferFeatures, splits: int = 20, seed: int = 0
) -> Errors:
    """Fit heads to a quarter, half and all of the labels, split by split.

    Without test samples every split holds out a quarter of the labelled
    ones. With them, every split draws test samples with replacement.

    Args:
        data (TransferFeatures): What to measure.
        splits (int): J. Defaults to 20.
        seed (int): Of the splits. Defaults to 0.

    Returns:
        Errors: Of every network and number of labels.

    Raises:
        ConfigError: There are too few labels, or one class alone.
    """
    number = len(data.labels)
    if number < _FEWEST_LABELS or len(np.unique(data.labels)) < 2:
        raise ConfigError(
            f'A learning curve needs {_FEWEST_LABELS} labelled samples or '
            f'more, of 2 classes or more; got {number} of '
            f'{len(np.unique(data.labels))}.'
        )
    rng = np.random.default_rng(seed)
    errors = []
    for _ in range(splits):
        if data.test_labels is None:
            order = _by_turns(data.labels, rng)
            held = round(_HELD_OUT * number)
            tested, known = order[:held], order[held:]
            rows, truth, ratio = data.labelled, data.labels, held / len(known)
        else:
            known, ratio = np.arange(number), 1.0
            rows, truth = data.tests, data.test_labels
            tested = rng.integers(0, len(truth), len(truth))
        known = known[_by_turns(data.labels[known], rng)]
        counts = [max(2, round(share * len(known))) for share in _SHARES]
        keys = [(count, m) for m in sorted(rows) for count in counts]
        errors.append(
            [
                _error(
                    data.labelled[m][known[:count]],
                    data.labels[known[:count]],
                    rows[m][tested],
                    truth[tested],
                )
                for count, m in keys
            ]
        )
    return Errors(*np.array(keys).T, np.array(errors), ratio)


def _by_turns(labels, rng):
    """Order samples so that every beginning has its share of each class."""
    order = rng.permutation(len(labels))
    place = np.empty(len(labels))
    for label in np.unique(labels):
        own = order[labels[order] == label]
        place[own] = (np.arange(len(own)) + rng.random()) / len(own)
    return np.argsort(place)


def _error(features, labels, tests, truth):
    if len(np.unique(labels)) == 1:
        return float(np.mean(truth != labels[0]))
    head = fit_head(features, labels)
    return float(np.mean(head.predict(tests) != truth))


def expected_gains(data: TransferFeatures, errors: Errors) -> dict:
    """Conclude what each action may take away from the error.

    Each is judged by the same yardstick: a term of the fitted
    :class:`~mmcmcd.analysis.learning_curve.ErrorCurve` that falls as
    ``1 / sqrt(count)`` loses 29 % by twice the count. How the terms are told
    apart is in docs/generalization.md.

    Args:
        data (TransferFeatures): What was measured.
        errors (Errors): Of :func:`measure_errors`.

    Returns:
        dict[str, Gain]: Of 'pairs', 'labels' and 'source', the most promising
        first; those that nothing tells of last.
    """
    bases = _bases(data, errors)
    share = scarcity(data) if bases['pairs'] == _BY_DISCREPANCY else None
    best = _gains(data, errors, errors.errors.mean(axis=0), share)
    # Fits of single splits only tell the spread: no term being negative,
    # their mean is biased where the errors are noisy.
    each = [_gains(data, errors, row, share) for row in errors.errors]
    gains = {}
    for action, value in best.items():
        spread = [one[action] for one in each]
        if value is None:
            gains[action] = Gain(None, float('nan'), bases[action])
            continue
        _, half = corrected_interval(spread, errors.ratio)
        gains[action] = Gain(value, half, bases[action])
    return dict(
        sorted(
            gains.items(),
            key=lambda x: -1 if x[1].mean is None else x[1].mean,
            reverse=True,
        )
    )


_BY_CURVE = 'students of fewer pairs'
_BY_DISCREPANCY = 'the distillation on seen and unseen pairs'


def _bases(data, errors):
    teacher = TEACHER in errors.pairs
    if len(set(errors.pairs) - {TEACHER}) > 1:
        pairs = _BY_CURVE
    elif teacher and data.seen is not None and data.unseen is not None:
        pairs = _BY_DISCREPANCY
    else:
        pairs = (
            'not judged: needs students of fewer pairs, or the features of '
            'seen and unseen pairs and the sources of the labelled samples'
        )
    return dict(
        pairs=pairs,
        labels='heads fitted to fewer labels',
        source=(
            'what is left with endless labels, to the teacher as well'
            if teacher
            else 'not judged: needs the sources of the labelled samples'
        ),
    )


def _gains(data, errors, values, share):
    """Gains by action from one row of errors; None where nothing tells."""
    number = len(data.labels)
    _, sizes = np.unique(data.labels, return_counts=True)
    chance = 1 - sizes.max() / number

    def curve(rows):
        return fit_error_curve(
            errors.labels[rows], errors.pairs[rows], values[rows], chance
        )

    students = errors.pairs > TEACHER
    student = curve(errors.pairs == data.pairs)
    floor = student.floor
    terms = dict(
        pairs=None,
        labels=DOUBLING * student.labels / np.sqrt(number),
        source=None,
    )
    if len(set(errors.pairs[students])) > 1:
        most_labels = errors.labels == errors.labels.max()
        term = curve(students & most_labels).pairs / np.sqrt(data.pairs)
        terms['pairs'] = DOUBLING * term
        floor = max(0.0, floor - term)
    if not students.all():
        teacher_floor = curve(~students).floor
        if share is not None:
            terms['pairs'] = share * max(0.0, floor - teacher_floor)
        terms['source'] = DOUBLING * min(floor, teacher_floor)
    return {
        action: None
        if less is None
        else student.saved(less, number, data.pairs)
        for action, less in terms.items()
    }


def scarcity(data: TransferFeatures) -> float:
    """Which share of the discrepancy would go with endless pairs.

    With more and more pairs, seen and unseen ones tend to the same
    discrepancy from either side. In least squares they do at the same pace
    (the expected errors are ``1 - p/m`` and ``1 + p/m`` of the noise), so
    that the limit lies in the middle: ``(unseen - seen) / (2 unseen)`` goes.

    Args:
        data (TransferFeatures): With ``seen`` and ``unseen``.

    Returns:
        float: In [0, 0.5].
    """
    count = min(len(data.seen[0]), len(data.unseen[0]))
    seen, unseen = (
        relational_discrepancy(
            *(torch.from_numpy(np.asarray(rows[:count])) for rows in side)
        )
        for side in (data.seen, data.unseen)
    )
    return max(0.0, unseen - seen) / (2 * unseen) if unseen else 0.0
