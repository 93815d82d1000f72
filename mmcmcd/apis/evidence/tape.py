"""Batches, and what a teacher makes of them, that several runs share."""

from collections import OrderedDict

import torch
from mmengine.hooks import Hook
from mmengine.runner import IterBasedTrainLoop
from mmengine.structures import BaseDataElement

from ...datasets.seeded import SeededSampler
from ...engine.unwrapped import unwrapped_model
from ...models.distillers import FrozenTeacher


class TapeStore:
    """Keep what runs compute that others of this process compute, too.

    The samples of a run depend on its data configuration and seed alone (see
    :mod:`mmcmcd.datasets.seeded`), so that runs that differ in their losses
    see the same batches, bit for bit, and the same frozen teacher makes the
    same of them: the second run need not read, crop, resize and embed again.

    Args:
        limit (int): Bytes of tensors that may be kept, in this process; what
            else belongs to samples is not counted. A teacher's embeddings
            stay on its device.
    """

    def __init__(self, limit):
        self.limit = limit
        self.used = 0
        self._tapes = OrderedDict()
        self._sizes = {}
        self._in_use = set()

    def begin(self):
        """Begin a run: what others have opened may be forgotten from now."""
        self._in_use = set()

    def open(self, key):
        """Return what is kept under a key, by place in training.

        Args:
            key (str): What it depends on.

        Returns:
            dict: Add to it by :meth:`add` alone. It stays until the next
            run begins.
        """
        tape = self._tapes.setdefault(key, {})
        self._tapes.move_to_end(key)
        self._in_use.add(key)
        return tape

    def add(self, key, place, value):
        """Keep a copy of a value, if there is room or can be made.

        Args:
            key (str): One that is open.
            place (tuple): Where in training.
            value (object): With tensors in it.
        """
        tape = self._tapes[key]
        size = sum(t.element_size() * t.nelement() for t in _tensors(value))
        if place in tape or not self._make_room(size):
            return
        tape[place] = copy_batch(value)
        self._sizes[key] = self._sizes.get(key, 0) + size
        self.used += size

    def _make_room(self, size):
        while self.used + size > self.limit:
            oldest = next(iter(self._tapes))
            if oldest in self._in_use:
                return False
            del self._tapes[oldest]
            self.used -= self._sizes.pop(oldest, 0)
        return True


class TapeHook(Hook):
    """Let a run use and fill a store.

    Args:
        store (TapeStore): The store.
        key (str): Of the run's data configuration and seed.
        teacher (str, optional): Names all that a teacher's embeddings depend
            on. Defaults to None: there is none.
    """

    # Registered last, it comes after all others: ExactResumeHook makes the
    # loader, and StopOnSignalHook prepares its workers.
    priority = 'LOWEST'

    def __init__(self, store, key, teacher=None):
        self.store = store
        self.key = key
        self.teacher = teacher
        self._place = None

    def before_train(self, runner):
        """Put the tape around the loader and the teacher.

        Args:
            runner (Runner): At the beginning of its training; one that is
                resumed computes for itself.
        """
        self.store.begin()
        loop = runner.train_loop
        loader = loop.dataloader
        if runner.iter or not isinstance(loader.sampler, SeededSampler):
            return
        loop.dataloader = _Tape(loader, self.store, self.key)
        if isinstance(loop, IterBasedTrainLoop):
            iterator = type(loop.dataloader_iterator)
            loop.dataloader_iterator = iterator(loop.dataloader)
        teacher = getattr(unwrapped_model(runner), 'teacher', None)
        if self.teacher and isinstance(teacher, FrozenTeacher):
            self._remember(teacher)

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        """Note where in training the teacher is asked.

        Args:
            runner (Runner): The runner.
            batch_idx (int): Of the epoch.
            data_batch (dict, optional): Of the step.
        """
        self._place = (runner.iter,)

    def after_train_iter(
        self, runner, batch_idx, data_batch=None, outputs=None
    ):
        """Validation asks the teacher about other images.

        Args:
            runner (Runner): The runner.
            batch_idx (int): Of the epoch.
            data_batch (dict, optional): Of the step.
            outputs (dict, optional): Of the step.
        """
        self._place = None

    def _remember(self, teacher):
        extract = teacher.extract
        key = f'{self.key} {self.teacher}'
        tape = self.store.open(key)

        def remembered(images, chunk_size=None, stages=()):
            stages = tuple(stages)
            if self._place is None:
                return extract(images, chunk_size, stages)
            place = (*self._place, stages)
            if place not in tape:
                found = extract(images, chunk_size, stages)
                self.store.add(key, place, found)
                return found
            return tape[place]

        teacher.extract = remembered


class _Tape:
    """A data loader that plays what is there and records the rest."""

    def __init__(self, loader, store, key):
        self.loader = loader
        self.store = store
        self.key = key
        self.tape = store.open(key)

    def __getattr__(self, name):
        return getattr(self.loader, name)

    def __len__(self):
        return len(self.loader)

    def __iter__(self):
        """Yield the batches of an epoch, or of a loader that has no end."""
        sampler = self.loader.sampler
        endless = hasattr(sampler.sampler, 'skip')
        epoch = sampler.epoch
        place = 0
        while (epoch, place) in self.tape:
            yield copy_batch(self.tape[epoch, place])
            place += 1
        if place == len(self.loader) and not endless:
            return
        if place:
            sampler.skip(place * self.loader.batch_size)
        for at, batch in enumerate(self.loader, place):
            self.store.add(self.key, (epoch, at), batch)
            yield batch


def copy_batch(batch):
    """Copy what a step may change; samples share their tensors.

    Args:
        batch (object): Tensors and samples, in dicts, lists and tuples.
    """
    if isinstance(batch, torch.Tensor):
        return batch.clone()
    if isinstance(batch, BaseDataElement):
        return batch.new()
    if isinstance(batch, dict):
        return {key: copy_batch(value) for key, value in batch.items()}
    if isinstance(batch, (list, tuple)):
        copies = map(copy_batch, batch)
        # A named tuple takes its fields one by one.
        named = hasattr(batch, '_fields')
        return type(batch)(*copies) if named else type(batch)(copies)
    return batch


def _tensors(value):
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, BaseDataElement):
        yield from _tensors(dict(value.all_items()))
    elif isinstance(value, dict):
        for each in value.values():
            yield from _tensors(each)
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from _tensors(each)
