"""Class names, and the draw of few labelled images per class."""

from collections import Counter, defaultdict
from pathlib import Path

import numpy as np

from mmcmcd.errors import ConfigError, DatasetError


def read_classes(path):
    """Read names of classes from a file.

    Args:
        path (str | Path): One name a line.

    Returns:
        tuple[str]: The names.

    Raises:
        ConfigError: The file is missing or empty.
    """
    path = Path(path)
    lines = path.read_text().splitlines() if path.is_file() else []
    names = tuple(line.strip() for line in lines if line.strip())
    if not names:
        raise ConfigError(
            f"'{path}' does not exist or is empty; expected the names of the "
            'classes, one a line.'
        )
    return names


def resolve_classes(found, wanted, where, origin="metainfo['classes']"):
    """The names of the classes, in the order of their labels.

    Args:
        found (Iterable[str]): Classes that the data have.
        wanted (Sequence[str], optional): Classes that they should have; None
            takes the found ones in alphabetical order.
        where (str): Where the data are; for messages.
        origin (str): Where ``wanted`` comes from; for messages.

    Returns:
        tuple[str]: The names.

    Raises:
        DatasetError: A class is found but not wanted, or the reverse.
    """
    found = set(found)
    if wanted is None:
        return tuple(sorted(found))
    surplus, empty = found - set(wanted), set(wanted) - found
    problems = []
    if surplus:
        problems.append(
            f'{len(surplus)} classes that are not among the {len(wanted)} of '
            f'{origin}: {shorten(surplus)}'
        )
    if empty:
        problems.append(
            f'no image of {len(empty)} classes of {origin}: {shorten(empty)}'
        )
    if problems:
        raise DatasetError(
            f"'{where}' has {'; and '.join(problems)}. Correct the names "
            f'(upper and lower case differ), or leave {origin} out to take '
            f'all {len(found)} classes in alphabetical order.'
        )
    return tuple(wanted)


def resolve_label(pair, classes):
    """Make the label of a pair an integer.

    Args:
        pair (dict): Its ``label``, if any, is replaced.
        classes (Sequence[str]): Names that labels may have; may be empty.

    Returns:
        str | None: The kind of fault, if any.
    """
    label = pair.get('label')
    if label is None:
        return None
    if label in classes:
        label = classes.index(label)
    if isinstance(label, float) and label.is_integer():
        label = int(label)
    try:
        if isinstance(label, (bool, float)):
            raise TypeError
        pair['label'] = int(label)
    except (TypeError, ValueError):
        return "label is no integer and not among metainfo['classes']"
    if not 0 <= pair['label'] < (len(classes) or 2**63):
        return 'label out of range'
    return None


def draw_per_class(items, number, seed, classes, groups=None):
    """Draw the same number of images of every class.

    Images of different groups come first: five of ten sketches that were
    drawn from five photos are of all five photos. A larger draw with the same
    seed contains the smaller one, and the draw of one class does not depend
    on the other classes.

    Args:
        items (list[dict]): With ``gt_label`` and, optionally, ``group_id``.
        number (int, optional): Images per class, at least 1; None takes all.
        seed (int): Of the draw, 0 or more.
        classes (Sequence[str]): Names, by label.
        groups (Sequence, optional): Of the items. Defaults to None: their
            ``group_id``.

    Returns:
        list[dict]: The drawn items in their former order.

    Raises:
        ConfigError: ``number`` or ``seed`` make no sense.
        DatasetError: A class has fewer images.
    """
    if number is None:
        return items
    for name, value, least in (
        ('labels_per_class', number, 1),
        ('draw', seed, 0),
    ):
        if not isinstance(value, int) or value < least:
            raise ConfigError(
                f'{name}={value!r}: expected an integer of at least {least}.'
            )
    members = defaultdict(list)
    for index, item in enumerate(items):
        members[item['gt_label']].append(index)
    short = {
        name: len(members[label])
        for label, name in enumerate(classes)
        if len(members[label]) < number
    }
    if short:
        names = [f'{name} ({count})' for name, count in short.items()]
        raise DatasetError(
            f'labels_per_class={number}, but {len(short)} of {len(classes)} '
            f'classes have fewer images in this split: {shorten(names)}. Take '
            f'labels_per_class={min(short.values())} or less, or leave these '
            'classes out.'
        )
    if groups is None:
        groups = [item.get('group_id', i) for i, item in enumerate(items)]
    drawn = []
    for label, indices in members.items():
        rng = np.random.default_rng([seed, label])
        uses, turns = Counter(), []
        for index in rng.permutation(indices).tolist():
            group = groups[index]
            turns.append((uses[group], len(turns), index))
            uses[group] += 1
        drawn += [index for *_, index in sorted(turns)[:number]]
    return [items[index] for index in sorted(drawn)]


def shorten(names, most=5):
    """List the first names for a message, and how many more there are.

    Args:
        names (Iterable[str]): The names; a set is sorted.
        most (int): How many to list. Defaults to 5.

    Returns:
        str: E.g. 'a, b, c, d, e and 3 more'.
    """
    names = sorted(names) if isinstance(names, set) else list(names)
    more = f' and {len(names) - most} more' if len(names) > most else ''
    return ', '.join(map(str, names[:most])) + more
