from collections import Counter

import pytest
from mmengine.dataset import BaseDataset, ConcatDataset
from mmengine.registry import DATA_SAMPLERS as MMENGINE_DATA_SAMPLERS
from mmengine.runner import Runner

from mmcmcd.datasets.samplers import multi_source_sampler
from mmcmcd.errors import ConfigError


class Numbers(BaseDataset):
    def __init__(self, size):
        self.size = size
        super().__init__()

    def load_data_list(self):
        return [dict(index=i) for i in range(self.size)]


def concatenated(*sizes):
    return ConcatDataset([Numbers(size) for size in sizes])


def build(dataset, batch_size=8, source_ratio=(1, 3), **kwargs):
    return MMENGINE_DATA_SAMPLERS.build(
        dict(
            type='mmcmcd.MultiSourceSampler',
            dataset=dataset,
            batch_size=batch_size,
            source_ratio=source_ratio,
            **{'seed': 0, **kwargs},
        )
    )


def batches(sampler):
    indices = [*sampler]
    assert len(indices) == len(sampler)
    size = sampler.batch_size
    return [indices[i : i + size] for i in range(0, len(indices), size)]


@pytest.mark.parametrize('sizes', [(5, 20), (50, 20), (1, 7)])
def test_every_batch_has_so_many_of_each_source(sizes):
    found = batches(build(concatenated(*sizes)))
    for batch in found:
        assert [index < sizes[0] for index in batch] == [True] * 2 + [
            False
        ] * 6


@pytest.mark.parametrize(
    ('sizes', 'round_up', 'number'),
    [
        ((5, 20), True, 4),
        ((5, 20), False, 3),
        ((5, 18), True, 3),
        ((5, 18), False, 3),
        # The labelled source is the largest.
        ((9, 6), True, 5),
        ((9, 6), False, 4),
    ],
)
def test_an_epoch_is_a_pass_over_the_largest(sizes, round_up, number):
    found = batches(build(concatenated(*sizes), round_up=round_up))
    assert len(found) == number
    largest = 0 if sizes[0] > sizes[1] else 1
    seen = Counter(
        index
        for batch in found
        for index in batch
        if (index >= sizes[0]) == largest
    )
    if round_up:
        assert len(seen) == sizes[largest]
    else:
        assert set(seen.values()) == {1}


def test_a_small_source_is_repeated_pass_by_pass():
    found = batches(build(concatenated(5, 60)))
    small = [index for batch in found for index in batch[:2]]
    passes = [tuple(small[i : i + 5]) for i in range(0, 20, 5)]
    assert all(sorted(each) == [0, 1, 2, 3, 4] for each in passes)
    assert len(set(passes)) > 1


def test_shuffles_by_seed_and_epoch():
    dataset = concatenated(9, 30)
    sampler = build(dataset)
    first = [*sampler]
    assert first == [*sampler] == [*build(dataset)]
    assert first != [*build(dataset, seed=1)]
    sampler.set_epoch(1)
    assert first != [*sampler]


def test_keeps_the_order_without_shuffling():
    assert [*build(concatenated(3, 9), 4, shuffle=False)] == [
        *(0, 3, 4, 5),
        *(1, 6, 7, 8),
        *(2, 9, 10, 11),
    ]


@pytest.mark.parametrize('world_size', [2, 3])
def test_processes_share_the_passes(monkeypatch, world_size):
    dataset, parts = concatenated(7, 50), []
    for rank in range(world_size):
        monkeypatch.setattr(
            multi_source_sampler,
            'get_dist_info',
            lambda rank=rank: (rank, world_size),
        )
        parts.append(batches(build(dataset)))
    assert {len(part) for part in parts} == {-(-50 // (6 * world_size))}
    together = [
        [i for part in step for i in part] for step in zip(*parts, strict=True)
    ]
    # No sample twice before the first pass is over.
    large = [i for step in together for i in step if i >= 7]
    assert len(set(large[:50])) == 50
    small = [i for step in together for i in step if i < 7]
    assert len(set(small[:7])) == 7


def test_three_sources():
    sampler = build(concatenated(4, 8, 20), 10, (1, 1, 3))
    assert sampler.num_per_source == [2, 2, 6]
    for batch in batches(sampler):
        assert max(batch[:2]) < 4 <= min(batch[2:4])
        assert max(batch[2:4]) < 12 <= min(batch[4:])


def test_a_runner_builds_it():
    loader = Runner.build_dataloader(
        dict(
            batch_size=4,
            num_workers=0,
            drop_last=True,
            sampler=dict(
                type='mmcmcd.MultiSourceSampler',
                batch_size=4,
                source_ratio=[1, 3],
            ),
            dataset=dict(
                type='ConcatDataset', datasets=[Numbers(3), Numbers(10)]
            ),
        ),
        seed=3,
    )
    assert len(loader) == 4
    assert all(len(batch['index']) == 4 for batch in loader)


@pytest.mark.parametrize(
    ('dataset', 'kwargs', 'message'),
    [
        (Numbers(5), {}, 'ConcatDataset, but the data set is a Numbers'),
        (concatenated(5, 9), dict(source_ratio=(1, 1, 2)), '3 shares.*2 mem'),
        (concatenated(5, 9), dict(source_ratio=(0, 1)), 'not positive'),
        (concatenated(5, 9), dict(source_ratio=(1, 2)), r'2\.66667, 5\.33333'),
        (concatenated(5, 9), dict(batch_size=2), r'0\.5, 1\.5'),
        (
            concatenated(1, 5),
            dict(round_up=False),
            'largest source has 5 samples, too few for the 6',
        ),
    ],
)
def test_refuses(dataset, kwargs, message):
    with pytest.raises(ConfigError, match=message):
        build(dataset, **kwargs)
