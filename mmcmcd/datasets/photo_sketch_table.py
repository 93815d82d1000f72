"""The table of photo-sketch pairs, ``pairs.csv``.

One row a sketch, with the columns ``photo`` and ``sketch`` (paths relative to
the data root), ``class`` and ``split``.
"""

import posixpath
import re
import zlib
from collections import Counter, defaultdict

from mmcmcd.errors import ConfigError, DatasetError

from .class_labels import shorten
from .csv_tables import read_csv_table

COLUMNS = ('photo', 'sketch', 'class', 'split')
SPLITS = ('train', 'val', 'test')
# Every fifth photo, about.
_HELD_OUT = 5
# Folders of The Sketchy Database that say what a file shows, not of what.
_ABOVE = re.compile(r'(rendered_256x256/)?(256x256/)?(photo|sketch)/')
_RENDERING = re.compile(r'(?<![^/])tx_\d+/')
_WRITE_IT = (
    f'Expected a header {",".join(COLUMNS)} and one row a sketch. Correct it, '
    'or write it anew with tools/dataset_converters/sketchy.py.'
)


def image_id(path):
    """Name an image by its path without suffix, e.g. 'cat/n02121620_1-2'.

    The same photo has the same id in all renderings of a data set: levels
    ``tx_<digits>``, and ``photo`` or ``sketch`` (also below ``256x256``) at
    the beginning, are left out.

    Args:
        path (str): Path with ``/``, relative to the data root.

    Returns:
        str: The id.
    """
    name = posixpath.splitext(posixpath.normpath(path))[0]
    below = name[match.end() :] if (match := _ABOVE.match(name)) else name
    return _RENDERING.sub('', below)


def read_table(ann_file, backend_args=None, howto=''):
    """Read and check a table.

    Args:
        ann_file (str): The table.
        backend_args (dict, optional): Of the ``mmengine.fileio`` backend.
        howto (str): How to get the data; ends the message that the table is
            missing.

    Returns:
        list[dict[str, str]]: One dict a row, with :data:`COLUMNS`.

    Raises:
        DatasetError: The table is missing, empty, lacks a column or a value,
            has an unknown split, or has a photo in two splits.
    """
    rows = read_csv_table(ann_file, COLUMNS, backend_args, howto, _WRITE_IT)
    problems = find_problems(rows)
    if problems:
        raise DatasetError(f"'{ann_file}': {'; '.join(problems)}. {_WRITE_IT}")
    return rows


def find_problems(rows):
    """Look for what makes a table useless.

    Args:
        rows (list[dict[str, str]]): With :data:`COLUMNS`.

    Returns:
        list[str]: One text for every kind of problem; empty if all is well.
    """
    problems = []
    empty = [
        f"line {line} ('{name}')"
        for line, row in enumerate(rows, 2)
        for name in COLUMNS
        if not row[name]
    ]
    if empty:
        problems.append(f'{len(empty)} empty values: {shorten(empty)}')
    unknown = Counter(row['split'] for row in rows if row['split'])
    for split in SPLITS:
        unknown.pop(split, None)
    if unknown:
        names = [f"'{name}' ({count})" for name, count in unknown.items()]
        problems.append(
            f'{unknown.total()} rows of an unknown split: {shorten(names)}; '
            f'expected {", ".join(SPLITS)}'
        )
    splits = defaultdict(set)
    for row in rows:
        if row['photo'] and row['split']:
            splits[image_id(row['photo'])].add(row['split'])
    leaks = [
        f'{photo} ({", ".join(sorted(names))})'
        for photo, names in splits.items()
        if len(names) > 1
    ]
    if leaks:
        problems.append(
            f'{len(leaks)} photos are in two splits, so what is tested was '
            f'trained on: {shorten(leaks)}'
        )
    return problems


def choose_split(rows, split, ann_file):
    """The rows of one split.

    ``'fit'`` and ``'val'`` serve to tune settings without the test set. If
    the table has no row 'val', they divide the photos of 'train' about 4 : 1
    by a hash of :func:`image_id`, which is our choice; otherwise 'fit' is
    'train'.

    Args:
        rows (list[dict[str, str]]): Of :func:`read_table`.
        split (str): 'train', 'test', 'fit' or 'val'.
        ann_file (str): The table; for messages.

    Returns:
        list[dict[str, str]]: At least one row.

    Raises:
        ConfigError: The split is unknown.
        DatasetError: It has no row.
    """
    if split not in ('fit', *SPLITS):
        raise ConfigError(
            f"split='{split}' is unknown; expected 'train', 'test', or 'fit' "
            "and 'val' (for tuning)."
        )
    counts = Counter(row['split'] for row in rows)
    if split in ('fit', 'val') and not counts['val']:
        held_out = split == 'val'
        chosen = [
            row
            for row in rows
            if row['split'] == 'train' and _is_held_out(row) == held_out
        ]
    else:
        name = 'train' if split == 'fit' else split
        chosen = [row for row in rows if row['split'] == name]
    if not chosen:
        there = ', '.join(f'{k} ({n})' for k, n in sorted(counts.items()))
        raise DatasetError(
            f"'{ann_file}' has no row for split '{split}'; it has {there}. "
            'Choose another split.'
        )
    return chosen


def _is_held_out(row):
    return zlib.crc32(image_id(row['photo']).encode()) % _HELD_OUT == 0
