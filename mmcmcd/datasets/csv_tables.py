"""Tables of data sets: CSV with a header."""

import csv
import io

from mmcmcd.errors import DatasetError

from .pair_lists import read_list, rows_from_csv


def read_csv_table(path, columns, backend_args=None, howto='', repair=None):
    """Read a table that must have a row, and some columns.

    Args:
        path (str): The table.
        columns (Sequence[str]): Those that it must have.
        backend_args (dict, optional): Of the ``mmengine.fileio`` backend.
        howto (str): How to get the data; ends the message that the table is
            missing.
        repair (str, optional): Ends the message that the table is wrong.
            Defaults to ``howto``.

    Returns:
        list[dict[str, str]]: One dict a row.

    Raises:
        DatasetError: The table is missing, broken or empty, or lacks a
            column.
    """
    rows = rows_from_csv(read_list(path, backend_args, howto), path)
    repair = howto if repair is None else repair
    if not rows:
        raise DatasetError(f"'{path}' has no row. {repair}".rstrip())
    missing = [name for name in columns if name not in rows[0]]
    if missing:
        raise DatasetError(
            f"'{path}' has no column {', '.join(map(repr, missing))}; it has "
            f'{", ".join(map(repr, rows[0]))}. {repair}'.rstrip()
        )
    return rows


def format_csv(columns, rows):
    """The text of a table.

    Args:
        columns (Sequence[str]): The header.
        rows (Iterable[dict]): Values by column.

    Returns:
        str: The text; the same on every system.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator='\n')
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
