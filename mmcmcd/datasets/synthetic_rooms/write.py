"""A set of rooms on disk, in the layout of a prepared NYU-Depth V2."""

import json
import sys
from functools import partial
from pathlib import Path

import numpy as np
from mmengine.utils import track_parallel_progress, track_progress

from mmcmcd.errors import ConfigError, DatasetError

from ...atomic_files import write_text
from ..converters.nyu_layout import write_classes, write_frame, write_split
from ..progress import ThrottledStream
from .render import VIEWS_PER_ROOM, check_request, render_room

# To be raised whenever the same arguments give other pictures.
GENERATOR_VERSION = 1
MANIFEST = 'synthetic_rooms.json'
_SPLITS = ('train', 'val', 'test')


def write_rooms(
    out_dir,
    num_frames=450,
    seed=0,
    height=120,
    width=160,
    holes=False,
    split_fractions=(0.7, 0.1, 0.2),
    few_labels=(10, 20, 50),
    num_draws=5,
    nproc=1,
):
    """Write a data set of synthetic rooms.

    The frames of one room are in one split and share the ``group_id`` of
    ``splits/pairs_<split>.csv``. ``splits/few_<n>_<draw>.txt`` are random
    draws of n training frames, from as many different rooms as possible; of
    one draw the smaller lists are part of the larger ones. The other files
    are those of :mod:`mmcmcd.datasets.converters.nyu_layout`.

    A finished set with the same arguments is left as it is; an interrupted
    one is written anew.

    Args:
        out_dir (str | Path): Folder of the set; new, empty, or an earlier
            result of the same arguments.
        num_frames (int): Number of frames, three for each room.
        seed (int): Seed of rooms and draws.
        height (int): Rows of the pictures.
        width (int): Columns of the pictures.
        holes (bool): Whether depth lacks some values, see
            :func:`render_room`.
        split_fractions (tuple): Shares of train, val and test.
        few_labels (tuple): Sizes of the few-label lists.
        num_draws (int): Number of draws.
        nproc (int): Number of processes.

    Returns:
        Path: ``out_dir``.

    Raises:
        ConfigError: Arguments are impossible.
        DatasetError: The folder holds something else.
    """
    check_request(seed, 0, height, width)
    out_dir = Path(out_dir)
    parameters = dict(
        generator_version=GENERATOR_VERSION,
        num_frames=num_frames,
        seed=seed,
        height=height,
        width=width,
        holes=holes,
        split_fractions=list(split_fractions),
        few_labels=list(few_labels),
        num_draws=num_draws,
    )
    splits = _split_frames(num_frames, split_fractions)
    draws = _draw_few(splits['train'], few_labels, num_draws, seed)
    if _is_finished(out_dir, parameters):
        print(f'{out_dir} is complete already: {num_frames} frames')
        return out_dir
    manifest = out_dir / MANIFEST
    write_text(manifest, _dump(parameters, finished=False))
    make = partial(
        _make_frame,
        root=out_dir, seed=seed, height=height, width=width, holes=holes,
    )  # fmt: skip
    stream = ThrottledStream(sys.stderr)
    if nproc > 1:
        track_parallel_progress(
            make,
            range(num_frames),
            nproc,
            chunksize=VIEWS_PER_ROOM,
            file=stream,
        )
    else:
        track_progress(make, range(num_frames), file=stream)
    for split, frames in splits.items():
        groups = [f'room_{frame // VIEWS_PER_ROOM:04d}' for frame in frames]
        write_split(out_dir, split, _names(frames), groups)
    for split, frames in draws.items():
        write_split(out_dir, split, _names(frames))
    write_classes(out_dir)
    write_text(manifest, _dump(parameters, finished=True))
    return out_dir


def _names(frames):
    return [f'{frame:04d}' for frame in frames]


def _dump(parameters, finished):
    return json.dumps(dict(parameters, finished=finished), indent=2) + '\n'


def _make_frame(frame, root, seed, height, width, holes):
    picture = render_room(seed, frame, height, width, holes)
    write_frame(root, f'{frame:04d}', **picture)


def _is_finished(out_dir, parameters):
    """Whether the set is there; whether the folder may be written to."""
    if not out_dir.exists() or not any(out_dir.iterdir()):
        return False
    manifest = out_dir / MANIFEST
    if not manifest.is_file():
        raise DatasetError(
            f"'{out_dir}' is not empty and was not made by write_rooms (it "
            f'has no {MANIFEST}). Nothing was written; give another folder.'
        )
    try:
        found = json.loads(manifest.read_text())
        finished = found.pop('finished')
    except (ValueError, KeyError, AttributeError):
        raise DatasetError(
            f"'{manifest}' cannot be read. Delete '{out_dir}' and run again, "
            'or give another folder.'
        ) from None
    if found != parameters:
        names = sorted({**found, **parameters})
        changes = ', '.join(
            f'{n}: {found.get(n)} there, {parameters.get(n)} asked for'
            for n in names
            if found.get(n) != parameters.get(n)
        )
        raise DatasetError(
            f"'{out_dir}' holds synthetic rooms made with other parameters "
            f'({changes}). Delete it or give another folder.'
        )
    return finished


def _split_frames(num_frames, fractions):
    """Frames of each split, whole rooms only."""
    if len(fractions) != 3 or min(fractions) <= 0:
        raise ConfigError(
            'split_fractions must be three positive shares (train, val, '
            f'test), got {fractions}'
        )
    rooms = -(-num_frames // VIEWS_PER_ROOM)
    if rooms < 3:
        raise ConfigError(
            f'num_frames={num_frames} gives {rooms} room(s) of '
            f'{VIEWS_PER_ROOM} frames; three splits need at least '
            f'{2 * VIEWS_PER_ROOM + 1} frames'
        )
    val, test = (
        max(1, round(rooms * share / sum(fractions)))
        for share in fractions[1:]
    )
    ends = np.array([max(1, rooms - val - test), rooms - test, rooms])
    bounds = [0, *np.minimum(ends * VIEWS_PER_ROOM, num_frames)]
    return {
        split: np.arange(*bounds[i : i + 2]) for i, split in enumerate(_SPLITS)
    }


def _draw_few(frames, sizes, num_draws, seed):
    """Nested random lists of training frames."""
    if sizes and max(sizes) > len(frames):
        raise ConfigError(
            f'few_labels={max(sizes)} is more than the {len(frames)} '
            'training frames; make more frames or a smaller list'
        )
    draws = {}
    for draw in range(num_draws):
        rng = np.random.default_rng([seed, draw, 5])
        order = rng.permutation(frames)
        # The first frame of every room comes before the second of any.
        rooms = order // VIEWS_PER_ROOM
        turn = [np.sum(rooms[:i] == room) for i, room in enumerate(rooms)]
        order = order[np.argsort(turn, kind='stable')]
        for size in sizes:
            draws[f'few_{size}_{draw}'] = np.sort(order[:size])
    return draws
