"""What an audit of pairs found, and how it is written down."""

from collections import Counter
from dataclasses import asdict, dataclass, field

import numpy as np

IGNORE_INDEX = 255


@dataclass
class SideReport:
    """What the files of one side are like.

    Depth is described in metres, over its valid pixels.

    Attributes:
        kind (str | None): 'image', 'depth', 'sketch', 'audio' or 'array';
            None if no file is readable.
        files (int): Readable files.
        sizes (dict[str, int]): Files by 'width x height'; images only.
        shapes (dict[str, int]): Files by channels and space, e.g. '6 x T',
            where T is time; audio and arrays only.
        rates (dict[str, int]): Files by samples per second, as far as known.
        lengths (dict[str, float]): ``minimum``, ``mean`` and ``maximum``
            along T, in seconds where rates are known, else in samples, and
            how many ``different`` ones; audio and arrays only.
        stored (dict[str, int]): Files by storage, e.g. '16-bit grey'.
        minimum, maximum (float | None): Over all files.
        mean (float | None): Mean of the files' means.
        invalid (float | None): Fraction of invalid pixels; depth only.
    """

    kind: str | None = None
    files: int = 0
    sizes: dict = field(default_factory=dict)
    shapes: dict = field(default_factory=dict)
    rates: dict = field(default_factory=dict)
    lengths: dict = field(default_factory=dict)
    stored: dict = field(default_factory=dict)
    minimum: float | None = None
    maximum: float | None = None
    mean: float | None = None
    invalid: float | None = None

    @property
    def has_time(self):
        """bool: Whether its files are audio or arrays."""
        return self.kind in ('audio', 'array')


def summarise(files):
    """Sum up the files of one side.

    Args:
        files (list[FileFacts]): Of the readable files.

    Returns:
        SideReport: The summary.
    """
    side = SideReport(
        kind=files[0].kind if files else None,
        files=len(files),
        sizes=_count(f'{f.size[0]}x{f.size[1]}' for f in files if f.size),
        shapes=_count(f.layout for f in files if f.layout),
        rates=_count(f'{f.rate:g}' for f in files if f.rate),
        stored=_count(f.stored for f in files),
    )

    def known(key):
        values = (getattr(f, key) for f in files)
        return [value for value in values if value is not None]

    if known('mean'):
        side.minimum = min(known('minimum'))
        side.maximum = max(known('maximum'))
        side.mean = float(np.mean(known('mean')))
    if known('invalid'):
        side.invalid = float(np.mean(known('invalid')))
    if known('length'):
        in_seconds = len(known('rate')) == len(files)
        lengths = [
            f.length / f.rate if in_seconds else f.length for f in files
        ]
        side.lengths = dict(
            minimum=min(lengths),
            mean=float(np.mean(lengths)),
            maximum=max(lengths),
            different=len(set(lengths)),
            unit='s' if in_seconds else 'samples',
        )
    return side


def _count(values):
    return dict(Counter(values))


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
        images = {k: s for k, s in self.sides.items() if not s.has_time}
        arrays = {k: s for k, s in self.sides.items() if s.has_time}
        lines = [
            self.name,
            f'complete pairs: {self.pairs}, decoded: {self.decoded}',
            *(_image_table(images) if images else ()),
            *(_array_table(arrays) if arrays else ()),
        ]
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


def _image_table(sides):
    rows = [
        (
            'side',
            'files',
            'width x height',
            'stored as',
            'min / mean / max',
            'invalid',
        )
    ]
    for name, side in sides.items():
        invalid = '-' if side.invalid is None else f'{side.invalid:.2%}'
        unit = '' if side.invalid is None else ' m'
        rows.append(
            (
                name,
                str(side.files),
                _histogram(side.sizes),
                _histogram(side.stored),
                _values(side, unit),
                invalid,
            )
        )
    return _aligned(rows)


def _array_table(sides):
    rows = [
        (
            'side',
            'files',
            'shape',
            'per second',
            'length, min / mean / max',
            'stored as',
            'min / mean / max',
        )
    ]
    for name, side in sides.items():
        length = side.lengths
        rows.append(
            (
                name,
                str(side.files),
                _histogram(side.shapes),
                _histogram(side.rates),
                '{minimum:.4g} / {mean:.4g} / {maximum:.4g} {unit} '
                '({different} different)'.format(**length),
                _histogram(side.stored),
                _values(side),
            )
        )
    return _aligned(rows)


def _values(side, unit=''):
    if not side.files or side.mean is None:
        return '-'
    return f'{side.minimum:.4g} / {side.mean:.4g} / {side.maximum:.4g}{unit}'


def _aligned(rows):
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        '  '.join(
            f'{cell:{width}}' for cell, width in zip(row, widths, strict=True)
        ).rstrip()
        for row in rows
    ]


def _histogram(counts, most=3):
    top = Counter(counts).most_common()
    words = [f'{key} ({number})' for key, number in top[:most]]
    if len(top) > most:
        words.append(f'{len(top) - most} others')
    return ', '.join(words) or '-'
