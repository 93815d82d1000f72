from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use('Agg')
from matplotlib import pyplot as plt
from matplotlib.patches import Patch


def colour_labels(
    label: np.ndarray, palette: Sequence[Sequence[int]]
) -> np.ndarray:
    """Paint a label map (H, W); ids outside the palette become black."""
    table = np.zeros((256, 3), np.uint8)
    table[: len(palette)] = palette
    return table[label.astype(np.uint8)]


def save_segmentation_picture(
    path: str | Path,
    rows: Sequence[dict[str, np.ndarray]],
    classes: Sequence[str],
    palette: Sequence[Sequence[int]],
) -> None:
    """Draw inputs, truth and predictions side by side, one frame a row.

    Args:
        path (str | Path): Picture to write.
        rows (Sequence[dict]): Per frame, title to array in the order of the
            columns: (H, W, 3) uint8 is a photo, (H, W) float is depth in
            metres (0 invalid), (H, W) integer is a label map.
        classes (Sequence[str]): Names of the labels.
        palette (Sequence): Their colours, RGB 0..255.
    """
    titles = list(rows[0])
    height, width = next(iter(rows[0].values())).shape[:2]
    figure, axes = plt.subplots(
        len(rows),
        len(titles),
        figsize=(2.3 * len(titles), 2.3 * height / width * len(rows) + 0.9),
        squeeze=False,
        layout='constrained',
    )
    seen = set()
    for row, line in zip(rows, axes, strict=True):
        for title, axis in zip(titles, line, strict=True):
            image = row[title]
            axis.set_axis_off()
            if image.ndim == 3:
                axis.imshow(image)
            elif np.issubdtype(image.dtype, np.floating):
                colours = plt.get_cmap('viridis').with_extremes(bad='black')
                axis.imshow(
                    np.ma.masked_equal(image, 0), cmap=colours, vmin=0.5
                )
            else:
                axis.imshow(colour_labels(image, palette))
                seen.update(np.unique(image[image < len(classes)]).tolist())
    for title, axis in zip(titles, axes[0], strict=True):
        axis.set_title(title, fontsize=10)
    figure.legend(
        handles=[
            Patch(color=np.asarray(palette[i]) / 255, label=classes[i])
            for i in sorted(seen)
        ],
        loc='outside lower center',
        ncols=8,
        fontsize=7,
        frameon=False,
    )
    figure.savefig(path, dpi=110)
    plt.close(figure)
