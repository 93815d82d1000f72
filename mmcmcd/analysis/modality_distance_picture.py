import math
from pathlib import Path

import matplotlib
import numpy as np
import torch
from torch import Tensor

from ..evaluation.functional.cosine import unit_rows
from .modality_distance import MEASURES

matplotlib.use('Agg')
from matplotlib import pyplot as plt

_COLOURS = dict(before='0.45', after='tab:blue', features='tab:blue')
_COLUMNS = 5
# Pairs whose cosines are drawn.
_SHOWN = 1000


def save_distance_picture(
    path: str | Path,
    found: dict[str, dict[str, dict]],
    stages: dict[str, tuple[Tensor, Tensor]],
    groups: Tensor,
    report: dict,
) -> None:
    """Draw each figure with its interval, and cosines behind them.

    Args:
        path (str | Path): Picture to write.
        found (dict): By stage, what
            :func:`~mmcmcd.analysis.modality_distance.measure_distance` gives.
        stages (dict[str, tuple[Tensor, Tensor]]): By stage, source (N, D)
            and target (N, D') rows.
        groups (Tensor): Of the pairs, (N, ).
        report (dict): ``pairs``, ``groups`` and ``space``, for the title.
    """
    number = len(MEASURES) + len(stages)
    lines = math.ceil(number / _COLUMNS)
    figure, axes = plt.subplots(
        lines,
        _COLUMNS,
        figsize=(2.7 * _COLUMNS, 2.3 * lines + 0.6),
        layout='constrained',
    )
    measures, cosines, unused = np.split(axes.ravel(), [len(MEASURES), number])
    for axis, (name, (title, _, equal)) in zip(
        measures, MEASURES.items(), strict=True
    ):
        _draw_measure(axis, {s: found[s][name] for s in found})
        axis.set_title(f'{title}\nat equality: {equal}', fontsize=8)
    for axis, (stage, sides) in zip(cosines, stages.items(), strict=True):
        _draw_cosines(axis, sides, groups)
        axis.set_title(f'cosines, {stage}', fontsize=8)
    for axis in unused:
        axis.set_axis_off()
    figure.suptitle(
        f'{report["pairs"]} pairs in {report["groups"]} groups, 95 % '
        f'intervals, crosses: mean of permutations, *: with equal '
        'temperatures\n{report["space"]}',
        fontsize=9,
    )
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _draw_measure(axis, by_stage):
    axis.tick_params(labelsize=7)
    axis.set_xlim(-0.6, len(by_stage) - 0.4)
    axis.set_xticks(range(len(by_stage)), list(by_stage))
    for place, (stage, measure) in enumerate(by_stage.items()):
        value = measure['value']
        if value is None:
            axis.text(place, 0.5, 'none', ha='center', fontsize=8)
            continue
        # A clipped interval may end at its value.
        low, high = (
            value if measure[end] is None else measure[end]
            for end in ('low', 'high')
        )
        axis.errorbar(
            place,
            value,
            [[max(0, value - low)], [max(0, high - value)]],
            fmt='o',
            color=_COLOURS[stage],
            capsize=4,
        )
        if 'baseline' in measure:
            axis.plot(place, measure['baseline'], 'kx', markersize=5)


def _draw_cosines(axis, sides, groups):
    """Partners against others; where spaces differ, each side's others."""
    chosen = torch.randperm(
        len(groups), generator=torch.Generator().manual_seed(0)
    )[:_SHOWN]
    source, target = (unit_rows(side[chosen].float()) for side in sides)
    others = groups[chosen, None] != groups[chosen]
    if source.shape[1] == target.shape[1]:
        drawn = dict(
            partners=(source * target).sum(dim=1),
            others=(source @ target.T)[others],
        )
    else:
        drawn = dict(
            source=(source @ source.T)[others],
            target=(target @ target.T)[others],
        )
    bins = np.linspace(-1, 1, 41)
    for label, cosines in drawn.items():
        axis.hist(
            cosines.numpy(),
            bins,
            density=True,
            alpha=0.6,
            label=label,
        )
    axis.legend(fontsize=7)
    axis.set_xticks([-1, -0.5, 0, 0.5, 1])
    axis.set_yticks([])
    axis.tick_params(labelsize=7)
