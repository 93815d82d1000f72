"""Read a whole data set once and report all that is wrong with it."""

import copy
import io
import os.path as osp
import sys
from collections import Counter

import numpy as np
from mmengine.registry import DATASETS
from mmengine.utils import track_parallel_progress, track_progress
from PIL import Image

from mmcmcd.errors import ConfigError, UnreadableFileError

from .audit_report import IGNORE_INDEX, AuditReport, summarise
from .file_facts import file_facts
from .label_maps import read_label_map
from .pair_scan import list_faults
from .paired_dataset import PairedModalityDataset
from .progress import ThrottledStream
from .transforms import (
    LoadImageStrict,
    LoadSketch,
    OnSide,
    SelectSide,
    SharedGeometry,
)

# What loaders other than mmcmcd.LoadSketch often get wrong.
_ODD_SKETCHES = ('8-bit grey with alpha', '8-bit palette', '8-bit RGBA')
# Seconds; durations in lists are rounded.
_DURATION_SLACK = 0.05


def audit_pairs(dataset, max_files=None, num_workers=1, progress=False):
    """Check every pair of a data set, and decode every file.

    Files are read by the loading transforms of the data set's own pipeline
    (images without any as unchanged pixels; other files without any are not
    read), so whatever would stop training is found, for example a wrong bit
    depth or a silent clip. Audio is described as it is stored, whatever
    segment its loader takes, and of several frames all are read.

    Args:
        dataset (Dataset | dict): A data set or the config of one:
            :class:`PairedModalityDataset`, or one of mmseg's kind with
            ``img_path`` and ``seg_map_path``.
        max_files (int, optional): Decode at most so many pairs, spread
            evenly. Defaults to None: all.
        num_workers (int): Processes. Defaults to 1.
        progress (bool): Whether to show progress on stderr.

    Returns:
        AuditReport: All faults, not only the first.

    Raises:
        ConfigError: The data set is of another kind.
        DatasetError: The data root, a folder or the list is missing.
    """
    if isinstance(dataset, dict):
        dataset = _build(dataset)
    pairs, faults = _pairs_of(dataset)
    report = AuditReport(_name(dataset), pairs=len(pairs), faults=faults)
    if not pairs:
        report.faults['no complete pair'] = [_name(dataset)]
    chosen = _spread(pairs, max_files)
    check = _PairCheck(dataset)
    if num_workers > 1:
        results = track_parallel_progress(
            check, chosen, num_workers, chunksize=8, file=_stream(progress)
        )
    else:
        results = track_progress(check, chosen, file=_stream(progress))
    report.decoded = sum(not result['unreadable'] for result in results)
    for name in check.sides:
        seen = [facts for r in results for facts in r['sides'].get(name, ())]
        report.sides[name] = summarise(seen)
    report.labels = dict(sum((r['labels'] for r in results), Counter()))
    for result in results:
        for kind, detail in result['unreadable'] + result['faults']:
            report.faults.setdefault(kind, []).append(detail)
        for kind, detail in result['notes']:
            report.notes.setdefault(kind, []).append(detail)
    for name, side in report.sides.items():
        # Depth stored in two ways means two units for equal values.
        if side.kind == 'depth':
            _find_odd(report, results, name, 'stored', '{} not stored as {}')
        # No batch takes two numbers of channels.
        if side.kind == 'array':
            _find_odd(
                report, results, name, 'channels', '{} not of {} channels'
            )
    return report


class _PairCheck:
    """Decodes one pair; picklable, to be run by other processes."""

    def __init__(self, dataset):
        transforms = dataset.pipeline.transforms
        self.sides = getattr(dataset, 'sides', ('img',))
        self.loaders = {s: _loaders(transforms, s) for s in self.sides}
        self.no_inverted = [
            side for side in self.sides if _accept_inverted(self.loaders[side])
        ]
        self.before_sharing = _before_sharing(transforms)
        self.has_pipeline = bool(transforms)
        self.make_item = getattr(dataset, 'to_item', None)
        meta = dataset.metainfo
        label_map = meta.get('label_map') or ()
        # A label map renames stored ids, of which it knows all.
        self.num_ids = len(label_map) or len(meta.get('classes') or ())
        self.zero_is_void = meta.get('reduce_zero_label', False)

    def __call__(self, pair):
        result = dict(
            pair_id=pair['pair_id'],
            sides={},
            labels=Counter(),
            unreadable=[],
            faults=[],
            notes=[],
        )
        sizes = {}
        items = self._items(pair)
        for side in self.sides:
            loaders = self.loaders[side] or _default_loaders(pair[side])
            if loaders is None:
                what = f'{side} not read: no transform of the pipeline does'
                result['notes'].append(
                    (what, f'{pair["pair_id"]}: {pair[side]}')
                )
                continue
            for item in _frames(items[side]):
                facts = self._read(loaders, item, side, result)
                if facts is None:
                    continue
                result['sides'].setdefault(side, []).append(facts)
                if facts.size is not None:
                    sizes[side] = facts.size
        if 'seg_map' in pair:
            self._check_labels(pair, sizes, result)
        if len(set(sizes.values())) > 1 and not result['unreadable']:
            self._check_sizes(pair, sizes, result)
        return result

    def _items(self, pair):
        """What the loaders of every side get."""
        if self.make_item is not None:
            return self.make_item(pair)
        return dict(img=pair['item'])

    def _read(self, loaders, item, side, result):
        """Return the facts of one file, None if it is unreadable."""
        pair_id, listed = result['pair_id'], item.get('duration')
        try:
            facts = file_facts(loaders, item)
        except ConfigError:
            raise
        except Exception as error:
            result['unreadable'].append(
                (
                    f'unreadable {side} file',
                    f'{pair_id}: {type(error).__name__}: {error}',
                )
            )
            return None
        if facts.inverted is not None:
            self._check_sketch(pair_id, side, facts, result)
        if facts.invalid == 1:
            result['faults'].append((f'no valid pixel in {side}', pair_id))
        where = f'{pair_id}: {facts.path}'
        if facts.not_finite:
            what = f'values of {side} that are not finite'
            detail = f'{where}: {facts.not_finite} of them'
            result['faults'].append((what, detail))
        if facts.clipped:
            result['notes'].append((f'clipped {side}', where))
        if facts.silent:
            result['notes'].append((f'silent {side}', where))
        if facts.kind == 'audio' and listed is not None:
            self._check_duration(listed, facts, where, result)
        return facts

    @staticmethod
    def _check_duration(listed, facts, where, result):
        """Segments are drawn by the duration of a list."""
        lasts = facts.length / facts.rate
        if abs(lasts - listed) > _DURATION_SLACK:
            result['notes'].append(
                (
                    'duration of sound differs from the list',
                    f'{where}: {lasts:.2f} s, listed {listed:.2f} s',
                )
            )

    def _check_sketch(self, pair_id, side, facts, result):
        """Find light strokes on dark paper, and unusual storage."""
        if facts.inverted:
            kind = 'faults' if side in self.no_inverted else 'notes'
            what = f'inverted sketch in {side} (white on black)'
            result[kind].append((what, pair_id))
        if facts.stored in _ODD_SKETCHES:
            what = f'{side} stored as {facts.stored}'
            result['notes'].append((what, pair_id))

    def _check_labels(self, pair, sizes, result):
        try:
            seg_map = read_label_map(pair['seg_map'])
        except UnreadableFileError as error:
            entry = 'unreadable seg_map file', f'{pair["pair_id"]}: {error}'
            result['unreadable'].append(entry)
            return
        if seg_map.ndim != 2:
            result['faults'].append(
                (
                    'label map is not one channel of ids',
                    f'{pair["pair_id"]}: shape {seg_map.shape}',
                )
            )
            return
        sizes['seg_map'] = seg_map.shape[::-1]
        ids, counts = np.unique(seg_map, return_counts=True)
        ids, counts = ids.tolist(), counts.tolist()
        result['labels'] = Counter(dict(zip(ids, counts, strict=True)))
        top = self.num_ids + self.zero_is_void
        wrong = [i for i in ids if i >= top and i != IGNORE_INDEX]
        if self.num_ids and wrong:
            result['faults'].append(
                (
                    f'label ids outside 0..{top - 1} and {IGNORE_INDEX}',
                    f'{pair["pair_id"]}: {wrong[:5]}',
                )
            )

    def _check_sizes(self, pair, sizes, result):
        """Sides may differ only if the pipeline makes them equal in time.

        An image and its label map never may.
        """
        words = ', '.join(f'{k} {w}x{h}' for k, (w, h) in sizes.items())
        entry = ('sizes differ within a pair', f'{pair["pair_id"]}: {words}')
        is_pair = self.make_item is not None
        if (
            is_pair
            and self.has_pipeline
            and self._sizes_do_no_harm(pair, set(sizes) & set(self.sides))
        ):
            result['notes'].append(entry)
        else:
            result['faults'].append(entry)

    def _sizes_do_no_harm(self, pair, images):
        if self.before_sharing is None:
            return True
        item = self.make_item(pair)
        for transform in self.before_sharing:
            item = transform(item)
        shapes = {item[side]['img'].shape[:2] for side in images}
        if 'gt_seg_map' in item:
            shapes.add(item['gt_seg_map'].shape[:2])
        return len(shapes) == 1


def _build(cfg):
    cfg = dict(cfg)
    cls = cfg['type']
    if isinstance(cls, str):
        cls = DATASETS.get(cls)
    if isinstance(cls, type) and issubclass(cls, PairedModalityDataset):
        cfg.update(strict=False, lazy_init=True)
    return DATASETS.build(cfg)


def _pairs_of(dataset):
    """Return the pairs with their files, and the faults found so far."""
    if isinstance(dataset, PairedModalityDataset):
        pairs, faults = dataset.scan()
        return pairs, {kind: list_faults(f) for kind, f in faults.items()}
    pairs = []
    for i in range(len(dataset)):
        info = dataset.get_data_info(i)
        if 'img_path' not in info:
            raise ConfigError(
                f'{type(dataset).__name__} can not be audited; expected a '
                'PairedModalityDataset, or items with img_path (and '
                'seg_map_path).'
            )
        path = info['img_path']
        pair = dict(pair_id=path, img=path, item=info)
        if 'seg_map_path' in info:
            pair['seg_map'] = info['seg_map_path']
        pairs.append(pair)
    return pairs, {}


def _name(dataset):
    where = dataset.ann_file or dataset.data_root or '.'
    return f'{type(dataset).__name__} in {where}'


def _spread(pairs, max_files):
    if max_files is None or max_files >= len(pairs):
        return pairs
    index = np.linspace(0, len(pairs) - 1, max_files).round().astype(int)
    return [pairs[i] for i in index]


def _loaders(transforms, side):
    """Transforms that one side meets first, in order.

    Pairs are loaded by ``OnSide``; a pipeline of single images follows
    ``SelectSide``, or starts at once.
    """
    if side == 'img':
        return list(transforms)
    found = []
    for number, transform in enumerate(transforms):
        if isinstance(transform, OnSide) and side in transform.sides:
            found += transform.transforms
        elif isinstance(transform, SelectSide) and side == transform.side:
            return list(transforms[number + 1 :])
    return found


def _default_loaders(path):
    """Read an image that nothing loads; None for other kinds of files."""
    if osp.splitext(path)[1].lower() in Image.registered_extensions():
        return [LoadImageStrict(color_type='unchanged')]
    return None


def _frames(item):
    """The item itself, or one for each of its frames."""
    frames = item.get('frames') or [item['img_path']]
    return [{**item, 'img_path': path} for path in frames]


def _accept_inverted(loaders):
    """Let inverted sketches be read as they are; tell if they were refused.

    The audit tells an inverted sketch from an unreadable file.
    """
    refused = False
    for number, loader in enumerate(loaders):
        if isinstance(loader, LoadSketch):
            refused |= loader.on_inverted == 'error'
            loaders[number] = copy.copy(loader)
            loaders[number].on_inverted = 'keep'
    return refused


def _before_sharing(transforms):
    """What comes before all sides must have one size; None if nothing."""
    for number, transform in enumerate(transforms):
        if isinstance(transform, SharedGeometry):
            return list(transforms[:number])
    return None


def _find_odd(report, results, side, key, what):
    """Report files of one side that differ in one fact from most."""
    found = [
        (r['pair_id'], facts)
        for r in results
        for facts in r['sides'].get(side, ())
    ]
    counts = Counter(getattr(facts, key) for _, facts in found)
    if len(counts) < 2:
        return
    usual = counts.most_common(1)[0][0]
    report.faults[f'{what.format(side, usual)} like most'] = [
        f'{pair_id}: {getattr(facts, key)}: {facts.path}'
        for pair_id, facts in found
        if getattr(facts, key) != usual
    ]


def _stream(progress):
    return ThrottledStream(sys.stderr) if progress else io.StringIO()
