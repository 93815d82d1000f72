from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import matplotlib
import numpy as np

from ..errors import ConfigError

matplotlib.use('Agg')
from matplotlib import pyplot as plt
from matplotlib.collections import LineCollection
from matplotlib.lines import Line2D

# Module, and what to install for it.
_PACKAGES = dict(tsne=('sklearn', 'scikit-learn'), umap=('umap', 'umap-learn'))
_MARKERS = dict(source='o', target='^')
_MODALITY_COLOURS = dict(source='tab:blue', target='tab:orange')
# More colours than these are not told apart, so they get no legend.
_MOST_NAMED = 20


def require_projection(method: str) -> None:
    """Stop early if a method of :func:`project_to_plane` is not there.

    Args:
        method (str): 'tsne' or 'umap'.

    Raises:
        ConfigError: The method is unknown, or its package not installed.
    """
    if method not in _PACKAGES:
        raise ConfigError(
            f"method='{method}' is unknown; expected one of "
            f'{sorted(_PACKAGES)}.'
        )
    module, package = _PACKAGES[method]
    if find_spec(module) is None:
        raise ConfigError(
            f"method '{method}' needs a package that is not installed: pip "
            f'install {package}'
        )


def project_to_plane(
    embeddings: np.ndarray, method: str = 'tsne', seed: int = 0
) -> tuple[np.ndarray, str]:
    """Project embeddings to two dimensions, neighbours near each other.

    t-SNE (van der Maaten and Hinton, JMLR 2008) by scikit-learn, from a PCA
    start; UMAP (McInnes et al., arXiv:1802.03426) by umap-learn. Distances
    are those of the given rows: normalise them for cosines.

    Args:
        embeddings (np.ndarray): (N, D), N >= 3.
        method (str): 'tsne' or 'umap'. Defaults to 'tsne'.
        seed (int): Of the method. Defaults to 0.

    Returns:
        tuple[np.ndarray, str]: (N, 2), and the method with its setting, in
        words.

    Raises:
        ConfigError: See :func:`require_projection`; or there are fewer than
            3 rows.
    """
    require_projection(method)
    number = len(embeddings)
    if number < 3:
        raise ConfigError(
            f'A 2-D picture needs 3 embeddings or more, got {number}.'
        )
    if method == 'tsne':
        from sklearn.manifold import TSNE

        # scikit-learn's default where there are enough rows for it.
        perplexity = min(30.0, (number - 1) / 3)
        model = TSNE(perplexity=perplexity, init='pca', random_state=seed)
        setting = f't-SNE, perplexity {perplexity:.3g}'
    else:
        from umap import UMAP

        neighbours = min(15, number - 1)
        # A seed needs one thread; unless told so, umap warns of it.
        model = UMAP(n_neighbors=neighbours, random_state=seed, n_jobs=1)
        setting = f'UMAP, {neighbours} neighbours'
    return model.fit_transform(embeddings), setting


def save_feature_map(
    path: str | Path,
    points: dict[str, np.ndarray],
    links: dict[str, np.ndarray],
    title: str,
    labels: np.ndarray | None = None,
    classes: Sequence[str] = (),
) -> None:
    """Draw the embeddings of both modalities, partners joined by lines.

    The marker is the modality, the colour the class, or the modality where
    no class is known.

    Args:
        path (str | Path): Picture to write.
        points (dict[str, np.ndarray]): ``source`` and ``target``, (U, 2).
        links (dict[str, np.ndarray]): Likewise (N, ): which point of each
            side pair ``i`` consists of.
        title (str): Above the picture.
        labels (np.ndarray, optional): Classes of the N pairs.
        classes (Sequence[str]): Names of the classes. Defaults to ().
    """
    figure, axis = plt.subplots(figsize=(8, 7), layout='constrained')
    ends = [points[side][links[side]] for side in points]
    axis.add_collection(
        LineCollection(
            np.stack(ends, axis=1), colors='0.6', linewidths=0.4, alpha=0.5
        )
    )
    shown, palette = _palette(labels)
    for side, place in points.items():
        colours = _MODALITY_COLOURS[side]
        if labels is not None:
            own = np.empty(len(place), dtype=int)
            own[links[side]] = labels
            colours = palette[np.searchsorted(shown, own)]
        axis.scatter(
            *place.T,
            c=colours,
            marker=_MARKERS[side],
            s=34 if side == 'source' else 26,
            edgecolors='black',
            linewidths=0.4,
            zorder=2,
        )
    axis.autoscale_view()
    axis.set_aspect('equal')
    axis.set_xticks([])
    axis.set_yticks([])
    counts = ', '.join(f'{len(p)} {side}' for side, p in points.items())
    if labels is not None:
        counts += f'; colour: one of {len(shown)} classes'
    axis.set_title(f'{title}\nN = {counts}', fontsize=10)
    axis.legend(
        handles=[
            _handle(
                side,
                _MODALITY_COLOURS[side] if labels is None else 'white',
                _MARKERS[side],
            )
            for side in points
        ],
        fontsize=9,
    )
    if labels is not None and len(shown) <= _MOST_NAMED:
        figure.legend(
            handles=[
                _handle(_name(label, classes), colour, 's')
                for label, colour in zip(shown, palette, strict=True)
            ],
            loc='outside right upper',
            fontsize=8,
            frameon=False,
        )
    figure.savefig(path, dpi=130, bbox_inches='tight')
    plt.close(figure)


def _palette(labels):
    """Different labels, sorted, and a colour (RGBA) for each."""
    if labels is None:
        return None, None
    shown = np.unique(labels)
    if len(shown) <= 10:
        return shown, plt.get_cmap('tab10')(np.arange(len(shown)))
    if len(shown) <= _MOST_NAMED:
        return shown, plt.get_cmap('tab20')(np.arange(len(shown)))
    # Neighbours in the alphabet are no relatives: spread them over the wheel.
    hues = np.arange(len(shown)) * 0.618034 % 1
    return shown, plt.get_cmap('hsv')(hues)


def _handle(text, colour, marker):
    return Line2D(
        [],
        [],
        linestyle='',
        marker=marker,
        markerfacecolor=colour,
        markeredgecolor='black',
        markeredgewidth=0.5,
        label=text,
    )


def _name(label, classes):
    return classes[label] if label < len(classes) else f'class {label}'
