"""Find the pairs of a data set on disk, and all that is wrong with them.

Nothing here raises on a faulty pair: faults are collected by kind, so that
the data set can refuse or drop them and the audit can list them.
"""

import csv
import io
import json
import os.path as osp
from collections import defaultdict

from mmengine import fileio

from mmcmcd.errors import ConfigError, DatasetError

from .archives import list_arrays, split_archive_path

_EMPTY = ('', None)


class FileIndex:
    """Answers "does this file exist" by listing each folder only once.

    An archive is a folder of arrays, see :mod:`mmcmcd.datasets.archives`.

    Args:
        backend_args (dict, optional): Of the ``mmengine.fileio`` backend.
    """

    def __init__(self, backend_args=None):
        self.backend_args = backend_args
        self._names = {}

    def walk(self, folder):
        """List the files in ``folder`` and below, relative, sorted.

        Raises:
            FileNotFoundError: There is no such folder.
            UnreadableFileError: It is a damaged archive.
        """
        archive, group = split_archive_path(folder)
        if archive:
            found = _arrays_below(archive, group)
        else:
            found = sorted(
                name.replace('\\', '/')
                for name in fileio.list_dir_or_file(
                    folder,
                    list_dir=False,
                    recursive=True,
                    backend_args=self.backend_args,
                )
            )
        names = {folder: []}
        for name in found:
            parent, base = osp.split(name)
            key = osp.join(folder, parent) if parent else folder
            names.setdefault(key, []).append(base)
        self._names.update((k, _by_lower_case(v)) for k, v in names.items())
        return found

    def exists(self, path):
        """Whether the file is there (hidden files do not count)."""
        return path in self.in_any_case(path)

    def in_any_case(self, path):
        """The files whose names differ from this at most by case."""
        folder, name = osp.split(path)
        if folder not in self._names:
            self._list(folder)
        names = self._names[folder].get(name.lower(), ())
        return [path[: len(path) - len(name)] + found for found in names]

    def _list(self, folder):
        self._names[folder] = {}
        archive, _ = split_archive_path(folder)
        try:
            if archive:
                self.walk(archive)  # its groups, too: it is read but once
                return
            names = sorted(
                fileio.list_dir_or_file(
                    folder or '.',
                    list_dir=False,
                    backend_args=self.backend_args,
                )
            )
        except (FileNotFoundError, NotADirectoryError):
            return
        self._names[folder] = _by_lower_case(names)


def _arrays_below(archive, group):
    """Names of the arrays in a group of an archive, relative to it."""
    names = list_arrays(archive)
    if not group:
        return names
    below = f'{group}/'
    names = [name[len(below) :] for name in names if name.startswith(below)]
    if not names:
        raise FileNotFoundError(f'{archive} has no group {group}')
    return names


def _by_lower_case(names):
    groups = defaultdict(list)
    for name in names:
        groups[name.lower()].append(name)
    return dict(groups)


class FileSpec:
    """Where the files of one side are: ``<root>/<folder>/<id><suffix>``.

    The folder may be an archive, or a group in one.

    Args:
        name (str): Side, or ``'seg_map'``.
        root (str): Data root.
        folder (str): Folder below the root, or an absolute one.
        suffix (str | list[str]): What follows the id in the file name;
            several are alternatives, of which one must exist. '.jpg' stands
            for '.JPG', too.

    Attributes:
        whole_names (bool): Whether an id is the whole name of a file, with
            its suffix. Without a partner to find, it may as well tell
            'a.jpg' from 'a.png'.
    """

    def __init__(self, name, root, folder='', suffix=()):
        self.name = name
        self.folder = osp.join(root, folder) if folder else root
        self.suffixes = (suffix,) if isinstance(suffix, str) else tuple(suffix)
        self.whole_names = False

    def __str__(self):
        suffix = '|'.join(self.suffixes)
        stem = '<name>' if self.whole_names else '<id>'
        return f'{self.name} = {osp.join(self.folder, stem)}{suffix}'

    def path(self, name):
        """Path of a file that is named in a list or annotation."""
        return osp.join(self.folder, name)

    def fits(self, name):
        """Whether ``name`` has one of the suffixes."""
        return any(_ends_with(name, suffix) for suffix in self.suffixes)

    def pair_id(self, name):
        """``name`` without suffix, or without extension if none fits."""
        if self.whole_names:
            return name
        for suffix in self.suffixes:
            if _ends_with(name, suffix):
                return name[: len(name) - len(suffix)]
        return osp.splitext(name)[0]

    def candidates(self, pair_id, index):
        """The existing files of this id, at best exactly one."""
        stem = self.path(pair_id)
        if self.whole_names:
            return [stem] if self.fits(stem) and index.exists(stem) else []
        found = {
            path: None
            for suffix in self.suffixes
            for path in index.in_any_case(stem + suffix)
            if path.startswith(stem) and _ends_with(path, suffix)
        }
        return list(found)


def _ends_with(name, suffix):
    """Whether a name ends so, its extension in upper or lower case."""
    end = name[len(name) - len(suffix) :]
    rest, dot, extension = suffix.rpartition('.')
    start = len(rest + dot)
    if not dot:
        return end == suffix
    return (
        end[:start] == rest + dot and end[start:].lower() == extension.lower()
    )


def find_pairs(rows, sides, seg_map=None, index=None, ann_file=''):
    """Turn the rows of a list into pairs of existing files.

    A file is looked for under the name that the row gives, otherwise under
    ``folder/<id><suffix>``.

    Args:
        rows (list[dict]): Of :func:`read_rows`.
        sides (dict[str, FileSpec]): By name, at least two.
        seg_map (FileSpec, optional): Segmentation maps.
        index (FileIndex, optional): File listing to use.
        ann_file (str): Where the rows come from; for messages only.

    Returns:
        tuple[list[dict], dict[str, dict[str, str]]]: The complete pairs
        (keys ``pair_id``, every side's path, and ``group_id``, ``label``,
        ``seg_map`` where known), and by kind of fault the faulty ids, each
        with the path that a row gives in vain, or ''.

    Raises:
        DatasetError: Nothing says where the files of a side are.
    """
    index = index or FileIndex()
    columns = {key for row in rows for key in row}
    specs = dict(sides)
    if seg_map is not None:
        specs['seg_map'] = seg_map
    for name, spec in specs.items():
        if rows and name not in columns and not spec.suffixes:
            raise DatasetError(
                f"'{ann_file}' has no column '{name}', and no suffix says "
                f'how its files are named. Columns are {sorted(columns)}. '
                'Rename the column or the side, or give the side a suffix.'
            )
    pairs, faults, seen = [], defaultdict(dict), set()
    for number, row in enumerate(rows, 1):
        pair_id = str(row.get('pair_id', ''))
        if row.get('pair_id') in _EMPTY:
            pair_id = _derive_id(row, sides) or f'entry {number}'
        pair, wrong = _find_pair(pair_id, row, specs, columns, index)
        if pair_id in seen:
            wrong = {'listed more than once': ''}
        seen.add(pair_id)
        for kind, path in wrong.items():
            faults[kind][pair_id] = path
        if not wrong:
            pairs.append(pair)
    return pairs, dict(faults)


def _find_pair(pair_id, row, specs, columns, index):
    """Return the pair of one row, and the kinds of its faults with paths."""
    pair = dict(pair_id=pair_id)
    names = columns & {'pair_id', 'group_id', 'label', *specs}
    empty = [name for name in sorted(names) if row.get(name) in _EMPTY]
    wrong = {f"empty column '{name}'": '' for name in empty}
    pair.update((k, row.get(k)) for k in names & {'group_id', 'label'})
    for name, spec in specs.items():
        if name in empty:
            continue
        path = spec.path(row[name]) if name in columns else ''
        if path:
            found = [path] if index.exists(path) else []
        else:
            found = spec.candidates(pair_id, index)
        if len(found) == 1:
            pair[name] = found[0]
        elif found:
            wrong[f'several {name} files of one id'] = ''
        elif '\\' in path:
            wrong[f'{name} path with a backslash (write /)'] = path
        else:
            wrong[f'no {name} file'] = path
    return pair, wrong


def list_faults(found):
    """Faults of one kind as texts.

    Args:
        found (dict[str, str]): Of :func:`find_pairs`.

    Returns:
        list[str]: Every id, with its path where one is known.
    """
    return [
        f'{name}: {path}' if path else name for name, path in found.items()
    ]


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
            rows.append(dict(pair_id=fields[0]))
        elif len(fields) == len(sides):
            rows.append(dict(zip(sides, fields, strict=True)))
        else:
            raise DatasetError(
                f"'{ann_file}', line {number}: {len(fields)} fields, "
                f'expected one id or {len(sides)} paths '
                f'({", ".join(sides)}). Separate paths that contain blanks '
                'by tabs.'
            )
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
        DatasetError: A row has more cells than the header.
    """
    reader = csv.DictReader(io.StringIO(text), skipinitialspace=True)
    rows = []
    for row in reader:
        # DictReader files surplus cells under None and fills up with None.
        if None in row:
            raise DatasetError(
                f"'{ann_file}', line {reader.line_num}: more cells than the "
                f'header has ({len(reader.fieldnames)}). Quote values that '
                'contain commas.'
            )
        rows.append({k.strip(): (v or '').strip() for k, v in row.items()})
    return rows


def _rows_from_json(text, ann_file):
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
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
    return [dict(row) for row in content], metainfo


def _derive_id(row, sides):
    """Name a pair after its files; after one if all agree."""
    return '+'.join(
        dict.fromkeys(
            spec.pair_id(row[name])
            for name, spec in sides.items()
            if row.get(name)
        )
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
    except (FileNotFoundError, NotADirectoryError):
        names = []
    lists = [n for n in names if n.endswith(('.txt', '.csv', '.json'))]
    there = ', '.join(lists[:8]) or 'no list at all'
    return (
        f"The list '{ann_file}' does not exist. In its folder: {there}. "
        f'Correct ann_file (relative to data_root). {howto}'.rstrip()
    )
