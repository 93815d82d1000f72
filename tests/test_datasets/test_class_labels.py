from collections import Counter

import pytest

from mmcmcd.datasets.class_labels import (
    draw_per_class,
    read_classes,
    resolve_classes,
    shorten,
)
from mmcmcd.errors import ConfigError, DatasetError

CLASSES = ('cat', 'dog')
# Four photos of each class, of which three sketches each.
ITEMS = [
    dict(gt_label=label, group_id=(label, photo), img_path=(label, photo, k))
    for photo in range(4)
    for label in (0, 1)
    for k in range(3)
]


def names(items):
    return [item['img_path'] for item in items]


def test_same_number_of_every_class_in_the_former_order():
    drawn = draw_per_class(ITEMS, 7, 0, CLASSES)
    assert Counter(item['gt_label'] for item in drawn) == {0: 7, 1: 7}
    places = [ITEMS.index(item) for item in drawn]
    assert places == sorted(set(places))


@pytest.mark.parametrize('seed', range(5))
def test_different_photos_first(seed):
    for number, most in ((4, 1), (5, 2), (8, 2), (9, 3)):
        drawn = draw_per_class(ITEMS, number, seed, CLASSES)
        uses = Counter(item['group_id'] for item in drawn)
        assert len(uses) == 8 and max(uses.values()) == most


def test_draws_are_repeatable_nested_and_different():
    draws = [names(draw_per_class(ITEMS, 3, s, CLASSES)) for s in range(20)]
    assert draws[3] == names(draw_per_class(ITEMS, 3, 3, CLASSES))
    assert len({tuple(draw) for draw in draws}) > 15
    assert set(names(draw_per_class(ITEMS, 2, 3, CLASSES))) < set(draws[3])


def test_every_image_is_drawn_equally_often():
    times = Counter(
        name
        for seed in range(600)
        for name in names(draw_per_class(ITEMS, 1, seed, CLASSES))
    )
    # 600 / 12 = 50, standard deviation 6.8
    assert len(times) == 24
    assert all(20 < number < 80 for number in times.values())


def test_all_without_a_number():
    assert draw_per_class(ITEMS, None, 0, CLASSES) == ITEMS


def test_other_groups_than_those_of_the_items():
    sketch = [item['img_path'][2] for item in ITEMS]
    drawn = draw_per_class(ITEMS, 3, 0, CLASSES, groups=sketch)
    uses = Counter((i['gt_label'], i['img_path'][2]) for i in drawn)
    assert set(uses.values()) == {1} and len(uses) == 6


def test_a_class_does_not_depend_on_the_others():
    cats = [item for item in ITEMS if item['gt_label'] == 0]
    both = draw_per_class(ITEMS, 3, 7, CLASSES)
    assert [i for i in both if i['gt_label'] == 0] == draw_per_class(
        cats, 3, 7, CLASSES[:1]
    )


def test_too_few_images():
    items = [*ITEMS, dict(gt_label=2, img_path='x')]
    with pytest.raises(DatasetError) as error:
        draw_per_class(items, 2, 0, ('cat', 'dog', 'ant', 'cow'))
    assert '2 of 4 classes' in str(error.value)
    assert 'ant (1), cow (0)' in str(error.value)


@pytest.mark.parametrize(
    'number, seed, words',
    [(0, 0, 'labels_per_class=0'), (1.5, 0, '=1.5'), (1, -1, 'draw=-1')],
)
def test_senseless_draws(number, seed, words):
    with pytest.raises(ConfigError, match=words):
        draw_per_class(ITEMS, number, seed, CLASSES)


def test_resolve_classes():
    assert resolve_classes(['b', 'a', 'b'], None, 'x') == ('a', 'b')
    assert resolve_classes(['a', 'b'], ['b', 'a'], 'x') == ('b', 'a')
    with pytest.raises(DatasetError, match=r"'x' has 1 classes.*the list"):
        resolve_classes(['a', 'b'], ['a'], 'x', 'the list')


def test_read_classes(tmp_path):
    path = tmp_path / 'names.txt'
    with pytest.raises(ConfigError, match=r'names\.txt.*does not exist'):
        read_classes(path)
    path.write_text('hot dog\n\n car_(sedan) \n')
    assert read_classes(path) == ('hot dog', 'car_(sedan)')


def test_shorten():
    assert shorten(['b', 'a']) == 'b, a'
    assert shorten(set('gfedcba')) == 'a, b, c, d, e and 2 more'
