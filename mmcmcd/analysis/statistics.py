from collections.abc import Sequence

import numpy as np
from scipy import stats


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
