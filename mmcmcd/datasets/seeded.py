"""Samples whose random numbers depend on their place in training alone.

mmengine seeds the workers of a data loader once: what a worker draws for a
sample then depends on all samples that it has had before, which no checkpoint
can hold, and workers that are started anew for each epoch repeat themselves.
Here a sample's place in training is its seed. The same place gives the same
sample, with any number of workers, after a stop at any iteration.
"""

import hashlib
import random
import struct
from itertools import islice

import numpy as np
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    Sampler,
)


def derive_seed(*parts):
    """Mix integers into one seed of 64 bits.

    Args:
        *parts (int): What the seed depends on.

    Returns:
        int: Different for different parts, but for chance.
    """
    content = struct.pack(f'<{len(parts)}q', *parts)
    digest = hashlib.blake2b(content, digest_size=8).digest()
    return int.from_bytes(digest, 'little')


def seed_generators(seed, devices=False):
    """Seed the global generators of Python, NumPy and torch.

    Args:
        seed (int): 64 bits.
        devices (bool): Whether torch's generators of GPUs get it, too; the
            workers of a data loader must not touch these. Defaults to False.
    """
    random.seed(seed)
    np.random.seed((seed & 0xFFFFFFFF, seed >> 32))
    if devices:
        torch.manual_seed(seed)
    else:
        torch.default_generator.manual_seed(seed)


class SeededIndex(int):
    """An index that brings the seed of its sample along.

    Args:
        index (int): Of the sample.
        seed (int): 64 bits.
    """

    def __new__(cls, index, seed):
        """Make the integer, and put the seed beside it."""
        self = super().__new__(cls, index)
        self.seed = seed
        return self

    def __reduce__(self):
        """Keep the seed on the way to a worker."""
        return SeededIndex, (int(self), self.seed)


class SeededDataset:
    """A data set whose samples are drawn by the seeds of their indices.

    All else is the data set's own.

    Args:
        dataset (Dataset): Takes integers as indices.
    """

    def __init__(self, dataset):
        self.dataset = dataset

    def __getattr__(self, name):
        # `dataset` is missing while a copy is made; torch would fetch whole
        # batches by `__getitems__`, past the seeds.
        if name in ('dataset', '__getitems__'):
            raise AttributeError(name)
        return getattr(self.dataset, name)

    def __len__(self):
        return len(self.dataset)

    def __getitem__(self, index):
        if isinstance(index, SeededIndex):
            seed_generators(index.seed)
            index = int(index)
        return self.dataset[index]


class SeededSampler(Sampler):
    """Give each index of a sampler the seed of its place in training.

    Args:
        sampler (Sampler): Gives the indices.
        key (tuple[int]): What the seeds depend on beside the place, such as
            the run's seed and the rank of the process.
        pass_length (int, optional): How many indices a pass uses, counting
            its last batch as a full one. Defaults to None: ``len(sampler)``.
    """

    def __init__(self, sampler, key, pass_length=None):
        self.sampler = sampler
        self.key = tuple(key)
        self.pass_length = pass_length or len(sampler)
        self.epoch = 0
        self._passes = 0
        self._start = 0

    def __getattr__(self, name):
        if name == 'sampler':  # missing while a copy is made
            raise AttributeError(name)
        return getattr(self.sampler, name)

    def __len__(self):
        return len(self.sampler)

    def __iter__(self):
        """Yield the indices of an epoch, or what a skip has left of it."""
        start, self._start = self._start, 0
        if not hasattr(self.sampler, 'skip'):
            indices = islice(iter(self.sampler), start, None)
        else:
            if start:
                self.sampler.skip(start)
            indices = iter(self.sampler)
        for place, index in enumerate(indices, start):
            seed = derive_seed(*self.key, self.epoch, place)
            yield SeededIndex(index, seed)

    def set_epoch(self, epoch):
        """Draw otherwise in each epoch.

        Args:
            epoch (int): Its number.
        """
        self.epoch = self._passes + epoch
        if hasattr(self.sampler, 'set_epoch'):
            self.sampler.set_epoch(self.epoch)

    def skip(self, number):
        """Leave out the beginning of what comes.

        Args:
            number (int): Indices of this process that were used already, in
                this epoch or, of a loop that counts no epochs, in training.
        """
        self._start = number
        if hasattr(self.sampler, 'skip'):  # it has no end
            return
        passes, self._start = divmod(number, self.pass_length)
        if passes:
            # A loop that knows no epochs counts those to come from one.
            self._passes = passes
            self.set_epoch(0)


def seeded_loader(loader, key):
    """Make a data loader like another one, but with seeded samples.

    Args:
        loader (DataLoader): Not iterated yet; of a map-style data set.
        key (tuple[int]): See :class:`SeededSampler`.

    Returns:
        DataLoader: Its ``sampler`` is a :class:`SeededSampler`, its
        ``dataset`` a :class:`SeededDataset`.
    """
    size = getattr(loader.batch_sampler, 'batch_size', None) or 1
    sampler = SeededSampler(
        _sampler_of(loader), key, pass_length=size * len(loader)
    )
    options = {
        name: getattr(loader, name)
        for name in (
            'num_workers',
            'collate_fn',
            'pin_memory',
            'timeout',
            'worker_init_fn',
            'multiprocessing_context',
            'generator',
            'prefetch_factor',
            'persistent_workers',
        )
    }
    if type(loader.batch_sampler) is BatchSampler:
        options.update(
            sampler=sampler,
            batch_size=loader.batch_size,
            drop_last=loader.drop_last,
        )
    else:
        loader.batch_sampler.sampler = sampler
        options.update(batch_sampler=loader.batch_sampler)
    return DataLoader(SeededDataset(loader.dataset), **options)


def can_be_seeded(loader):
    """Whether :func:`seeded_loader` takes a data loader.

    Args:
        loader (DataLoader): Any.

    Returns:
        bool: False where samples are not looked up by an index of a sampler.
    """
    return not isinstance(loader.dataset, IterableDataset) and isinstance(
        _sampler_of(loader), Sampler
    )


def _sampler_of(loader):
    if type(loader.batch_sampler) is BatchSampler:
        return loader.sampler
    return getattr(loader.batch_sampler, 'sampler', None)
