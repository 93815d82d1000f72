"""Lists of pairs: texts, tables and JSON, one row a pair."""

import csv
import io
import json
import os.path as osp

from mmengine import fileio

from mmcmcd.errors import ConfigError, DatasetError

from .file_index import FileIndex


class ListedRow(dict):
    """A row of a list.

    Args:
        row (dict): Its values.
        where (str): Its place in the list, e.g. 'line 3'.
    """

    def __init__(self, row, where):
        super().__init__(row)
        self.where = where


def read_rows(sides, ann_file='', index=None, howto=''):
    """Read a list or annotation, or list the folders.

    Args:
        sides (dict[str, FileSpec]): By name, at least two.
        ann_file (str): ``''`` (take what is in the folders), or a ``.txt``,
            ``.csv`` or ``.json`` file, see :class:`PairedModalityDataset`.
        index (FileIndex, optional): File listing to use.
        howto (str): How to get the data; ends the message that the list is
            missing.

    Returns:
        tuple[list[dict], dict]: One row a pair, and the ``metainfo`` of the
        annotation.

    Raises:
        ConfigError: The list is of an unknown kind.
        DatasetError: A folder or list is missing, or cannot be understood.
    """
    index = index or FileIndex()
    if not ann_file:
        return _rows_from_folders(sides, index), {}
    kind = osp.splitext(ann_file)[1].lower()
    if kind not in ('.txt', '.csv', '.json'):
        raise ConfigError(
            f"ann_file '{ann_file}' ends with '{kind}'; expected .txt (one "
            'id a line), .csv or .json.'
        )
    text = read_list(ann_file, index.backend_args, howto)
    if kind == '.json':
        return _rows_from_json(text, ann_file)
    if kind == '.csv':
        return rows_from_csv(text, ann_file), {}
    return _rows_from_list(text, sides, ann_file), {}


def read_list(ann_file, backend_args=None, howto=''):
    """Read the text of a list.

    Args:
        ann_file (str): The list.
        backend_args (dict, optional): Of the ``mmengine.fileio`` backend.
        howto (str): How to get the data; ends the message that the list is
            missing.

    Returns:
        str: The text.

    Raises:
        DatasetError: The list is missing, or not encoded as UTF-8.
    """
    try:
        # Spreadsheets put a byte order mark before the header.
        return fileio.get_text(ann_file, 'utf-8-sig', backend_args)
    except FileNotFoundError:
        raise DatasetError(describe_missing_list(ann_file, howto)) from None
    except OSError as error:
        raise DatasetError(
            f"The list '{ann_file}' cannot be read: {error}."
        ) from error
    except UnicodeDecodeError as error:
        line = error.object.count(b'\n', 0, error.start) + 1
        raise DatasetError(
            f"'{ann_file}', line {line}: not encoded as UTF-8. Save the file "
            'as UTF-8.'
        ) from None


def _rows_from_folders(sides, index):
    ids = set()
    for spec in sides.values():
        try:
            names = index.walk(spec.folder)
        except (FileNotFoundError, NotADirectoryError):
            raise DatasetError(
                f"The folder of side '{spec.name}', '{spec.folder}', does "
                'not exist. Check data_root and the folder of this side in '
                '`sides`.'
            ) from None
        except OSError as error:
            raise DatasetError(
                f"The folder of side '{spec.name}', '{spec.folder}', cannot "
                f'be listed: {error}.'
            ) from error
        own = {spec.pair_id(n) for n in names if spec.fits(n)}
        if not own:
            there = ', '.join(names[:5]) or 'no file at all'
            raise DatasetError(
                f"No file of side '{spec.name}' in '{spec.folder}' ends "
                f'with {" or ".join(map(repr, spec.suffixes))} (there: '
                f'{there}). Correct the suffix or folder of this side.'
            )
        ids |= own
    return [dict(pair_id=pair_id) for pair_id in sorted(ids)]


def _rows_from_list(text, sides, ann_file):
    rows = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        fields = line.split('\t') if '\t' in line else line.split()
        fields = [field.strip() for field in fields]
        if len(fields) == 1:
            row = dict(pair_id=fields[0])
        elif len(fields) == len(sides):
            row = dict(zip(sides, fields, strict=True))
        else:
            raise DatasetError(
                f"'{ann_file}', line {number}: {len(fields)} fields, "
                f'expected one id or {len(sides)} paths '
                f'({", ".join(sides)}). Separate paths that contain blanks '
                'by tabs.'
            )
        rows.append(ListedRow(row, f'line {number}'))
    widths = {len(row) for row in rows}
    if len(widths) > 1:
        raise DatasetError(
            f"'{ann_file}' has lines with one id and lines with paths; use "
            'one of the two.'
        )
    return rows


def rows_from_csv(text, ann_file):
    """Parse a table with a header.

    Args:
        text (str): Content of the table.
        ann_file (str): Its name, for messages.

    Returns:
        list[dict[str, str]]: One dict a row.

    Raises:
        DatasetError: A row has more cells than the header, a name stands in
            the header twice, or it is no table.
    """
    reader = csv.DictReader(io.StringIO(text), skipinitialspace=True)
    try:
        header = [name.strip() for name in reader.fieldnames or ()]
        twice = {name for name in header if header.count(name) > 1}
        if twice:
            raise DatasetError(
                f"'{ann_file}' has the columns {sorted(twice)} more than "
                'once. Which one counts? Rename or remove the others.'
            )
        return [_row_from_csv(row, reader, ann_file) for row in reader]
    except csv.Error as error:
        raise DatasetError(
            f"'{ann_file}', line {reader.line_num}: no table ({error})."
        ) from None


def _row_from_csv(row, reader, ann_file):
    # DictReader files surplus cells under None and fills up with None.
    if None in row:
        raise DatasetError(
            f"'{ann_file}', line {reader.line_num}: more cells than the "
            f'header has ({len(reader.fieldnames)}). Quote values that '
            'contain commas.'
        )
    return ListedRow(
        {k.strip(): (v or '').strip() for k, v in row.items()},
        f'line {reader.line_num}',
    )


def _rows_from_json(text, ann_file):
    try:
        content = json.loads(text, object_pairs_hook=_unique_keys)
    # Beside bad JSON: too many digits of a number, too many brackets.
    except (ValueError, RecursionError) as error:
        raise DatasetError(
            f"'{ann_file}' is not valid JSON: {error}."
        ) from None
    metainfo = {}
    if isinstance(content, dict):
        metainfo = content.get('metainfo', {})
        content = content.get('data_list')
    if not isinstance(content, list) or not all(
        isinstance(row, dict) for row in content
    ):
        raise DatasetError(
            f"'{ann_file}' must hold a list of objects, or an object whose "
            "'data_list' is one; each with a key per side."
        )
    if not isinstance(metainfo, dict) or not _are_texts(
        metainfo.get('classes', [])
    ):
        raise DatasetError(
            f"'{ann_file}': 'metainfo' must be an object, and its 'classes', "
            'if any, a list of names.'
        )
    return [
        ListedRow(row, f'entry {number}')
        for number, row in enumerate(content, 1)
    ], metainfo


def _unique_keys(pairs):
    """Refuse an object that has a key twice, of which one would win."""
    content = dict(pairs)
    if len(content) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = sorted({key for key in keys if keys.count(key) > 1})
        raise ValueError(f'an object has the keys {twice} more than once')
    return content


def _are_texts(values):
    return isinstance(values, list) and all(
        isinstance(value, str) for value in values
    )


def describe_missing_list(ann_file, howto=''):
    """Message that a list is missing, with the lists that are there.

    Args:
        ann_file (str): The list.
        howto (str): How to get the data; ends the message.

    Returns:
        str: The message.
    """
    folder = osp.dirname(ann_file) or '.'
    try:
        names = sorted(fileio.list_dir_or_file(folder, list_dir=False))
    except OSError:
        names = []
    lists = [n for n in names if n.endswith(('.txt', '.csv', '.json'))]
    there = ', '.join(lists[:8]) or 'no list at all'
    return (
        f"The list '{ann_file}' does not exist. In its folder: {there}. "
        f'Correct ann_file (relative to data_root). {howto}'.rstrip()
    )
