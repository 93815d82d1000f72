"""Conversion of the official files of UTD-MHAD, one per clip and modality."""

import io
import re
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from scipy.io import loadmat

from mmcmcd.errors import ConfigError, DatasetError, UnreadableFileError

from ...atomic_files import write_bytes, write_text
from ..csv_tables import format_csv
from ..progress import progress_bar
from ..utd_mhad import ACTIONS, ARCHIVES, UTD_MHAD_HOWTO

NUM_CLIPS = 861  # of the official release
DEPTH_FRAMES = 12
DEPTH_STEP = 4
FAULTS = 'unreadable.csv'
_NAME = re.compile(r'a(\d+)_s(\d+)_t(\d+)_(skeleton|inertial|depth)\.mat')
_VARIABLES = dict(skeleton='d_skel', inertial='d_iner', depth='d_depth')
# None is the number of frames or samples.
_SHAPES = dict(
    skeleton=(20, 3, None), inertial=(None, 6), depth=(240, 320, None)
)
_COLUMNS = (
    'key',
    'label',
    'action',
    'subject',
    'trial',
    'depth_frames',
    'inertial_samples',
)


@dataclass
class UTDMHADSummary:
    """Result of :func:`convert_utd_mhad`.

    Attributes:
        converted (int): Clips that were written.
        faults (dict[str, str]): What is wrong with the others, by key.
    """

    converted: int = 0
    faults: dict = field(default_factory=dict)


def convert_utd_mhad(raw, out, modalities=tuple(ARCHIVES)):
    """Convert the ``.mat`` files of UTD-MHAD into one archive a modality.

    Axes are put into the order (time, ...), nothing is resampled or
    filtered. Of depth, 12 frames are kept, spread evenly from the first to
    the last, and of each frame every fourth pixel in both directions (one of
    the middle of its 4 x 4 block; a mean would mix depths across edges):
    our choice, to make a set that fits into memory.

    A clip is left out if one of its files is missing or damaged; it is then
    listed in ``unreadable.csv``.

    Args:
        raw (str | Path): Folder with the files, anywhere below it:
            ``a1_s1_t1_skeleton.mat`` (``d_skel``, (20, 3, T)),
            ``a1_s1_t1_inertial.mat`` (``d_iner``, (N, 6)) and
            ``a1_s1_t1_depth.mat`` (``d_depth``, (240, 320, T)).
        out (str | Path): Folder of the set that
            :class:`mmcmcd.datasets.UTDMHAD` reads.
        modalities (Sequence[str]): Which to convert.

    Returns:
        UTDMHADSummary: How many clips there are, and what is wrong.

    Raises:
        ConfigError: A modality is unknown.
        DatasetError: There is no file, one is there twice, or none is
            readable.
    """
    unknown = set(modalities) - set(ARCHIVES)
    if unknown or not modalities:
        raise ConfigError(
            f'modalities={list(modalities)}: expected some of '
            f'{list(ARCHIVES)}.'
        )
    raw, out = Path(raw), Path(out)
    clips = _find_clips(raw)
    summary, rows = UTDMHADSummary(), []
    arrays = {modality: {} for modality in modalities}
    bar = progress_bar(len(clips))
    for clip, files in sorted(clips.items()):
        key = 'a{:02d}_s{}_t{}'.format(*clip)
        try:
            loaded = {m: _load(files, m) for m in modalities}
        except UnreadableFileError as error:
            summary.faults[key] = str(error)
        else:
            rows.append(_index_row(key, clip, loaded))
            for modality, array in loaded.items():
                arrays[modality][key] = _compact(modality, array)
        bar.update()
    bar.file.write('\n')
    summary.converted = len(rows)
    if not rows:
        raise DatasetError(
            f"No clip of '{raw}' is complete, e.g. "
            f'{next(iter(summary.faults.values()))}. {UTD_MHAD_HOWTO}'
        )
    for modality in modalities:
        _write_archive(out / ARCHIVES[modality], arrays.pop(modality))
    faults = [
        dict(key=key, fault=text) for key, text in summary.faults.items()
    ]
    write_text(out / FAULTS, format_csv(('key', 'fault'), faults))
    write_text(out / 'index.csv', format_csv(_COLUMNS, rows))
    return summary


def _find_clips(raw):
    """Map (action, subject, trial) to its files by modality."""
    clips = defaultdict(dict)
    for path in sorted(raw.rglob('*.mat')):
        match = _NAME.fullmatch(path.name)
        if match is None:
            continue
        *numbers, modality = match.groups()
        files = clips[tuple(map(int, numbers))]
        if modality in files:
            raise DatasetError(
                f"'{raw}' has {path.name} twice: {files[modality]} and "
                f'{path}. Give the folder of one copy.'
            )
        files[modality] = path
    odd = [clip[0] for clip in clips if not 1 <= clip[0] <= len(ACTIONS)]
    if odd or not clips:
        found = f'actions {sorted(set(odd))}' if odd else 'no such file'
        raise DatasetError(
            f"'{raw}': expected files a1_s1_t1_skeleton.mat, "
            f'..._inertial.mat, ..._depth.mat of actions 1 to {len(ACTIONS)}, '
            f'found {found}. {UTD_MHAD_HOWTO}'
        )
    return clips


def _load(files, modality):
    """Read one file, time first."""
    path, name = files.get(modality), _VARIABLES[modality]
    if path is None:
        raise UnreadableFileError(f'no {modality} file')
    try:
        array = loadmat(path, variable_names=[name])[name]
    except KeyError:
        raise UnreadableFileError(f'{path} has no variable {name}') from None
    # What scipy raises for damaged files depends on where they are damaged.
    except Exception as error:
        raise UnreadableFileError(
            f'{path} cannot be read: {type(error).__name__}: {error}'
        ) from error
    shape = _SHAPES[modality]
    fits = array.ndim == len(shape) and array.size > 0
    if not fits or any(
        want not in (None, have)
        for want, have in zip(shape, array.shape, strict=True)
    ):
        raise UnreadableFileError(
            f'{path}: {name} has shape {array.shape}, expected '
            f'{str(shape).replace("None", "T")}'
        )
    if not np.isfinite(array).all():
        raise UnreadableFileError(f'{path}: {name} has NaN or infinite values')
    return np.moveaxis(array, shape.index(None), 0)


def _compact(modality, array):
    """What is stored of an array (time, ...)."""
    if modality != 'depth':
        return array.astype(np.float32)
    kept = np.linspace(0, len(array) - 1, DEPTH_FRAMES).round().astype(int)
    middle = slice(DEPTH_STEP // 2, None, DEPTH_STEP)
    return array[kept][:, middle, middle].astype(np.uint16)


def _index_row(key, clip, loaded):
    action, subject, trial = clip
    return dict(
        key=key,
        label=action - 1,
        action=ACTIONS[action - 1],
        subject=subject,
        trial=trial,
        depth_frames=len(loaded['depth']) if 'depth' in loaded else '',
        inertial_samples=(
            len(loaded['inertial']) if 'inertial' in loaded else ''
        ),
    )


def _write_archive(path, arrays):
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    write_bytes(path, buffer.getvalue())
