import math

import pytest
import torch
from scipy.stats import binomtest

from mmcmcd.analysis import MEASURES, Settings, measure_distance
from mmcmcd.errors import ConfigError, DatasetError

ONE_SPACE = {
    'tv_lower',
    'tv_lower_rbf',
    'tv_similarity_cross',
    'mmd',
    'centroid',
    'alignment',
}


def rows(size, width, seed=0, shift=0.0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(size, width, generator=generator) + shift


def measure(source, target, groups=None, names=MEASURES, **settings):
    groups = torch.arange(len(source)) if groups is None else groups
    settings = Settings(**dict(dict(permutations=19), **settings))
    return measure_distance(source, target, groups, settings, names=names)


@pytest.fixture(scope='module')
def apart():
    return measure(rows(300, 8), rows(300, 8, 1, shift=0.5))


def test_every_figure_has_an_interval(apart):
    assert apart.keys() == MEASURES.keys()
    for found in apart.values():
        assert found['low'] <= found['value'] <= found['high']
        assert found['high'] > found['low']
        assert found['interval']
    for name in ('tv_lower', 'tv_lower_rbf', 'mmd', 'centroid'):
        assert apart[name]['p_value'] == 0.05
        assert apart[name]['value'] > apart[name]['baseline']


def test_the_limit_is_that_of_the_binomial_test(apart):
    found = apart['tv_lower']
    number = found['held_out_groups']
    assert number == 150
    right = round(found['accuracy'] * number)
    low, high = binomtest(right, number).proportion_ci(0.95, 'exact')
    # Half of a pair may be right; then the limits lie between two whole ones.
    assert found['low'] == pytest.approx(2 * low - 1, abs=0.01)
    assert found['high'] == pytest.approx(2 * high - 1, abs=0.01)
    one_sided = binomtest(right, number, alternative='greater')
    limit = 2 * one_sided.proportion_ci(0.95, 'exact').low - 1
    assert found['lower_limit'] == pytest.approx(limit, abs=0.01)
    assert found['low'] < found['lower_limit'] < found['value']


def test_equal_embeddings():
    same = rows(100, 8)
    found = measure(same, same, teacher_temperature=0.2)
    for name, (_, _, equal) in MEASURES.items():
        if equal.startswith(('0', 'near 0')):
            assert found[name]['value'] == pytest.approx(0, abs=1e-5), name
        if equal == '1':
            assert found[name]['value'] == pytest.approx(1)
    assert found['tv_similarity_within']['pinsker_bound'] < 1e-3
    source, target = (
        found[f'uniformity_{side}']['value'] for side in ('source', 'target')
    )
    assert source == target
    assert found['mmd']['p_value'] == found['tv_lower']['p_value'] == 1


def test_other_widths_leave_out_what_needs_one_space():
    found = measure(rows(60, 8), rows(60, 5, 1))
    for name, measured in found.items():
        assert (measured['value'] is None) == (name in ONE_SPACE)
        if name in ONE_SPACE:
            assert '8 wide and target rows 5' in measured['reason']


def test_length_of_rows_does_not_matter(apart):
    longer = 7 * rows(300, 8), 0.1 * rows(300, 8, 1, shift=0.5)
    found = measure(*longer)
    for name, measured in found.items():
        assert measured['value'] == pytest.approx(
            apart[name]['value'], abs=1e-4
        )


def test_the_seed_decides(apart):
    again = measure(rows(300, 8), rows(300, 8, 1, shift=0.5))
    other = measure(rows(300, 8), rows(300, 8, 1, shift=0.5), seed=1)
    assert again == apart
    assert other['tv_lower'] != apart['tv_lower']


def test_without_permutations_there_is_no_p_value():
    found = measure(rows(40, 4), rows(40, 4, 1), permutations=0)
    assert not any('p_value' in measured for measured in found.values())


def test_copies_of_pairs_do_not_narrow_intervals():
    """What groups are for: ten copies of a pair are one observation."""
    source, target = rows(60, 6), rows(60, 6, 1, shift=0.3)
    names = ('alignment', 'mmd', 'centroid', 'uniformity_source')
    once = measure(source, target, names=names)
    groups = torch.arange(60).repeat_interleave(10)
    copied = measure(source[groups], target[groups], groups, names=names)
    for name in names:
        # The width of MMD's kernel is of a random part of the copies.
        assert copied[name]['value'] == pytest.approx(
            once[name]['value'], rel=0.02
        )
        one, ten = (m[name]['high'] - m[name]['low'] for m in (once, copied))
        assert ten == pytest.approx(one, rel=0.02), name


@pytest.mark.parametrize('name', ['alignment', 'mmd', 'centroid', 'cka'])
def test_intervals_cover(name):
    """Of 60 samples about 95 % hold the value of a large one."""
    options = dict(names=[name], permutations=0)
    truth = measure(*correlated(4000, 999), **options)[name]['value']
    held = 0
    for seed in range(60):
        found = measure(*correlated(120, seed), **options)[name]
        held += found['low'] <= truth <= found['high']
    assert held >= 50


def correlated(size, seed):
    source = rows(size, 3, 3 * seed)
    return source, source + rows(size, 3, 3 * seed + 1, shift=0.7)


def test_a_constant_side_is_no_crash():
    constant = torch.ones(40, 4)
    found = measure(rows(40, 4), constant)
    assert found['cka']['value'] is None
    assert 'constant' in found['cka']['reason']
    assert found['uniformity_target']['value'] == pytest.approx(0)


@pytest.mark.parametrize('fault', ['rows', 'finite', 'groups'])
def test_faults_are_named(fault):
    source, target, groups = rows(20, 4), rows(20, 4, 1), torch.arange(20)
    kind, message = ConfigError, 'expected one of each'
    if fault == 'rows':
        target = target[:-1]
    elif fault == 'finite':
        source[3, 2] = math.nan
        message = '1 of 20 embeddings hold NaN'
    else:
        kind, message, groups = DatasetError, 'got 3', groups % 3
    with pytest.raises(kind, match=message):
        measure(source, target, groups)
