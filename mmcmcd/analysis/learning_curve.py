"""Errors of a head against numbers of labels and pairs, and beyond them."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats
from scipy.optimize import nnls

# What doubling a number takes away of a term that falls as its root.
DOUBLING = 1 - 2**-0.5


# An error by guessing is the end of the curve; so near to it at most.
_MOST = 0.98


class ErrorCurve(NamedTuple):
    r"""Error of a head by its n labels and the m pairs of its student.

    .. math::
        e = e_0 (1 - e^{-u}),\quad
        u = \text{floor} + \text{labels} / \sqrt{n} +
        \text{pairs} / \sqrt{m}

    The terms of u are those of the template, to which ``e / e_0`` tends for
    small errors; no error is larger than that of guessing. The form is our
    choice.

    Attributes:
        floor (float): What is left with endless labels and pairs.
        labels (float): Slope of the term of the labels.
        pairs (float): Slope of the term of the pairs; 0 where only one m was
            measured.
        chance (float): :math:`e_0`, the error by guessing.
    """

    floor: float
    labels: float
    pairs: float
    chance: float

    def saved(self, less: float, labels: int, pairs: int) -> float:
        """Error that goes if u goes down.

        Args:
            less (float): By how much.
            labels (int): n before.
            pairs (int): m before.

        Returns:
            float: The difference.
        """
        terms = self.floor + self.labels / np.sqrt(labels)
        terms += self.pairs / np.sqrt(pairs)
        return float(self.chance * (np.exp(less - terms) - np.exp(-terms)))


def fit_error_curve(
    labels: Sequence[int],
    pairs: Sequence[int],
    errors: Sequence[float],
    chance: float,
) -> ErrorCurve:
    """Fit a curve by least squares, no term of which is negative.

    Fitted is u. Errors within 2 % of guessing count as 2 % below it.

    Args:
        labels (Sequence[int]): Number of labels of every measurement.
        pairs (Sequence[int]): Number of pairs of every measurement.
        errors (Sequence[float]): The measured errors, in [0, 1].
        chance (float): The error by guessing, positive.

    Returns:
        ErrorCurve: The fit. With a single number of labels (pairs) the floor
        holds their term.
    """
    columns = [np.ones(len(errors))]
    for counts in (labels, pairs):
        several = len(set(counts)) > 1
        columns.append([several / np.sqrt(max(n, 1)) for n in counts])
    share = np.minimum(np.asarray(errors, float) / chance, _MOST)
    terms, _ = nnls(np.stack(columns, axis=1), -np.log1p(-share))
    return ErrorCurve(*map(float, terms), chance)


def corrected_interval(
    values: Sequence[float], ratio: float, confidence: float = 0.95
) -> tuple[float, float]:
    """Mean, and half width of its interval, over splits of the same data.

    Splits share samples, so that the plain interval is too narrow. Corrected
    as in Nadeau and Bengio, "Inference for the Generalization Error",
    Machine Learning 2003: the variance of the mean is ``(1 / J + n_test /
    n_train)`` of that between the J splits.

    Args:
        values (Sequence[float]): One of every split.
        ratio (float): ``n_test / n_train``.
        confidence (float): Defaults to 0.95.

    Returns:
        tuple[float, float]: Mean and half width (nan for one value).
    """
    values = np.asarray(values, float)
    if len(values) < 2:
        return float(values.mean()), float('nan')
    error = values.std(ddof=1) * np.sqrt(1 / len(values) + ratio)
    quantile = stats.t.ppf((1 + confidence) / 2, len(values) - 1)
    return float(values.mean()), float(error * quantile)
