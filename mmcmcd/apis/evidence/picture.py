"""Pictures of a matrix."""

import math
from pathlib import Path

import matplotlib
import numpy as np

from mmcmcd.analysis import mean_interval

matplotlib.use('Agg')
from matplotlib import pyplot as plt

_COLORS = ('#4477aa', '#ee6677', '#228833', '#ccbb44', '#66ccee', '#aa3377')
# Of methods without a teacher.
_GREY = '0.45'


def draw_methods(table, path: Path) -> None:
    """Draw mean and interval of every method, a panel for each budget.

    Args:
        table (Table): The figures.
        path (Path): The picture.
    """
    matrix = table.matrix
    names = [*matrix.methods]
    figure, axes = plt.subplots(
        1,
        len(matrix.budgets),
        figsize=(2.2 + 2.6 * len(matrix.budgets), 0.8 + 0.3 * len(names)),
        sharey=True,
        squeeze=False,
        layout='constrained',
    )
    colors = {
        teacher: _COLORS[number % len(_COLORS)]
        for number, teacher in enumerate(matrix.teachers)
    }
    for axis, budget in zip(axes[0], matrix.budgets, strict=True):
        for (method, teacher, of), found in table.figures.items():
            if of != budget or not found:
                continue
            mean, half = mean_interval([*found.values()])
            shift = [*colors].index(teacher) if teacher else 0
            spread = 0.5 / max(len(colors), 1)
            axis.errorbar(
                mean,
                names.index(method) + shift * spread,
                xerr=None if math.isnan(half) else half,
                fmt='o',
                markersize=4,
                capsize=2,
                color=colors.get(teacher, _GREY),
            )
        axis.set_title(f'labels: {budget}', fontsize=10)
        axis.grid(axis='x', color='0.9')
    axes[0][0].set_yticks(range(len(names)), names)
    for label, method in zip(
        axes[0][0].get_yticklabels(), matrix.methods.values(), strict=True
    ):
        label.set_fontweight('bold' if method.ours else 'normal')
    axes[0][0].invert_yaxis()
    handles = [
        plt.Line2D([], [], marker='o', linestyle='', color=color, label=name)
        for name, color in dict(colors, **{'no teacher': _GREY}).items()
    ]
    figure.legend(
        handles=handles,
        loc='outside upper center',
        ncols=len(handles),
        frameon=False,
    )
    figure.supxlabel(f'{matrix.metric}, mean and 95 % interval', fontsize=10)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def draw_sweeps(matrix, results, sweeps, path: Path) -> None:
    """Draw every sweep in a panel of its own.

    Args:
        matrix (Matrix): The matrix.
        results (Results): The figures.
        sweeps (dict[str, list[Cell]]): Cells by name of a sweep.
        path (Path): The picture.
    """
    columns = min(3, len(sweeps))
    rows = math.ceil(len(sweeps) / columns)
    figure, axes = plt.subplots(
        rows,
        columns,
        figsize=(3.4 * columns, 2.6 * rows),
        squeeze=False,
        layout='constrained',
    )
    for axis in axes.flat[len(sweeps) :]:
        axis.set_axis_off()
    for axis, (name, cells) in zip(axes.flat, sweeps.items(), strict=False):
        sweep = matrix.sweeps[name]
        values = [*sweep.values]
        found = [
            [*results.by_seed([c for c in cells if c.sweep[1] == v]).values()]
            for v in values
        ]
        means, halves = np.array(
            [mean_interval(f) if f else (math.nan,) * 2 for f in found]
        ).T
        axis.errorbar(
            range(len(values)),
            means,
            yerr=np.nan_to_num(halves),
            marker='o',
            markersize=4,
            capsize=2,
            color=_COLORS[0],
        )
        axis.set_xticks(range(len(values)), values)
        axis.set_xlabel(name)
        axis.set_title(
            f'{sweep.method} ({sweep.teacher}), {sweep.budget} labels',
            fontsize=9,
        )
        axis.grid(axis='y', color='0.9')
    figure.supylabel(matrix.metric, fontsize=10)
    figure.savefig(path, dpi=110)
    plt.close(figure)
