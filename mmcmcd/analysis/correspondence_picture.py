from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np

matplotlib.use('Agg')
from matplotlib import patheffects
from matplotlib import pyplot as plt
from matplotlib.lines import Line2D

# Inverse powers of the plastic number.
_R2 = np.array([0.7548776662466927, 0.5698402909980532])
_OUTLINE = [patheffects.withStroke(linewidth=2.5, foreground='black')]
_RIGHT = dict(marker='o', markersize=9, markerfacecolor='none')
_BEST = dict(marker='x', markersize=7)


class Correspondence(NamedTuple):
    """What some locations of a target find in the source of their pair.

    Attributes:
        name (str): Of the pair.
        source (np.ndarray): (H, W, 3) uint8 RGB, as the teacher sees it.
        target (np.ndarray): (H', W', 3) uint8 RGB, as the student sees it.
        cells (np.ndarray): (K, 2), row and column of the locations.
        similarity (np.ndarray): (K, rows, columns), cosine of each to the
            locations of the source; NaN where there is none.
    """

    name: str
    source: np.ndarray
    target: np.ndarray
    cells: np.ndarray
    similarity: np.ndarray


def spread_cells(
    cells: np.ndarray, grid: tuple[int, int], number: int
) -> np.ndarray:
    """Choose cells spread over the grid, the first one in the middle.

    They are the cells nearest to the points of Roberts' R2 sequence, which
    fills the plane evenly for any number of points.

    Args:
        cells (np.ndarray): Rows and columns (L, 2).
        grid (tuple[int, int]): Numbers of rows and columns.
        number (int): K; all if there are not so many.

    Returns:
        np.ndarray: Indices (K, ) of the chosen ones.
    """
    chosen = []
    for place in range(min(number, len(cells))):
        wanted = (0.5 + place * _R2) % 1 * grid - 0.5
        away = np.linalg.norm(cells - wanted, axis=1)
        away[chosen] = np.inf
        chosen.append(int(away.argmin()))
    return np.array(chosen)


def save_correspondence_picture(
    path: str | Path, rows: Sequence[Correspondence], title: str
) -> None:
    """Draw where locations of targets are found in the sources, pair by pair.

    A row shows the source, the target with its numbered locations, and for
    each of them its similarities as colours over the source, with a circle
    at the right location and a cross at the most similar one. One scale of
    colours holds for all.

    Args:
        path (str | Path): Picture to write.
        rows (Sequence[Correspondence]): The pairs.
        title (str): Above all.
    """
    places = max(len(row.cells) for row in rows)
    height, width = rows[0].source.shape[:2]
    figure, axes = plt.subplots(
        len(rows),
        places + 2,
        figsize=(
            1.9 * (places + 2) + 0.8,
            (1.9 * height / width + 0.25) * len(rows) + 0.9,
        ),
        squeeze=False,
        layout='constrained',
    )
    scale = dict(
        vmin=min(np.nanmin(row.similarity) for row in rows),
        vmax=max(np.nanmax(row.similarity) for row in rows),
        cmap='inferno',
    )
    for axis in axes.flat:
        axis.set_axis_off()
    for row, (source, target, *maps) in zip(rows, axes, strict=True):
        source.imshow(row.source)
        source.set_title(row.name, fontsize=8)
        target.imshow(row.target)
        _number_points(target, row)
        # Fewer locations than columns leave the last ones empty.
        for place, axis in enumerate(maps[: len(row.cells)]):
            colours = _draw_map(axis, row, place, scale)
    figure.colorbar(colours, ax=axes, label='cosine', pad=0.01)
    figure.legend(
        handles=[
            _handle('right location', _RIGHT),
            _handle('most similar location', _BEST),
        ],
        loc='outside lower center',
        ncols=2,
        fontsize=8,
        frameon=False,
    )
    figure.suptitle(title, fontsize=10)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _number_points(axis, row):
    grid = row.similarity.shape[1:]
    for number, cell in enumerate(row.cells, start=1):
        axis.text(
            *_centre(cell, grid, row.target),
            str(number),
            color='white',
            fontsize=9,
            ha='center',
            va='center',
            path_effects=_OUTLINE,
        )


def _draw_map(axis, row, place, scale):
    """Similarities of one location over the source; returns the colours."""
    own, similarity = row.cells[place], row.similarity[place]
    height, width = row.source.shape[:2]
    # Grey, so that all colours are similarities.
    axis.imshow(row.source.mean(axis=2), cmap='gray', vmin=0, vmax=255)
    colours = axis.imshow(
        similarity,
        extent=(0, width, height, 0),
        interpolation='bilinear',
        alpha=0.6,
        **scale,
    )
    best = np.unravel_index(np.nanargmax(similarity), similarity.shape)
    for cell, style in ((own, _RIGHT), (best, _BEST)):
        axis.plot(
            *_centre(cell, similarity.shape, row.source),
            color='white',
            path_effects=_OUTLINE,
            **style,
        )
    axis.set_xlim(0, width)
    axis.set_ylim(height, 0)
    away = np.linalg.norm(np.subtract(best, own))
    axis.set_title(
        f'{place + 1}: off by {away:.1f} cells\nbest {similarity[best]:.2f}, '
        f'right {similarity[tuple(own)]:.2f}',
        fontsize=8,
    )
    return colours


def _centre(cell, grid, image):
    """Pixel (x, y) in the middle of a cell."""
    y, x = (np.asarray(cell) + 0.5) / grid * image.shape[:2]
    return x, y


def _handle(text, style):
    return Line2D([], [], linestyle='', color='black', label=text, **style)
