"""The table of pairs of The Sketchy Database."""

import csv
import io
import os.path as osp
import statistics
import zlib
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from mmcmcd.errors import ConfigError, DatasetError

from ...atomic_files import write_text
from ..class_labels import resolve_classes, shorten
from ..csv_tables import format_csv
from ..file_index import require_data_root
from ..pair_audit import audit_pairs
from ..pair_lists import read_list
from ..photo_sketch_table import COLUMNS
from ..sketchy import SKETCHY_HOWTO

RENDERING = 'tx_000000000000'
# Archives are unpacked with or without their top folders.
_ABOVE = ('.', '256x256', 'rendered_256x256/256x256', 'rendered_256x256')
_INFO = ('info', 'info/info', 'info-06-04/info')
_SUFFIXES = dict(photo=('.jpg', '.jpeg', '.png'), sketch=('.png',))
_TEST_LIST = 'testset.txt'
# Wrong pose and drawn surroundings still show the class of the photo.
_INVALID_LISTS = ('invalid-error.txt', 'invalid-ambiguous.txt')
_TEST_SHARE = 0.1


@dataclass
class SketchySummary:
    """What :func:`list_sketchy_pairs` found.

    Attributes:
        rows (list[dict[str, str]]): The table, by
            :data:`~mmcmcd.datasets.photo_sketch_table.COLUMNS`.
        photos (int): Photos on disk.
        split_by (str): Where the split comes from.
        dropped (dict[str, int]): Sketches left out, by list.
        notes (list[str]): What else a user should know.
    """

    rows: list = field(default_factory=list)
    photos: int = 0
    split_by: str = ''
    dropped: dict = field(default_factory=dict)
    notes: list = field(default_factory=list)

    def format(self):
        """Return the summary as text for a terminal."""
        per_photo = Counter(row['photo'] for row in self.rows)
        counts = per_photo.values()
        classes = len({row['class'] for row in self.rows})
        lines = [
            f'{classes} classes, {self.photos} photos '
            f'({self.photos - len(per_photo)} without a sketch), '
            f'{len(self.rows)} sketches',
            f'sketches per photo: {min(counts)} to {max(counts)}, mean '
            f'{statistics.mean(counts):.2f}',
        ]
        for split in ('train', 'test'):
            rows = [row for row in self.rows if row['split'] == split]
            lines.append(
                f'{split}: {len(rows)} pairs of '
                f'{len({row["photo"] for row in rows})} photos, '
                f'{len({row["class"] for row in rows})} classes'
            )
        lines.append(f'split by {self.split_by}')
        for name, count in self.dropped.items():
            lines.append(f'left out: {count} sketches listed in {name}')
        return '\n'.join([*lines, *self.notes])


def list_sketchy_pairs(
    data_root,
    info=None,
    rendering=RENDERING,
    classes=None,
    keep_invalid=False,
):
    """List the photo-sketch pairs of The Sketchy Database.

    Files are looked for as ``photo/<rendering>/<class>/<photo>.jpg`` and
    ``sketch/<rendering>/<class>/<photo>-<number>.png``, also below
    ``256x256``, also without the level of the rendering.

    The annotation (``info``) is that of the data set: ``testset.txt`` with
    one ``<class>/<photo>.jpg`` a line, and lists of invalid sketches with one
    ``<photo>-<number>`` a line. Whether suffix and folder, the class, are
    written does not matter, unless classes share names. Without it 10 % of
    the photos of every class, at least one of two, are for testing: those
    with the lowest hash of their name, which is our choice.

    Args:
        data_root (str | Path): Root of the data.
        info (str | Path, optional): Folder of the annotation. Defaults to
            None: one below the root, if it is there.
        rendering (str): Which rendering, the name of a folder. Defaults to
            'tx_000000000000'.
        classes (Sequence[str], optional): Classes that there must be.
            Defaults to None: any.
        keep_invalid (bool): Whether to keep sketches that are listed as
            erroneous or ambiguous. Defaults to False.

    Returns:
        SketchySummary: Rows in the order of their sketches' names.

    Raises:
        DatasetError: Folders or lists are missing, or files do not fit
            together; the message lists all kinds of faults.
    """
    root = Path(data_root)
    require_data_root(str(root), 'The Sketchy Database', SKETCHY_HOWTO)
    folders = _find_folders(root, rendering)
    photos = _list_images(folders['photo'], _SUFFIXES['photo'])
    sketches = _list_images(folders['sketch'], _SUFFIXES['sketch'])
    _refuse_faults(root, folders, photos, sketches)
    names = {name.split('/')[0] for name in sketches}
    resolve_classes(names, classes, folders['sketch'], 'the list of classes')
    info = _find_info(root, info)
    summary = SketchySummary(photos=len(photos))
    if not keep_invalid:
        _drop_invalid(sketches, info, names, summary)
    used = sorted({_photo_of(name) for name in sketches})
    test_photos = _test_photos(used, info, summary)
    for name, (path,) in sorted(sketches.items()):
        photo = _photo_of(name)
        summary.rows.append(
            {
                'photo': photos[photo][0].relative_to(root).as_posix(),
                'sketch': path.relative_to(root).as_posix(),
                'class': name.split('/')[0],
                'split': 'test' if photo in test_photos else 'train',
            }
        )
    return summary


def write_table(rows, out, force=False):
    """Write a table at once, and nothing if it is there already.

    Args:
        rows (list[dict[str, str]]): Of :func:`list_sketchy_pairs`.
        out (str | Path): The file.
        force (bool): Whether to replace a table with other content. Defaults
            to False.

    Returns:
        bool: Whether it was written.

    Raises:
        DatasetError: There is a table with other content.
    """
    out, text = Path(out), format_csv(COLUMNS, rows)
    if out.exists():
        there = out.read_text(encoding='utf-8', errors='replace')
        if there == text:
            return False
        if not force:
            raise DatasetError(
                f"'{out}' exists and differs: {_difference(there, rows)}. "
                'Use --force to replace it, or --out to write another file.'
            )
    write_text(out, text)
    return True


def check_files(data_root, table, num_workers=1):
    """Read every file of a table.

    Args:
        data_root (str | Path): Root of the data.
        table (str | Path): Of :func:`write_table`.
        num_workers (int): Processes. Defaults to 1.

    Returns:
        list[AuditReport]: One a split.
    """
    loaders = dict(source='LoadImageStrict', target='LoadSketch')
    cfg = dict(
        type='mmcmcd.SketchyPairs',
        data_root=str(data_root),
        ann_file=str(Path(table).resolve()),
        pipeline=[
            dict(
                type='mmcmcd.OnSide',
                sides=side,
                transforms=[dict(type=f'mmcmcd.{loader}')],
            )
            for side, loader in loaders.items()
        ],
    )
    return [
        audit_pairs(dict(cfg, split=split), None, num_workers, progress=True)
        for split in ('train', 'test')
    ]


def _difference(there, rows):
    """Say in words how the table that is there differs."""
    old = {
        row.get('sketch'): row for row in csv.DictReader(io.StringIO(there))
    }
    new = {row['sketch']: row for row in rows}
    common = old.keys() & new.keys()
    resplit = sum(old[k].get('split') != new[k]['split'] for k in common)
    return (
        f'{len(old.keys() - new.keys())} of its sketches would go, '
        f'{len(new.keys() - old.keys())} would be added, {resplit} would '
        'change their split'
    )


def _find_folders(root, rendering):
    """The folders that hold the classes of photos and of sketches."""
    for above in _ABOVE:
        folders = {kind: root / above / kind for kind in _SUFFIXES}
        if not all(folder.is_dir() for folder in folders.values()):
            continue
        renderings = {
            kind: sorted(path.name for path in folder.glob('tx_*'))
            for kind, folder in folders.items()
        }
        for kind, names in renderings.items():
            if names and rendering not in names:
                raise DatasetError(
                    f"'{folders[kind]}' has no rendering '{rendering}'; it "
                    f'has {", ".join(names)}. Choose one with --rendering.'
                )
            if names:
                folders[kind] /= rendering
        return folders
    there = ', '.join(sorted(path.name for path in root.iterdir())[:8])
    raise DatasetError(
        f"'{root}' has no folders photo and sketch, nor has its "
        f"'256x256' (there: {there or 'nothing'}). {SKETCHY_HOWTO}"
    )


def _list_images(folder, suffixes):
    """Files by id, ``<class>/<name>``; more than one is a fault."""
    images = defaultdict(list)
    for path in sorted(folder.glob('*/*')):
        if path.suffix.lower() in suffixes and not path.name.startswith('.'):
            images[f'{path.parent.name}/{path.stem}'].append(path)
    return images


def _photo_of(sketch):
    """Id of the photo of a sketch; '' if the name does not say."""
    photo, _, number = sketch.rpartition('-')
    return photo if number.isdigit() else ''


def _refuse_faults(root, folders, photos, sketches):
    unnamed = [name for name in sketches if not _photo_of(name)]
    orphans = [
        name
        for name in sketches
        if _photo_of(name) and _photo_of(name) not in photos
    ]
    twice = [
        name
        for images in (photos, sketches)
        for name, paths in images.items()
        if len(paths) > 1
    ]
    classes = {
        path.name
        for folder in folders.values()
        for path in folder.iterdir()
        if path.is_dir() and not path.name.startswith('.')
    }
    empty = classes - {name.split('/')[0] for name in sketches}
    faults = [
        f'{len(names)} {what}: {shorten(names)}'
        for what, names in (
            ('classes without a sketch', empty),
            ('sketches without their photo', orphans),
            ('sketches not named <photo>-<number>', unnamed),
            ('images with several files', twice),
        )
        if names
    ]
    if not sketches:
        faults.append('no sketch at all')
    if faults:
        raise DatasetError(
            f"'{root}' has {'; '.join(faults)}. Photos are in "
            f"'{folders['photo']}', sketches in '{folders['sketch']}'. Add "
            'the missing files or remove the others, then run this again.'
        )


def _find_info(root, info):
    """The folder of the annotation, or None."""
    if info is not None:
        if not (Path(info) / _TEST_LIST).is_file():
            raise ConfigError(
                f"--info '{info}' has no {_TEST_LIST}. Give the folder info "
                'of The Sketchy Database, or leave it out.'
            )
        return Path(info)
    found = [root / name for name in _INFO]
    return next((f for f in found if (f / _TEST_LIST).is_file()), None)


def _read_names(path):
    """Names of a list, ``<class>/<name>`` or just ``<name>``."""
    names = set()
    for line in map(str.strip, read_list(str(path)).splitlines()):
        stem, suffix = osp.splitext(line)
        name = stem if suffix.lower() in _SUFFIXES['photo'] else line
        names.add('/'.join(name.split('/')[-2:]))
    return names - {''}


def _look_up(names, images, path):
    """The images that are meant by the names of a list.

    Args:
        names (set[str]): Of :func:`_read_names`.
        images (Iterable[str]): Ids, ``<class>/<name>``.
        path (Path): The list; for messages.

    Returns:
        dict[str, str]: Images by the name that the list has for them.

    Raises:
        DatasetError: A name without class is that of several images.
    """
    known = defaultdict(list)
    for image in images:
        known[image].append(image)
        known[image.rpartition('/')[2]].append(image)
    doubtful = {n: known[n] for n in names if len(known.get(n, ())) > 1}
    if doubtful:
        examples = [
            f"'{name}' ({shorten(found, 3)})"
            for name, found in sorted(doubtful.items())
        ]
        raise DatasetError(
            f"'{path}' has {len(doubtful)} names that several classes have: "
            f'{shorten(examples, 3)}. Write <class>/<name> in this list.'
        )
    return {name: known[name][0] for name in names if name in known}


def _drop_invalid(sketches, info, classes, summary):
    """Take the sketches of no use out of ``sketches``."""
    lists = [info / name for name in _INVALID_LISTS] if info else []
    every = list(sketches)
    for path in lists:
        if not path.is_file():
            summary.notes.append(f'{path} is not there: nothing is left out')
            continue
        listed = _look_up(_read_names(path), every, path).values()
        listed = sketches.keys() & listed
        summary.dropped[path.name] = len(listed)
        for sketch in listed:
            del sketches[sketch]
    empty = classes - {name.split('/')[0] for name in sketches}
    if empty:
        raise DatasetError(
            f'All sketches of {len(empty)} classes are listed as invalid in '
            f"'{info}': {shorten(empty)}. Use --keep-invalid to keep them, "
            'or remove these classes.'
        )


def _test_photos(photos, info, summary):
    if info is None:
        summary.split_by = (
            f'a hash of the names, {_TEST_SHARE:.0%} of the photos of every '
            f'class for testing (our choice: no {_TEST_LIST} is there)'
        )
        return _hashed_share(photos)
    names = _read_names(info / _TEST_LIST)
    found = _look_up(names, photos, info / _TEST_LIST)
    if not found:
        raise DatasetError(
            f"'{info / _TEST_LIST}' names none of the {len(photos)} photos "
            f'that have a sketch (it names {shorten(names, 2)}; photos are '
            f'{shorten(photos, 2)}). Give the list of this data set.'
        )
    summary.split_by = f'{info / _TEST_LIST}'
    if len(found) < len(names):
        summary.notes.append(
            f'{len(names) - len(found)} photos of {_TEST_LIST} are not here '
            'or have no sketch'
        )
    return set(found.values())


def _hashed_share(photos):
    by_class = defaultdict(list)
    for photo in photos:
        by_class[photo.split('/')[0]].append(photo)
    chosen = set()
    for names in by_class.values():
        names.sort(key=lambda name: (zlib.crc32(name.encode()), name))
        share = max(1, round(_TEST_SHARE * len(names)))
        # A single photo is for training.
        chosen.update(names[:share] if len(names) > 1 else [])
    return chosen
