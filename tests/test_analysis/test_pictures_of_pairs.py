"""The gallery and the 2-D picture show what they are given."""

import sys

import numpy as np
import pytest
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from mmcmcd.analysis import (
    GalleryRow,
    Hit,
    project_to_plane,
    save_feature_map,
    save_retrieval_gallery,
)
from mmcmcd.errors import ConfigError


@pytest.fixture
def figures(monkeypatch):
    """Every figure that was written."""
    written = []
    savefig = Figure.savefig

    def keep(figure, *args, **kwargs):
        written.append(figure)
        return savefig(figure, *args, **kwargs)

    monkeypatch.setattr(Figure, 'savefig', keep)
    return written


def clusters(count, seed=0):
    """Two far clusters of unit vectors, and which one each is of."""
    rng = np.random.default_rng(seed)
    which = np.arange(count) % 2
    rows = rng.normal(scale=0.05, size=(count, 8)) + np.eye(8)[which]
    return rows / np.linalg.norm(rows, axis=1, keepdims=True), which


@pytest.mark.parametrize(
    ('count', 'setting'),
    [(10, 't-SNE, perplexity 3'), (100, 't-SNE, perplexity 30')],
)
def test_tsne_keeps_neighbours_and_repeats(count, setting):
    rows, which = clusters(count)
    points, text = project_to_plane(rows, 'tsne', seed=3)
    assert text == setting
    assert points.shape == (count, 2)
    again, _ = project_to_plane(rows, 'tsne', seed=3)
    assert np.array_equal(points, again)
    distance = np.linalg.norm(points[:, None] - points[None], axis=2)
    np.fill_diagonal(distance, np.inf)
    assert (which[distance.argmin(axis=1)] == which).all()


def test_umap_is_asked_with_the_seed(monkeypatch):
    class UMAP:
        def __init__(self, **kwargs):
            self.asked = kwargs

        def fit_transform(self, rows):
            assert self.asked['random_state'] == 5
            assert self.asked['n_neighbors'] == 9
            return rows[:, :2]

    module = type(sys)('umap')
    module.UMAP, module.__spec__ = UMAP, object()
    monkeypatch.setitem(sys.modules, 'umap', module)
    rows, _ = clusters(10)
    points, text = project_to_plane(rows, 'umap', seed=5)
    assert text == 'UMAP, 9 neighbours'
    assert np.array_equal(points, rows[:, :2])


@pytest.mark.parametrize(
    ('method', 'module', 'package'),
    [('tsne', 'sklearn', 'scikit-learn'), ('umap', 'umap', 'umap-learn')],
)
def test_missing_package_is_named(monkeypatch, method, module, package):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match=f'pip install {package}$'):
        project_to_plane(clusters(10)[0], method)


def test_faulty_requests():
    with pytest.raises(ConfigError, match="method='pca' is unknown"):
        project_to_plane(clusters(10)[0], 'pca')
    with pytest.raises(ConfigError, match='needs 3 embeddings or more, got 2'):
        project_to_plane(clusters(2)[0])


def draw_map(path, labels=None, classes=()):
    points = dict(
        source=np.array([[0.0, 0], [4, 4]]),
        target=np.array([[1.0, 0], [2, 0], [4, 3]]),
    )
    links = dict(source=np.array([0, 0, 1]), target=np.array([0, 1, 2]))
    save_feature_map(path, points, links, 'title', labels, classes)


def face_colours(figure):
    return [
        [to_hex(c) for c in s.get_facecolors()]
        for s in figure.axes[0].collections
        if not isinstance(s, LineCollection)
    ]


def test_lines_join_partners(tmp_path, figures):
    draw_map(tmp_path / 'x.png', np.array([0, 0, 2]), ('ant', 'bat', 'cat'))
    assert (tmp_path / 'x.png').stat().st_size > 1000
    (figure,) = figures
    (axis,) = figure.axes
    (lines,) = (c for c in axis.collections if isinstance(c, LineCollection))
    assert [s.tolist() for s in lines.get_segments()] == [
        [[0, 0], [1, 0]],
        [[0, 0], [2, 0]],
        [[4, 4], [4, 3]],
    ]
    source, target = face_colours(figure)
    assert target == [source[0], source[0], source[1]]
    assert source[0] != source[1]
    (legend,) = figure.legends
    assert [t.get_text() for t in legend.get_texts()] == ['ant', 'cat']
    shapes = [t.get_text() for t in axis.get_legend().get_texts()]
    assert shapes == ['source', 'target']
    title = 'title\nN = 2 source, 3 target; colour: one of 2 classes'
    assert axis.get_title() == title


def test_without_classes_the_colour_is_the_modality(tmp_path, figures):
    draw_map(tmp_path / 'x.png')
    source, target = face_colours(figures[0])
    assert set(source).isdisjoint(target)
    assert not figures[0].legends


def test_many_classes_have_colours_but_no_legend(tmp_path, figures):
    number = 75
    points = np.random.default_rng(0).normal(size=(2, number, 2))
    every = np.arange(number)
    save_feature_map(
        tmp_path / 'x.png',
        dict(source=points[0], target=points[1]),
        dict(source=every, target=every),
        'title',
        every,
    )
    assert not figures[0].legends
    source, target = face_colours(figures[0])
    assert source == target and len(set(source)) > 70


def framed(axis):
    return axis.spines['left'].get_linewidth() > 2


def test_gallery_frames_partners_and_states_ranks(tmp_path, figures):
    grey = [np.full((6, 8, 3), 30 * i, np.uint8) for i in range(6)]
    rows = [
        GalleryRow(
            grey[0],
            [Hit(grey[1], 0.9, False), Hit(grey[2], 0.8, True)],
            grey[2],
            2,
        ),
        GalleryRow(
            grey[3],
            [Hit(grey[4], 0.7, False), Hit(grey[5], -0.6, False)],
            grey[1],
            41,
        ),
    ]
    save_retrieval_gallery(tmp_path / 'x.png', rows, 'what it is')
    (figure,) = figures
    assert figure.get_suptitle() == 'what it is'
    assert figure.axes[0].get_title() == 'query'
    shown = [axis for axis in figure.axes if axis.images]
    assert [axis.get_xlabel() for axis in shown] == [
        *('', 'cos 0.900', 'cos 0.800', 'rank 2'),
        *('', 'cos 0.700', 'cos -0.600', 'rank 41'),
    ]
    assert [framed(axis) for axis in shown] == [
        *(False, False, True, True),
        *(False, False, False, True),
    ]
    values = [int(axis.images[0].get_array()[0, 0, 0]) for axis in shown]
    assert values == [0, 30, 60, 60, 90, 120, 150, 30]
