"""Mean and standard deviation of arrays, as NormalizeArray wants them."""

import hashlib
import inspect
import json
import os
import os.path as osp
import random
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from mmcv.transforms import Compose
from mmengine.registry import DATASETS, TRANSFORMS
from torch.utils.data import DataLoader, Dataset

from ..atomic_files import write_text
from ..datasets.archives import split_archive_path
from ..datasets.progress import progress_bar
from ..datasets.transforms import NormalizeArray, OnSide, SelectSide
from ..errors import ConfigError, DatasetError, UnreadableFileError
from .dataset_configs import phase_dataset_cfgs

# Relative to the largest value: what float32 cannot tell from a constant.
_CONSTANT = 1e-6


@dataclass
class SideStatistics:
    """Statistics of one side.

    Attributes:
        file (str): Where they are.
        side (str): The entry in it.
        computed (bool): Whether they were, or else found up to date.
        entry (dict): What the file holds: ``mean`` and ``std`` by channel,
            ``values`` per channel, ``items``, ``skipped`` items,
            ``transforms`` before, and the ``fingerprint``.
    """

    file: str
    side: str
    computed: bool
    entry: dict


def array_statistics(cfg, force=False, num_workers=0):
    """Compute what ``NormalizeArray(statistics=..., side=...)`` reads.

    Every array of the training set is loaded alone and brought as far as the
    first ``NormalizeArray`` of its side in the pipeline of
    ``train_dataloader``, without augmentation: random transforms are left
    out, and so are those of whole pairs. Random is what draws in a method
    with mmcv's ``@cache_randomness``; a transform of your own that calls
    ``np.random`` without it is applied, as ``transforms`` of the entry
    tells. A random loader (its name begins with 'Load') is told
    ``random=False`` where it has that argument. All values of a channel
    count alike, so long recordings count for more than short ones.

    An entry is kept as long as its fingerprint is that of the data: the
    paths of the files, relative to the data root, size and time of change of
    each local file (of the archive that an array is in), and the transforms
    before the normalisation. A file that is copied without its time counts
    as changed.

    Args:
        cfg (Config): With ``train_dataloader``.
        force (bool): Whether to compute again what is there, up to date or
            not. Defaults to False.
        num_workers (int): Processes that load. Defaults to 0: this one.

    Returns:
        list[SideStatistics]: One per file and side named in the pipeline.

    Raises:
        ConfigError: The pipeline names no file of statistics; or a file has
            an entry of other data, and ``force`` is off.
        DatasetError: Arrays of one side differ in their channels, or none is
            readable.
        UnreadableFileError: A file is unreadable, and the data set does not
            skip such pairs.
    """
    sources = _find_sources(phase_dataset_cfgs(cfg, 'train'))
    results = []
    for (file, side), arrays in sources.items():
        fingerprint = _fingerprint(arrays)
        entry = _read_entries(file).get(side)
        up_to_date = entry and entry.get('fingerprint') == fingerprint
        if entry and not up_to_date and not force:
            raise ConfigError(
                f"'{file}' has statistics of side '{side}' from other data, "
                'other transforms, or files that were written anew since. '
                'Networks that were trained with the statistics '
                'depend on them: name another file in NormalizeArray, or '
                'replace them by --force.'
            )
        if force or not up_to_date:
            entry = _compute(side, arrays, num_workers)
            entry['fingerprint'] = fingerprint
            entries = dict(_read_entries(file), **{side: entry})
            write_text(Path(file), json.dumps(entries, indent=1) + '\n')
        computed = force or not up_to_date
        results.append(SideStatistics(file, side, computed, entry))
    return results


def _find_sources(dataset_cfgs):
    """Map (file, side of the statistics) to the arrays to read."""
    sources = defaultdict(list)
    for dataset_cfg in dataset_cfgs:
        paths = _PathsToNormalizers(dataset_cfg.get('pipeline') or ())
        if not paths.found:
            continue
        dataset = DATASETS.build(dict(dataset_cfg, pipeline=[]))
        for key, ways in paths.found.items():
            sources[key] += [
                _SideArrays(dataset, side, steps)
                for side, steps in ways.items()
            ]
    if not sources:
        raise ConfigError(
            'The pipeline of train_dataloader names no file of statistics. '
            "Add dict(type='mmcmcd.NormalizeArray', statistics="
            "'data/NAME.json', side='NAME') behind the loader of a side."
        )
    return sources


class _PathsToNormalizers:
    """What leads to each NormalizeArray that reads a file.

    Attributes:
        found (dict[tuple, dict]): By (file, side of the statistics), the
            configs of the transforms before, by side of the data (None in a
            data set of single samples).
    """

    def __init__(self, pipeline):
        self.found = defaultdict(dict)
        self._passed = defaultdict(list)
        self._walk(pipeline, (None,))

    def _walk(self, pipeline, sides):
        for cfg in pipeline:
            cls = _class_of(cfg)
            if cls is NormalizeArray and cfg.get('statistics'):
                self._note(cfg, sides)
            elif cls is SelectSide:
                sides = (cfg['side'],)
            elif cls is OnSide:
                names = cfg['sides']
                names = (names,) if isinstance(names, str) else names
                self._walk(cfg['transforms'], tuple(names))
            elif 'transforms' in cfg and not _is_random(cls):
                views = cfg['transforms']
                first = views[0] if views else []
                # Several views (MultiView) are made alike.
                self._walk(
                    first if isinstance(first, (list, tuple)) else views, sides
                )
            elif cls.__name__.startswith('Load'):
                self._pass(_without_randomness(cfg, cls), sides)
            elif not _is_random(cls):
                self._pass(cfg, sides)

    def _pass(self, cfg, sides):
        for side in sides:
            self._passed[side].append(cfg)

    def _note(self, cfg, sides):
        TRANSFORMS.build(cfg)  # refuses wrong arguments
        for side in sides:
            way = self.found[cfg['statistics'], cfg['side']]
            way.setdefault(side, list(self._passed[side]))


def _class_of(cfg):
    kind = cfg['type']
    if not isinstance(kind, str):
        return kind
    with TRANSFORMS.switch_scope_and_registry(None) as registry:
        cls = registry.get(kind)
    if cls is None:
        raise ConfigError(
            f'There is no transform {kind!r} in the default scope of this '
            'config; prefix it, e.g. mmcmcd.LoadArray.'
        )
    return cls


def _is_random(cls):
    # Where mmcv's @cache_randomness keeps the methods that it decorates.
    return bool(getattr(cls, '_methods_with_randomness', ()))


def _without_randomness(cfg, cls):
    if 'random' in inspect.signature(cls).parameters:
        return dict(cfg, random=False)
    return cfg


class _SideArrays(Dataset):
    """The moments of all arrays of one side of a data set."""

    def __init__(self, dataset, side, steps):
        self.dataset = dataset
        self.side = side
        self.steps = steps
        # The last one changes nothing; it refuses what is no array.
        self.transforms = Compose([*steps, NormalizeArray(0.0, 1.0)])
        self.skips = getattr(dataset, 'on_unreadable', 'error') == 'skip'

    def __len__(self):
        return len(self.dataset)

    def __getitem__(self, index):
        """Return :class:`_Moments`, or None for an unreadable pair."""
        # What remains random must not depend on the number of processes.
        random.seed(index)
        np.random.seed(index)
        try:
            return _Moments.of(self.transforms(self.item(index)))
        except UnreadableFileError:
            if not self.skips:
                raise
            return None

    def item(self, index):
        """What the loader of the side gets."""
        info = self.dataset.get_data_info(index)
        if self.side is None:
            return info
        if self.side not in info:
            raise ConfigError(
                f'The data have no side {self.side!r}; they have '
                f'{info.get("sides")}.'
            )
        return info[self.side]

    def describe(self):
        """All that the moments depend on; files by size and time."""
        root = self.dataset.data_root
        paths = [self.item(i).get('img_path', '') for i in range(len(self))]
        files = {split_archive_path(path)[0] or path for path in paths}
        stamps = [_stamp(file) for file in sorted(files)]
        if root:
            paths = [osp.relpath(path, root) for path in paths]
        return dict(paths=paths, stamps=stamps, transforms=self.steps)


def _stamp(file):
    try:
        status = os.stat(file)
    except OSError:  # not local, or missing: told when it is read
        return None
    return status.st_size, status.st_mtime_ns


def _fingerprint(arrays):
    text = json.dumps(
        [part.describe() for part in arrays], sort_keys=True, default=str
    )
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _compute(side, arrays, num_workers):
    """Read all arrays; return the entry without its fingerprint."""
    total, items, skipped = None, 0, 0
    print(f"Statistics of side '{side}'", file=sys.stderr)
    bar = progress_bar(sum(len(part) for part in arrays))
    for part in arrays:
        loader = DataLoader(
            part,
            batch_size=None,
            num_workers=num_workers,
            collate_fn=_as_it_is,
        )
        for moments in loader:
            bar.update()
            if moments is None:
                skipped += 1
                continue
            items += 1
            total = moments if total is None else total.merged(moments, side)
    bar.file.write('\n')
    if total is None:
        raise DatasetError(f"No array of side '{side}' is readable.")
    return dict(
        **total.describe(),
        items=items,
        skipped=skipped,
        transforms=json.loads(json.dumps(arrays[0].steps, default=str)),
    )


def _as_it_is(item):
    return item


@dataclass
class _Moments:
    """Mean and sum of squared deviations, by channel.

    Attributes:
        path (str): A file that they are from.
        count (int): Values per channel.
        mean (np.ndarray): (C,) float64.
        deviation (np.ndarray): (C,) float64.
        largest (np.ndarray): (C,), of the absolute values.
    """

    path: str
    count: int
    mean: np.ndarray
    deviation: np.ndarray
    largest: np.ndarray

    @classmethod
    def of(cls, results):
        """Of a loaded array (C, ...)."""
        rows = results['img'].flatten(1).double().numpy()
        mean = rows.mean(axis=1)
        return cls(
            results.get('img_path', 'no path'),
            rows.shape[1],
            mean,
            np.square(rows - mean[:, None]).sum(axis=1),
            np.abs(rows).max(axis=1),
        )

    def merged(self, other, side):
        """Of both together (Chan, Golub and LeVeque, 1979)."""
        if len(self.mean) != len(other.mean):
            raise DatasetError(
                f"Arrays of side '{side}' differ in their channels: "
                f'{len(self.mean)} in {self.path}, {len(other.mean)} in '
                f'{other.path}.'
            )
        count = self.count + other.count
        share = other.count / count
        step = other.mean - self.mean
        return _Moments(
            self.path,
            count,
            self.mean + step * share,
            self.deviation + other.deviation + step**2 * self.count * share,
            np.maximum(self.largest, other.largest),
        )

    def describe(self):
        """As stored; a constant channel has std 0 exactly."""
        std = np.sqrt(self.deviation / self.count)
        std[std <= _CONSTANT * self.largest] = 0
        return dict(
            mean=self.mean.tolist(), std=std.tolist(), values=self.count
        )


def _read_entries(file):
    """Entries of a file by side; none if there is no file."""
    try:
        entries = json.loads(Path(file).read_text('utf-8'))
    except FileNotFoundError:
        return {}
    except ValueError:
        entries = None
    if not isinstance(entries, dict) or not all(
        isinstance(entry, dict) for entry in entries.values()
    ):
        raise ConfigError(
            f"'{file}' is there, but holds no statistics. Remove it, or name "
            'another file in NormalizeArray.'
        )
    return entries
