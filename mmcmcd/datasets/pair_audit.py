"""Read a whole data set once and report all that is wrong with it."""

import copy
import io
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass, field

import numpy as np
from mmengine import fileio
from mmengine.registry import DATASETS
from mmengine.utils import track_parallel_progress, track_progress
from PIL import Image, UnidentifiedImageError

from mmcmcd.errors import ConfigError

from .pair_scan import list_faults
from .paired_dataset import PairedModalityDataset
from .transforms import (
    LoadImageStrict,
    LoadSketch,
    OnSide,
    SelectSide,
    SharedGeometry,
)
from .transforms.sketch import is_inverted

IGNORE_INDEX = 255
_STORED_AS = {
    '1': '1-bit',
    'F': '32-bit float',
    'I': '32-bit integer',
    'I;16': '16-bit grey',
    'I;16B': '16-bit grey',
    'L': '8-bit grey',
    'LA': '8-bit grey with alpha',
    'P': '8-bit palette',
    'RGB': '8-bit RGB',
    'RGBA': '8-bit RGBA',
}
# What loaders other than mmcmcd.LoadSketch often get wrong.
_ODD_SKETCHES = ('8-bit grey with alpha', '8-bit palette', '8-bit RGBA')


@dataclass
class SideReport:
    """What the files of one side are like.

    Depth is described in metres, over its valid pixels.

    Attributes:
        files (int): Readable files.
        sizes (dict[str, int]): Files by 'width x height'.
        stored (dict[str, int]): Files by storage, e.g. '16-bit grey'.
        minimum, maximum (float | None): Over all files.
        mean (float | None): Mean of the files' means.
        invalid (float | None): Fraction of invalid pixels; depth only.
    """

    files: int = 0
    sizes: dict = field(default_factory=dict)
    stored: dict = field(default_factory=dict)
    minimum: float | None = None
    maximum: float | None = None
    mean: float | None = None
    invalid: float | None = None


@dataclass
class AuditReport:
    """Result of :func:`audit_pairs`.

    Attributes:
        name (str): Class and place of the data set.
        pairs (int): Complete pairs.
        decoded (int): Pairs of which every file was decoded.
        sides (dict[str, SideReport]): By name of the side.
        labels (dict[int, int]): Pixels by id over all segmentation maps.
        faults (dict[str, list[str]]): Names by kind of fault.
        notes (dict[str, list[str]]): The same for what is odd, no fault.
    """

    name: str
    pairs: int = 0
    decoded: int = 0
    sides: dict = field(default_factory=dict)
    labels: dict = field(default_factory=dict)
    faults: dict = field(default_factory=dict)
    notes: dict = field(default_factory=dict)

    @property
    def clean(self):
        """bool: Whether there is no fault."""
        return not self.faults

    def to_dict(self):
        """Return plain dicts and lists, for JSON."""
        return {**asdict(self), 'clean': self.clean}

    def format(self):
        """Return the report as text for a terminal."""
        lines = [
            self.name,
            f'complete pairs: {self.pairs}, decoded: {self.decoded}',
        ]
        rows = [('side', 'files', 'width x height', 'stored as')]
        rows[0] += ('min / mean / max', 'invalid')
        for name, side in self.sides.items():
            values, invalid = '-', '-'
            if side.files:
                unit = '' if side.invalid is None else ' m'
                values = (
                    f'{side.minimum:.4g} / {side.mean:.4g} / '
                    f'{side.maximum:.4g}{unit}'
                )
            if side.invalid is not None:
                invalid = f'{side.invalid:.2%}'
            rows.append(
                (
                    name,
                    str(side.files),
                    _histogram(side.sizes),
                    _histogram(side.stored),
                    values,
                    invalid,
                )
            )
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            cells = zip(row, widths, strict=True)
            lines.append('  '.join(f'{c:{w}}' for c, w in cells).rstrip())
        if self.labels:
            ids = sorted(set(self.labels) - {IGNORE_INDEX})
            share = self.labels.get(IGNORE_INDEX, 0) / sum(
                self.labels.values()
            )
            span = f'{ids[0]}..{ids[-1]}' if ids else 'none'
            lines.append(
                f'label ids: {len(ids)} ({span}), unlabelled: {share:.2%}'
            )
        for title, table in (('note', self.notes), ('FAULT', self.faults)):
            for kind, names in table.items():
                lines.append(f'{title}: {kind}: {len(names)}')
                lines += [f'    {name}' for name in names[:5]]
                if len(names) > 5:
                    lines.append(f'    and {len(names) - 5} more')
        lines.append('no faults' if self.clean else 'FAULTY')
        return '\n'.join(lines)


def audit_pairs(dataset, max_files=None, num_workers=1, progress=False):
    """Check every pair of a data set, and decode every file.

    Files are read by the loading transforms of the data set's own pipeline
    (unchanged pixels where there are none), so whatever would stop training
    is found, for example a wrong bit depth.

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
        seen = [r['sides'][name] for r in results if name in r['sides']]
        report.sides[name] = _summarise(seen)
    report.labels = dict(sum((r['labels'] for r in results), Counter()))
    for result in results:
        for kind, detail in result['unreadable'] + result['faults']:
            report.faults.setdefault(kind, []).append(detail)
        for kind, detail in result['notes']:
            report.notes.setdefault(kind, []).append(detail)
    _find_odd_storage(report, results)
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
        for side in self.sides:
            try:
                stats = _file_stats(self.loaders[side], pair[side])
            except ConfigError:
                raise
            except Exception as error:
                result['unreadable'].append(
                    (
                        f'unreadable {side} file',
                        f'{pair["pair_id"]}: {type(error).__name__}: {error}',
                    )
                )
                continue
            result['sides'][side] = stats
            sizes[side] = stats['size']
            if stats['inverted'] is not None:
                self._check_sketch(pair, side, stats, result)
            if stats['invalid'] == 1:
                result['faults'].append(
                    (f'no valid pixel in {side}', pair['pair_id'])
                )
        if 'seg_map' in pair:
            self._check_labels(pair, sizes, result)
        if len(set(sizes.values())) > 1:
            self._check_sizes(pair, sizes, result)
        return result

    def _check_sketch(self, pair, side, stats, result):
        """Find light strokes on dark paper, and unusual storage."""
        if stats['inverted']:
            kind = 'faults' if side in self.no_inverted else 'notes'
            what = f'inverted sketch in {side} (white on black)'
            result[kind].append((what, pair['pair_id']))
        if stats['stored'] in _ODD_SKETCHES:
            what = f'{side} stored as {stats["stored"]}'
            result['notes'].append((what, pair['pair_id']))

    def _check_labels(self, pair, sizes, result):
        try:
            content = io.BytesIO(fileio.get(pair['seg_map']))
            seg_map = np.asarray(Image.open(content))
        except (OSError, SyntaxError, ValueError) as error:
            result['unreadable'].append(
                (
                    'unreadable seg_map file',
                    f'{pair["pair_id"]}: {pair["seg_map"]}: {error}',
                )
            )
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
        if is_pair and self.has_pipeline and self._sizes_do_no_harm(pair):
            result['notes'].append(entry)
        else:
            result['faults'].append(entry)

    def _sizes_do_no_harm(self, pair):
        if self.before_sharing is None:
            return True
        item = self.make_item(pair)
        for transform in self.before_sharing:
            item = transform(item)
        shapes = {item[side]['img'].shape[:2] for side in self.sides}
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
        pair = dict(pair_id=info['img_path'], img=info['img_path'])
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
    return found or [LoadImageStrict(color_type='unchanged')]


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


def _file_stats(loaders, path):
    item = dict(img_path=path)
    for transform in loaders:
        item = transform(item)
        if item is None:
            raise ValueError(f'{type(transform).__name__} returned None')
        if 'img' in item:
            break
    img = item['img']
    values, invalid, inverted = img, None, None
    if item.get('modality') == 'depth':
        values = img[img > 0]
        invalid = 1 - values.size / img.size
    elif item.get('modality') == 'sketch':
        inverted = is_inverted(img)
    return dict(
        size=img.shape[1::-1],
        stored=_stored_as(path),
        minimum=float(values.min()) if values.size else None,
        maximum=float(values.max()) if values.size else None,
        mean=float(values.mean(dtype=float)) if values.size else None,
        invalid=invalid,
        inverted=inverted,
    )


def _stored_as(path):
    content = io.BytesIO(fileio.get(path))
    try:
        mode = Image.open(content).mode
        return _STORED_AS.get(mode, mode)
    except UnidentifiedImageError:
        return path.rsplit('.', 1)[-1]


def _summarise(files):
    side = SideReport(
        files=len(files),
        sizes=dict(Counter(f'{w}x{h}' for w, h in (f['size'] for f in files))),
        stored=dict(Counter(f['stored'] for f in files)),
    )

    def known(key):
        return [f[key] for f in files if f[key] is not None]

    if known('mean'):
        side.minimum = min(known('minimum'))
        side.maximum = max(known('maximum'))
        side.mean = float(np.mean(known('mean')))
    if known('invalid'):
        side.invalid = float(np.mean(known('invalid')))
    return side


def _find_odd_storage(report, results):
    """Depth stored in two ways means two units for equal values."""
    for name, side in report.sides.items():
        if side.invalid is None or len(side.stored) < 2:
            continue
        usual = max(side.stored, key=side.stored.get)
        report.faults[f'{name} not stored as {usual} like most'] = [
            f'{r["pair_id"]}: {r["sides"][name]["stored"]}'
            for r in results
            if name in r['sides'] and r['sides'][name]['stored'] != usual
        ]


def _histogram(counts, most=3):
    top = Counter(counts).most_common()
    words = [f'{key} ({number})' for key, number in top[:most]]
    if len(top) > most:
        words.append(f'{len(top) - most} others')
    return ', '.join(words) or '-'


class _Throttled:
    """Passes on a progress bar now and then, so that logs stay short."""

    def __init__(self, stream):
        self.stream = stream
        self.redraws = stream.isatty()
        self.seconds = 0.1 if self.redraws else 10
        self.next = 0

    def write(self, text):
        if text.startswith('\r'):
            now = time.monotonic()
            if now < self.next:
                return
            self.next = now + self.seconds
            if not self.redraws:
                text = text[1:] + '\n'
        self.stream.write(text)

    def flush(self):
        self.stream.flush()


def _stream(progress):
    return _Throttled(sys.stderr) if progress else io.StringIO()
