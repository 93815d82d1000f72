from collections.abc import Iterator, Sequence
from itertools import chain, islice
from math import ceil

import torch
from mmengine.dataset import ConcatDataset
from mmengine.dist import get_dist_info, sync_random_seed
from torch.utils.data import Sampler

from mmcmcd.errors import ConfigError
from mmcmcd.registry import DATA_SAMPLERS


@DATA_SAMPLERS.register_module()
class MultiSourceSampler(Sampler):
    """Give every batch a fixed number of samples of each source.

    The sources are the members of a ``ConcatDataset``, such as a few
    labelled pairs and many without labels. An epoch is one pass over the
    largest of them; the others are repeated, shuffled anew for every pass,
    or used in part. In a batch the sources follow one another in order.

    Processes take different slices of the same passes, so that every one of
    their batches has these numbers. mmdetection and mmpose have samplers of
    this name and these arguments; theirs never end, or end after as many
    samples as all sources have together.

    Args:
        dataset (ConcatDataset): Its members are the sources.
        batch_size (int): Samples in the batch of one process, the same as
            ``train_dataloader.batch_size``.
        source_ratio (Sequence[float]): Share of each source in a batch, such
            as ``(1, 7)``: of 64 samples 8 and 56.
        shuffle (bool): Whether to shuffle each pass. Defaults to True.
        seed (int, optional): Of the shuffling, the same in all processes.
            Defaults to None: a random one that they agree on.
        round_up (bool): Whether the last batch of an epoch, which the
            largest source cannot fill, is filled with a part of another
            pass, or left out. Defaults to True.

    Raises:
        ConfigError: The data set is none of several sources, or the batch
            cannot be divided so.

    Example:
        >>> train_dataloader = dict(
        ...     batch_size=64,
        ...     sampler=dict(type='mmcmcd.MultiSourceSampler', batch_size=64,
        ...                  source_ratio=(1, 7)),
        ...     dataset=dict(type='ConcatDataset',
        ...                  datasets=[labelled, unlabelled]))
    """

    def __init__(
        self,
        dataset: ConcatDataset,
        batch_size: int,
        source_ratio: Sequence[float],
        shuffle: bool = True,
        seed: int | None = None,
        round_up: bool = True,
    ) -> None:
        if not isinstance(dataset, ConcatDataset):
            raise ConfigError(
                'MultiSourceSampler mixes the members of a ConcatDataset, '
                f'but the data set is a {type(dataset).__name__}. Set '
                "train_dataloader.dataset=dict(type='ConcatDataset', "
                'datasets=[...]).'
            )
        dataset.full_init()
        self.dataset = dataset
        self.sizes = [len(source) for source in dataset.datasets]
        self.num_per_source = _divide(
            batch_size, list(source_ratio), len(self.sizes)
        )
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = sync_random_seed() if seed is None else seed
        self.round_up = round_up
        self.epoch = 0
        self.rank, self.world_size = get_dist_info()
        self.num_batches = self._count_batches()

    def _count_batches(self):
        largest = max(range(len(self.sizes)), key=self.sizes.__getitem__)
        number = self.num_per_source[largest] * self.world_size
        batches = self.sizes[largest] / number
        batches = ceil(batches) if self.round_up else int(batches)
        if not batches:
            raise ConfigError(
                f'MultiSourceSampler: the largest source has '
                f'{self.sizes[largest]} samples, too few for the {number} of '
                'one batch of all processes with round_up=False. Lower '
                'batch_size, or set round_up=True.'
            )
        return batches

    def __iter__(self) -> Iterator[int]:
        """Yield the indices of this process, batch by batch."""
        generator = torch.Generator()
        generator.manual_seed(self.seed + self.epoch)
        starts = [0, *self.dataset.cumulative_sizes]
        slices = [
            self._slices(start, size, number, generator)
            for start, size, number in zip(
                starts, self.sizes, self.num_per_source, strict=False
            )
        ]
        for parts in zip(*slices, strict=True):
            yield from chain.from_iterable(parts)

    def _slices(self, start, size, number, generator):
        """What this process takes of one source, a list for each batch."""
        step = number * self.world_size
        total = step * self.num_batches
        passes = (
            self._pass(size, generator) for _ in range(-(-total // size))
        )
        indices = [start + i for i in islice(chain(*passes), total)]
        first = number * self.rank
        return [indices[i : i + number] for i in range(first, total, step)]

    def _pass(self, size, generator):
        if self.shuffle:
            return torch.randperm(size, generator=generator).tolist()
        return range(size)

    def __len__(self) -> int:
        """Return the number of samples of this process in an epoch."""
        return self.num_batches * self.batch_size

    def set_epoch(self, epoch: int) -> None:
        """Shuffle otherwise in every epoch.

        Args:
            epoch (int): Its number.
        """
        self.epoch = epoch


def _divide(batch_size, source_ratio, num_sources):
    """How many samples of a batch each source gives."""
    if len(source_ratio) != num_sources:
        raise ConfigError(
            f'MultiSourceSampler: source_ratio={source_ratio} has '
            f'{len(source_ratio)} shares, but the ConcatDataset has '
            f'{num_sources} members. Give one share for each, in their order.'
        )
    if not all(share > 0 for share in source_ratio):
        raise ConfigError(
            f'MultiSourceSampler: source_ratio={source_ratio} has shares '
            'that are not positive. Leave such a member out of the '
            'ConcatDataset.'
        )
    numbers = [batch_size * r / sum(source_ratio) for r in source_ratio]
    whole = [round(number) for number in numbers]
    if any(
        abs(n - w) > 1e-6 or w < 1 for n, w in zip(numbers, whole, strict=True)
    ):
        raise ConfigError(
            f'MultiSourceSampler: a batch of {batch_size} samples cannot be '
            f'divided by source_ratio={source_ratio}: the sources would give '
            f'{", ".join(f"{number:g}" for number in numbers)}. Choose '
            'another batch_size (here and in train_dataloader), or the '
            'numbers themselves, such as source_ratio=(8, 56) for 64.'
        )
    return whole
