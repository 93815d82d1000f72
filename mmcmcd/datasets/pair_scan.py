"""Find the pairs of a data set on disk, and all that is wrong with them.

Nothing here raises on a faulty pair: faults are collected by kind, so that
the data set can refuse or drop them and the audit can list them.
"""

from collections import defaultdict

from mmcmcd.errors import DatasetError

from .file_index import FileIndex

_EMPTY = ('', None)


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
        pair_id = _name_pair(row, sides, number)
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
        given = row[name] if name in columns else pair_id
        fault = spec.find_fault(given)
        if fault:
            where = getattr(row, 'where', '')
            wrong[fault] = f'{name} {given!a:.200}{where and f" ({where})"}'
            continue
        path = spec.path(given) if name in columns else ''
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


def _name_pair(row, sides, number):
    """The id of a row: as it says, or after its files, or its number."""
    given = row.get('pair_id')
    if given in _EMPTY:
        return _derive_id(row, sides) or f'entry {number}'
    # What cannot be written down could be neither found nor reported.
    return str(given).encode('utf-8', 'backslashreplace').decode()


def _derive_id(row, sides):
    """Name a pair after its files; after one if all agree."""
    return '+'.join(
        dict.fromkeys(
            spec.pair_id(row[name])
            for name, spec in sides.items()
            if row.get(name) and not spec.find_fault(row[name])
        )
    )
