"""A sample's place in training is its seed, whoever loads it."""

import copy
import pickle
import random

import numpy as np
import pytest
import torch
from mmengine.dataset import DefaultSampler, InfiniteSampler
from torch.utils.data import BatchSampler, DataLoader, Dataset, Sampler

from mmcmcd.datasets.seeded import (
    SeededDataset,
    SeededIndex,
    can_be_seeded,
    derive_seed,
    seed_generators,
    seeded_loader,
)


class Draws(Dataset):
    """A sample is what the global generators give."""

    metainfo = dict(name='draws')

    def __len__(self):
        return 10

    def __getitem__(self, index):
        assert type(index) is int
        values = random.random(), np.random.rand(), torch.rand(()).item()
        return torch.tensor([index, *values], dtype=torch.float64)


class Backwards(Sampler):
    """Neither epochs nor a way to skip."""

    def __len__(self):
        return 10

    def __iter__(self):
        return iter(range(9, -1, -1))


def loader(sampler=None, key=(0, 0, 0), **options):
    options = {'batch_size': 3, **options}
    sampler = sampler or DefaultSampler(Draws(), shuffle=True, seed=1)
    return seeded_loader(DataLoader(Draws(), sampler=sampler, **options), key)


def epoch(loader, number=0):
    loader.sampler.set_epoch(number)
    return torch.cat(list(loader))


def test_seed_depends_on_every_part():
    parts = [(0,), (1,), (0, 0), (0, 1), (1, 0), (-1, 2**40)]
    seeds = [derive_seed(*part) for part in parts]
    assert len(set(seeds)) == len(seeds)
    assert seeds == [derive_seed(*part) for part in parts]
    assert all(0 <= seed < 2**64 for seed in seeds)


@pytest.mark.parametrize('seed', [0, 1, 2**32, 2**64 - 1])
def test_all_generators_are_seeded(seed):
    drawn = []
    for _ in range(2):
        seed_generators(seed)
        drawn.append((random.random(), np.random.rand(), torch.rand(2)))
    assert drawn[0][:2] == drawn[1][:2]
    assert torch.equal(drawn[0][2], drawn[1][2])


def test_index_is_an_integer_that_travels():
    index = SeededIndex(7, 2**63)
    assert index == 7 and [0] * index + [1] == [0] * 7 + [1]
    for copied in (pickle.loads(pickle.dumps(index)), copy.deepcopy(index)):
        assert (copied, copied.seed) == (7, 2**63)


@pytest.mark.parametrize('workers', [1, 2, 3])
def test_workers_do_not_matter(workers):
    expected = epoch(loader())
    assert torch.equal(epoch(loader(num_workers=workers)), expected)
    # What others drew before does not matter either.
    torch.rand(5), random.random(), np.random.rand()
    assert torch.equal(epoch(loader()), expected)


def test_epochs_processes_and_runs_draw_otherwise():
    draws = [
        epoch(loader(), 0),
        epoch(loader(), 1),
        epoch(loader(key=(0, 0, 1))),
        epoch(loader(key=(1, 0, 0))),
    ]
    values = {tuple(row[1:].tolist()) for draw in draws for row in draw}
    assert len(values) == 40


@pytest.mark.parametrize('done', [0, 1, 3])
def test_skipped_samples_leave_the_others_as_they_are(done):
    expected = list(loader())
    skipped = loader(num_workers=2)
    skipped.sampler.skip(3 * done)
    found = list(skipped)
    assert len(found) == len(expected) - done
    for a, b in zip(expected[done:], found, strict=True):
        assert torch.equal(a, b)
    # The next epoch is whole.
    assert len(list(skipped)) == len(expected)


def test_passes_are_skipped_where_a_loop_knows_none():
    straight = loader(drop_last=True)
    passes = [epoch(straight, i) for i in range(3)]
    resumed = loader(drop_last=True)
    resumed.sampler.skip(3 * (3 + 3 + 1))  # two passes of 3 batches, and one
    found = torch.cat(list(resumed))
    assert torch.equal(found, passes[2][3:])
    # mmengine's endless iterator counts from the first pass that it saw.
    assert torch.equal(epoch(resumed, 1), epoch(straight, 3))


def test_endless_sampler():
    def first(number, skip=0):
        sampler = InfiniteSampler(Draws(), shuffle=True, seed=3)
        seeded = loader(sampler)
        seeded.sampler.skip(skip)
        batches = iter(seeded)
        return torch.cat([next(batches) for _ in range(number)])

    assert torch.equal(first(9)[3 * 4 :], first(5, skip=3 * 4))


def test_sampler_without_epochs():
    seeded = loader(Backwards())
    first, second = epoch(seeded, 0), epoch(seeded, 1)
    assert first[:, 0].tolist() == second[:, 0].tolist() == [*range(9, -1, -1)]
    assert not torch.equal(first[:, 1:], second[:, 1:])


def test_batch_sampler_of_ones_own():
    class Pairs(BatchSampler):
        pass

    def build():
        sampler = DefaultSampler(Draws(), shuffle=True, seed=1)
        batches = Pairs(sampler, batch_size=2, drop_last=False)
        return seeded_loader(
            DataLoader(Draws(), batch_sampler=batches), (0, 0, 0)
        )

    assert torch.equal(torch.cat(list(build())), torch.cat(list(build())))
    assert torch.equal(torch.cat(list(build())), epoch(loader()))


def test_loader_keeps_its_options():
    def collate(batch):
        return torch.stack(batch) + 1

    seeded = loader(
        batch_size=4,
        drop_last=True,
        num_workers=2,
        collate_fn=collate,
        persistent_workers=True,
        prefetch_factor=3,
        timeout=20,
    )
    assert len(seeded) == 2 and seeded.drop_last
    assert (seeded.num_workers, seeded.prefetch_factor) == (2, 3)
    assert (seeded.persistent_workers, seeded.timeout) == (True, 20)
    assert seeded.collate_fn is collate
    assert epoch(seeded)[:, 0].min() >= 1


def test_data_set_shows_all_but_its_samples():
    dataset = SeededDataset(Draws())
    assert dataset.metainfo == dict(name='draws') and len(dataset) == 10
    assert len(copy.deepcopy(dataset)) == 10
    assert dataset[3][0] == 3  # plain integers draw on
    with pytest.raises(AttributeError, match='nothing'):
        dataset.nothing  # noqa: B018


def test_batches_are_not_fetched_past_the_seeds():
    class Whole(Draws):
        def __getitems__(self, indices):
            return [self[int(i)] for i in indices]

    def build():
        sampler = DefaultSampler(Draws(), shuffle=True, seed=1)
        return seeded_loader(
            DataLoader(Whole(), sampler=sampler, batch_size=3), (0, 0, 0)
        )

    assert torch.equal(epoch(build()), epoch(loader()))


def test_what_can_be_seeded():
    assert can_be_seeded(DataLoader(Draws()))
    assert not can_be_seeded(DataLoader(Draws(), batch_size=None))
