from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np

matplotlib.use('Agg')
from matplotlib import pyplot as plt

_GREEN = '#1a9641'
_GREY = '#bbbbbb'


class Hit(NamedTuple):
    """One file that a query found.

    Attributes:
        image (np.ndarray): (H, W, 3) uint8 RGB.
        similarity (float): Cosine to the query.
        is_partner (bool): Whether both are a pair.
    """

    image: np.ndarray
    similarity: float
    is_partner: bool


class GalleryRow(NamedTuple):
    """A query and what it found.

    Attributes:
        query (np.ndarray): (H, W, 3) uint8 RGB.
        hits (list[Hit]): Best first.
        partner (np.ndarray): Image of the true partner.
        rank (int): Rank of the partner, from 1.
    """

    query: np.ndarray
    hits: list
    partner: np.ndarray
    rank: int


def save_retrieval_gallery(
    path: str | Path, rows: Sequence[GalleryRow], title: str
) -> None:
    """Draw queries and their most similar files, one query a row.

    A true partner has a green frame wherever it stands; the last column
    shows it with its rank.

    Args:
        path (str | Path): Picture to write.
        rows (Sequence[GalleryRow]): The queries, each with as many hits.
        title (str): Above all.
    """
    places = len(rows[0].hits)
    height, width = rows[0].query.shape[:2]
    figure, axes = plt.subplots(
        len(rows),
        places + 4,
        figsize=(
            1.5 * (places + 2.3),
            (1.5 * height / width + 0.22) * len(rows) + 0.6,
        ),
        width_ratios=[1, 0.15, *[1] * places, 0.15, 1],
        squeeze=False,
        layout='constrained',
    )
    for row, line in zip(rows, axes, strict=True):
        query, left, *found, right, partner = line
        left.set_axis_off()
        right.set_axis_off()
        _show(query, row.query, '')
        for axis, hit in zip(found, row.hits, strict=True):
            _show(axis, hit.image, f'cos {hit.similarity:.3f}', hit.is_partner)
        _show(partner, row.partner, f'rank {row.rank}', True)
    axes[0, 0].set_title('query', fontsize=9)
    for place, axis in enumerate(axes[0, 2:-2]):
        axis.set_title(f'{place + 1}', fontsize=9)
    axes[0, -1].set_title('true partner', fontsize=9)
    figure.suptitle(title, fontsize=10)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _show(axis, image, caption, framed=False):
    axis.imshow(image)
    axis.set_xticks([])
    axis.set_yticks([])
    axis.set_xlabel(caption, fontsize=8, labelpad=2)
    for spine in axis.spines.values():
        spine.set_color(_GREEN if framed else _GREY)
        spine.set_linewidth(4 if framed else 0.8)
