"""Conversion of the official file of NYU-Depth V2."""

from pathlib import Path

import numpy as np

from mmcmcd.errors import ConfigError, DatasetError, UnreadableFileError

from ..hdf5_links import find_outside_storage, get_inside
from ..nyu_meta import NUM_FRAMES, map_raw_to_40, split_ids
from ..progress import progress_bar
from .nyu_layout import (
    frame_paths,
    is_complete,
    write_classes,
    write_frame,
    write_split,
)

# MATLAB counts the axes the other way round: an image of height 480 and
# width 640 is stored as (3, 640, 480).
FRAME_SIZE = (640, 480)
_DTYPES = dict(images=('uint8',), depths=('float32', 'float64'),
               labels=('uint16',))  # fmt: skip
# A chunk of the file may hold parts of several frames; what was unpacked for
# one frame is kept for the next, up to this many bytes for each array.
_CHUNK_CACHE = 64 << 20
_GET_IT = (
    'Download nyu_depth_v2_labeled.mat (about 2.8 GB, the labelled set) from '
    'the page of NYU-Depth V2 once more'
)


def convert_nyu_depth_v2(
    mat, out, rgb_format='jpg', num_frames=NUM_FRAMES, frame_size=FRAME_SIZE
):
    """Convert ``nyu_depth_v2_labeled.mat`` into single files.

    One frame at a time is read, so memory does not grow with the file. Every
    file is written at once, and frames whose files are complete are skipped:
    after an interruption simply run it again.

    Args:
        mat (str | Path): The MATLAB v7.3 (HDF5) file, with ``images``
            (N, 3, W, H) uint8, ``depths`` (N, W, H) float metres, ``labels``
            (N, W, H) uint16 and, optionally, ``scenes`` (1, N).
        out (str | Path): Folder of the set, laid out as
            :mod:`mmcmcd.datasets.converters.nyu_layout` says.
        rgb_format (str): 'jpg' or 'png' (lossless, about five times larger).
        num_frames (int): Frames that the file must have; the official split
            is cut to them.
        frame_size (tuple): Width and height that they must have.

    Returns:
        dict: ``converted`` and ``skipped``, the numbers of frames.

    Raises:
        ConfigError: Unknown ``rgb_format``, or h5py is not installed.
        DatasetError: The file is missing, incomplete or another one.
        UnreadableFileError: A frame in the file is damaged.
    """
    if rgb_format not in ('jpg', 'png'):
        raise ConfigError(f"rgb_format must be 'jpg' or 'png', got "
                          f'{rgb_format!r}')  # fmt: skip
    mat, out, suffix = Path(mat), Path(out), f'.{rgb_format}'
    _refuse_other_suffix(out, suffix)
    with _open_mat(mat) as file:
        _check_arrays(file, mat, num_frames, frame_size)
        scenes = _read_scenes(file, num_frames)
        missing = [
            index
            for index in range(num_frames)
            if not _is_done(out, index, suffix)
        ]
        skipped = num_frames - len(missing)
        if skipped:
            print(f'{skipped} of {num_frames} frames are there already')
        _convert_frames(file, mat, out, suffix, missing)
    if scenes is None:
        print('The file names no scenes: no splits/pairs_*.csv are written.')
    for split in ('train', 'test'):
        ids = [i for i in split_ids(split) if i < num_frames]
        groups = None if scenes is None else [scenes[i] for i in ids]
        write_split(out, split, [f'{i:04d}' for i in ids], groups)
    write_classes(out)
    return dict(converted=len(missing), skipped=skipped)


def _is_done(out, index, suffix):
    paths = frame_paths(out, f'{index:04d}', suffix)
    return all(is_complete(path) for path in paths.values())


def _refuse_other_suffix(out, suffix):
    """Both rgb/0000.jpg and rgb/0000.png would be two partners."""
    other = {'.jpg': '.png', '.png': '.jpg'}[suffix]
    if next((out / 'rgb').glob(f'*{other}'), None) is not None:
        raise DatasetError(
            f"'{out / 'rgb'}' holds {other} files of an earlier conversion. "
            f'Use --rgb-format {other[1:]} to go on with it, or give another '
            'folder.'
        )


def _open_mat(mat):
    try:
        import h5py
    except ImportError:
        raise ConfigError(
            'reading nyu_depth_v2_labeled.mat needs h5py, which is not '
            'installed. Run: pip install h5py'
        ) from None
    if not mat.is_file():
        raise DatasetError(
            f"'{mat}' does not exist. Download nyu_depth_v2_labeled.mat "
            '(about 2.8 GB) from the page of NYU-Depth V2, or correct --mat.'
        )
    if not h5py.is_hdf5(mat):
        with open(mat, 'rb') as file:
            start = file.read(19)
        size = mat.stat().st_size
        raise DatasetError(
            f"'{mat}' ({size} bytes, starting with {start!r}) is not a "
            f'MATLAB v7.3 (HDF5) file. {_GET_IT}; toolbox and raw archives '
            'and web pages are not it.'
        )
    try:
        return h5py.File(mat, 'r', rdcc_nbytes=_CHUNK_CACHE)
    except OSError as error:
        raise DatasetError(
            f"'{mat}' ({mat.stat().st_size} bytes) cannot be opened, "
            f'probably the download was cut off ({error}). {_GET_IT}.'
        ) from None


def _check_arrays(file, mat, num_frames, frame_size):
    for name, dtypes in _DTYPES.items():
        array = get_inside(file, name)
        if not hasattr(array, 'shape'):
            there = ', '.join(k for k in file if not k.startswith('#'))
            raise DatasetError(
                f"'{mat}' has no array '{name}'; it has: {there}. It is not "
                f'the labelled set. {_GET_IT}.'
            )
        channels = (3,) if name == 'images' else ()
        expected = (num_frames, *channels, *frame_size)
        outside = find_outside_storage(array)
        if outside:
            raise DatasetError(
                f"array '{name}' of '{mat}' has its values in {outside[:3]}; "
                f'other files than the labelled set are not read. {_GET_IT}.'
            )
        got = array.shape
        if got != expected:
            raise DatasetError(
                f"array '{name}' of '{mat}' has the shape {got}, expected "
                f'{expected} (frames{", channels" * len(channels)}, width, '
                'height). It must be the original, complete labelled set, '
                'not a part of it or a file saved again by another program.'
            )
        if array.dtype.name not in dtypes:
            raise DatasetError(
                f"array '{name}' of '{mat}' is {array.dtype}, expected "
                f'{" or ".join(dtypes)}. {_GET_IT}.'
            )


def _read_scenes(file, num_frames):
    """Scene of each frame such as 'kitchen_0004', or None if not there."""
    import h5py

    scenes = get_inside(file, 'scenes')
    if not hasattr(scenes, 'shape') or find_outside_storage(scenes):
        return None
    references = scenes[()].ravel()
    is_cell = h5py.check_ref_dtype(scenes.dtype) is h5py.Reference
    if not is_cell or len(references) != num_frames:
        return None
    names = [file[reference][()].ravel() for reference in references]
    return [''.join(map(chr, name)) for name in names]


def _convert_frames(file, mat, out, suffix, missing):
    if not missing:
        return
    bar = progress_bar(len(missing))
    for index in missing:
        try:
            frame = {name: file[name][index] for name in _DTYPES}
        except OSError as error:
            raise UnreadableFileError(
                f"frame {index} of '{mat}' cannot be read: the file is "
                f'damaged ({error}). {_GET_IT} and run again; the frames '
                'before it are kept.'
            ) from None
        # (W, H) -> (H, W): back from MATLAB's order of the axes.
        write_frame(
            out,
            f'{index:04d}',
            frame['images'].transpose(2, 1, 0),
            frame['depths'].T,
            np.ascontiguousarray(map_raw_to_40(frame['labels'].T)),
            suffix,
        )
        bar.update()
    bar.file.write('\n')
