"""Retrieval of locations, within an image and among images."""

import math

import pytest
import torch
from mmengine.logging import MMLogger
from mmpretrain.structures import DataSample
from torch.nn.functional import normalize

from mmcmcd.errors import ConfigError
from mmcmcd.evaluation.functional import location_errors, retrieval
from mmcmcd.registry import METRICS

DIRECTIONS = ('target2source', 'source2target')


def grid(height, width):
    return torch.cartesian_prod(torch.arange(height), torch.arange(width))


def image(source, target, cells, places_student=True):
    return dict(
        source=source,
        target=target,
        cells=cells,
        grid=(9, 9),
        places_student=places_student,
    )


def random_images(number=5, width=6, noise=1.0):
    """Maps of 3 x 4 cells, each with other holes."""
    torch.manual_seed(0)
    images = []
    for _ in range(number):
        cells = grid(3, 4)[torch.rand(12) > 0.3]
        source = torch.randn(len(cells), width)
        target = source + noise * torch.randn(len(cells), width)
        images.append(image(source, target, cells))
    return images


def evaluate(images, names=None, batch=3, order=None, **kwargs):
    """Figures of images, as a test loop would make them."""
    kwargs = dict(locations_per_image=None) | kwargs
    metric = METRICS.build(dict(type='mmcmcd.RegionRetrieval', **kwargs))
    samples = []
    for index in order or range(len(images)):
        sample = DataSample(metainfo=dict(pair_id=f'p{index}'))
        named = images[index] if names else dict(cells=images[index])
        sample.set_field(named, 'regions')
        samples.append(sample.to_dict())
    for start in range(0, len(samples), batch):
        metric.process(None, samples[start : start + batch])
    prefix = f'{metric.prefix}/'
    return {
        key.removeprefix(prefix): value
        for key, value in metric.evaluate(len(samples)).items()
    }


def naive_within(images, query, other):
    """Ranks of own cells, and distances to the best ones, by loops."""
    ranks, distances = [], []
    for one in images:
        queries, gallery = (
            normalize(one[side].double(), dim=1) for side in (query, other)
        )
        for i, cell in enumerate(one['cells'].tolist()):
            scores = [float(queries[i] @ row) for row in gallery]
            best = scores.index(max(scores))
            ranks.append(1 + sum(score > scores[i] for score in scores))
            distances.append(math.dist(cell, one['cells'][best].tolist()))
    return ranks, distances


def naive_among(images, query, other):
    """Ranks of own cells among those of all images."""
    queries, gallery = (
        normalize(torch.cat([one[side] for one in images]).double(), dim=1)
        for side in (query, other)
    )
    scores = (queries @ gallery.T).tolist()
    return [1 + sum(x > row[i] for x in row) for i, row in enumerate(scores)]


def mean(values):
    values = list(values)
    return sum(values) / len(values)


@pytest.mark.parametrize('block', [2**21, 20])
def test_figures_equal_loops(block, monkeypatch):
    monkeypatch.setattr(retrieval, '_BLOCK', block)
    images = random_images()
    figures = evaluate(images)
    expected = {}
    for direction in DIRECTIONS:
        sides = direction.split('2')
        ranks, distances = naive_within(images, *sides)
        among = naive_among(images, *sides)
        for k in (1, 5):
            expected[f'image_{direction}_R@{k}'] = 100 * mean(
                rank <= k for rank in ranks
            )
            expected[f'{direction}_R@{k}'] = 100 * mean(
                rank <= k for rank in among
            )
        expected[f'image_{direction}_distance'] = mean(distances)
        expected[f'{direction}_mAP'] = 100 * mean(1 / r for r in among)
    assert 0 < figures.pop('neighbours@10') < 100
    assert figures == pytest.approx(expected)
    # Within one image it is easier, and neither way is perfect.
    first, within = (f'{x}target2source_R@1' for x in ('', 'image_'))
    assert 0 < figures[first] < figures[within] < 100


def test_identical_maps_are_found_everywhere():
    images = [
        dict(one, target=3 * one['source']) for one in random_images(width=8)
    ]
    for key, value in evaluate(images).items():
        assert value == (0 if key.endswith('distance') else 100), key


def test_neighbours_that_change_places_are_off_by_one_cell():
    cells = grid(3, 4)
    torch.manual_seed(0)
    images = []
    for _ in range(4):
        source = torch.randn(12, 64)
        swapped = source.view(3, 2, 2, 64).flip(2).reshape(12, 64)
        images.append(image(source, swapped, cells))
    figures = evaluate(images)
    for direction in DIRECTIONS:
        assert figures[f'{direction}_R@1'] == 0
        assert figures[f'image_{direction}_R@1'] == 0
        assert figures[f'image_{direction}_distance'] == 1


def test_a_collapsed_map_scores_the_worst():
    cells = grid(3, 4)
    figures = evaluate([image(torch.randn(12, 8), torch.ones(12, 8), cells)])
    # All sources are equally far: every target is found last.
    assert figures['source2target_R@5'] == 0
    assert figures['image_source2target_R@5'] == 0
    farthest = torch.cdist(cells.double(), cells.double()).amax(1).mean()
    assert figures['image_source2target_distance'] == pytest.approx(
        float(farthest)
    )


def test_errors_of_one_image():
    rows = torch.eye(3)
    ranks, distances = location_errors(
        rows[[0, 2, 1]], rows, torch.tensor([[0, 0], [0, 1], [3, 5]])
    )
    assert ranks.tolist() == [1, 3, 3]  # ties go against it
    assert distances.tolist() == [0, 5, 5]


def test_two_spaces_have_neighbours_alone():
    images = random_images(noise=0.3)
    narrow = [dict(one, target=one['target'][:, :4]) for one in images]
    turned = [dict(one, places_student=False) for one in images]
    for others in (narrow, turned):
        figures = evaluate(others)
        assert list(figures) == ['neighbours@10']
    assert figures == {
        'neighbours@10': evaluate(images)['neighbours@10'],
    }
    assert list(evaluate(turned, num_neighbours=3)) == ['neighbours@3']
    assert evaluate(turned, num_neighbours=500) == {}


def test_images_without_locations_take_no_part(caplog):
    images = random_images()
    empty = image(torch.zeros(0, 6), torch.zeros(0, 6), grid(1, 1)[:0])
    expected = evaluate(images)
    logger = MMLogger.get_instance('regions')
    logger.addHandler(caplog.handler)
    assert evaluate([*images, empty, empty]) == expected
    assert '2 of 7 images have no valid location' in caplog.text
    assert evaluate([empty, empty]) == {}


def test_the_draw_depends_on_nothing_but_pair_and_seed():
    images = random_images(8)
    everywhere = evaluate(images)
    figures = evaluate(images, locations_per_image=3)
    order = [5, 0, 7, 2, 1, 6, 4, 3]
    assert figures == pytest.approx(
        evaluate(images, locations_per_image=3, batch=2, order=order)
    )
    assert figures != evaluate(images, locations_per_image=3, seed=1)
    # Within an image all locations take part.
    for key in everywhere:
        same = figures[key] == everywhere[key]
        assert same == key.startswith('image_'), key


def test_what_is_kept_of_an_image_is_small():
    metric = METRICS.build(
        dict(type='mmcmcd.RegionRetrieval', locations_per_image=4)
    )
    source, target = torch.randn(2, 500, 64)
    one = image(source, target, torch.arange(1000).view(500, 2))
    metric.process(None, [dict(pair_id='p', regions=dict(cells=one))])
    (kept,) = metric.results
    for rows in kept['rows'].values():
        assert rows.shape == (4, 64)
        # A view would keep the whole map.
        assert rows.untyped_storage().nbytes() == 4 * 64 * 4
    places = [
        source.eq(row).all(1).nonzero() for row in kept['rows']['source']
    ]
    assert torch.equal(target[torch.cat(places)[:, 0]], kept['rows']['target'])


def test_one_of_several_comparisons():
    first, second = random_images(4), random_images(4, noise=0.1)
    named = [dict(a=a, b=b) for a, b in zip(first, second, strict=True)]
    assert evaluate(named, names=True, dense='b') == evaluate(second)
    metric = METRICS.build(dict(type='mmcmcd.RegionRetrieval', dense='b'))
    assert metric.prefix == 'b_region'
    for wrong in (None, 'c'):
        with pytest.raises(ConfigError, match=r"are \['a', 'b'\]. Name one"):
            evaluate(named, names=True, dense=wrong)
    with pytest.raises(ConfigError, match='are none. Add model.dense'):
        METRICS.build(dict(type='mmcmcd.RegionRetrieval')).process(
            None, [dict(pair_id='p')]
        )


def test_no_locations_cannot_be_drawn():
    with pytest.raises(ConfigError, match='locations_per_image must be None'):
        evaluate(random_images(), locations_per_image=0)
