import cv2
import numpy as np

from mmcmcd.analysis import (
    Correspondence,
    save_correspondence_picture,
    spread_cells,
)


def grid(height, width):
    return np.argwhere(np.ones((height, width)))


def test_cells_are_spread():
    cells = grid(8, 10)
    chosen = cells[spread_cells(cells, (8, 10), 5)]
    away = np.linalg.norm(chosen[:, None] - chosen, axis=2)
    assert (away + 9 * np.eye(5)).min() >= 3
    assert np.abs(chosen[0] - (3.5, 4.5)).max() <= 0.5
    # More points begin with the same ones.
    more = spread_cells(cells, (8, 10), 9)
    assert (cells[more[:5]] == chosen).all()


def test_each_cell_once_and_valid_ones_alone():
    cells = grid(4, 4)[[0, 1, 5, 14, 15]]
    assert sorted(spread_cells(cells, (4, 4), 9)) == [0, 1, 2, 3, 4]
    assert spread_cells(cells, (4, 4), 1).tolist() == [2]


def rows(own):
    """One pair; its one location is most similar to the cell (1, 2)."""
    similarity = np.linspace(0, 0.5, 12).reshape(1, 3, 4)
    similarity[0, 1, 2] = 1
    similarity[0, 0, 0] = np.nan
    image = np.full((60, 80, 3), 200, np.uint8)
    return [Correspondence('p', image, image, np.array([own]), similarity)]


def test_right_and_wrong_locations_look_different(tmp_path):
    pictures = []
    for own in ((1, 2), (2, 0)):
        path = tmp_path / 'picture.png'
        save_correspondence_picture(path, rows(own), 'title')
        pictures.append(cv2.imread(str(path)))
    assert pictures[0].std() > 5
    assert pictures[0].shape == pictures[1].shape
    assert (pictures[0] != pictures[1]).any()


def test_pairs_with_fewer_locations_leave_places_empty(tmp_path):
    (pair,) = rows((1, 2))
    many = pair._replace(
        cells=np.array([(0, 1), (2, 3), (1, 1)]),
        similarity=np.repeat(pair.similarity, 3, axis=0),
    )
    path = tmp_path / 'picture.png'
    save_correspondence_picture(path, [many, pair], 'title')
    assert cv2.imread(str(path)).std() > 5
