from collections.abc import Sequence

import numpy as np
from scipy import stats

from ..errors import ConfigError

# Points of a correlation.
_FEWEST = 4


def mean_interval(
    values: Sequence[float], confidence: float = 0.95
) -> tuple[float, float]:
    """Mean and half width of its Student-t confidence interval.

    Args:
        values (Sequence[float]): Independent repetitions, n of them.
        confidence (float): Defaults to 0.95.

    Returns:
        tuple[float, float]: Mean, and half width (nan where n is 1).
    """
    values = np.asarray(values, float)
    if len(values) < 2:
        return float(values.mean()), float('nan')
    error = values.std(ddof=1) / np.sqrt(len(values))
    return float(values.mean()), float(
        error * stats.t.ppf((1 + confidence) / 2, len(values) - 1)
    )


def plus_minus(
    values: Sequence[float], sign: str = '', digits: int = 2
) -> str:
    """Write mean and interval of :func:`mean_interval`, ``1.20 ± 0.30``.

    Args:
        values (Sequence[float]): Independent repetitions; of one, the mean
            alone is written.
        sign (str): '+' shows the sign of the mean. Defaults to ''.
        digits (int): After the point. Defaults to 2.
    """
    mean, half = mean_interval(values)
    text = f'{mean:{sign}.{digits}f}'
    return text if np.isnan(half) else f'{text} ± {half:.{digits}f}'


def spearman_interval(
    first: Sequence[float],
    second: Sequence[float],
    draws: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> tuple[float, float, float]:
    """Spearman's rank correlation with a bootstrap interval.

    Points are drawn with replacement; the interval is that of percentiles
    (Efron and Tibshirani, "An Introduction to the Bootstrap", chapter 13).
    Draws in which one side has a single value have no correlation and are
    left out.

    Args:
        first (Sequence[float]): One value a point.
        second (Sequence[float]): Another one of the same points.
        draws (int): Defaults to 2000.
        confidence (float): Defaults to 0.95.
        seed (int): Of the draws. Defaults to 0.

    Returns:
        tuple[float, float, float]: Correlation, low and high end; nan where
        one side has a single value.

    Raises:
        ConfigError: There are fewer than 4 points, or not as many of both.
    """
    if len(first) != len(second) or len(first) < _FEWEST:
        raise ConfigError(
            f'spearman_interval: expected {_FEWEST} points or more with two '
            f'values each, got {len(first)} and {len(second)} values.'
        )
    points = np.array([first, second], float)
    if (points.min(axis=1) == points.max(axis=1)).any():
        return (float('nan'),) * 3
    rng = np.random.default_rng(seed)
    drawn = rng.integers(0, points.shape[1], (draws, points.shape[1]))
    ranks = stats.rankdata(points[:, drawn], axis=-1)
    ranks -= ranks.mean(axis=-1, keepdims=True)
    norms = np.linalg.norm(ranks, axis=-1).prod(axis=0)
    found = ranks.prod(axis=0).sum(axis=-1)[norms > 0] / norms[norms > 0]
    ends = (1 - confidence) / 2, (1 + confidence) / 2
    value = stats.spearmanr(*points).statistic
    return float(value), *map(float, np.quantile(found, ends))
