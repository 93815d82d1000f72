"""Does distance explain error? Rank correlation, and its picture."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from scipy import stats

from ..errors import ConfigError

_FEWEST = 4


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


def save_gap_picture(
    path: str | Path,
    gap: Sequence[float],
    panels: dict[str, Sequence[float]],
    kinds: Sequence[str],
    gap_name: str,
) -> None:
    """Draw figures of several settings against the gap of their modalities.

    Args:
        path (str | Path): Picture to write.
        gap (Sequence[float]): The gap of every setting.
        panels (dict[str, Sequence[float]]): Figures of every setting, by what
            the axis says. Titles tell the rank correlation.
        kinds (Sequence[str]): Kind of every setting, told by colour.
        gap_name (str): What the other axis says.

    Raises:
        ConfigError: See :func:`spearman_interval`.
    """
    figure, axes = plt.subplots(
        1, len(panels), figsize=(5 * len(panels), 4.2), layout='constrained'
    )
    gap = np.asarray(gap, float)
    for axis, (name, values) in zip(
        np.atleast_1d(axes), panels.items(), strict=True
    ):
        rho, low, high = spearman_interval(gap, values)
        for kind in dict.fromkeys(kinds):
            own = np.array([k == kind for k in kinds])
            axis.plot(gap[own], np.asarray(values)[own], 'o', label=kind)
        axis.set_xlabel(gap_name)
        axis.set_ylabel(name)
        axis.set_title(
            f"Spearman's rho {rho:.2f} [{low:.2f}, {high:.2f}]", fontsize=10
        )
    np.atleast_1d(axes)[0].legend(fontsize=8)
    figure.savefig(path, dpi=130)
    plt.close(figure)
