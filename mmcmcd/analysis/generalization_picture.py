"""Does distance explain error? The picture."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np

from .statistics import spearman_interval

matplotlib.use('Agg')
from matplotlib import pyplot as plt


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
