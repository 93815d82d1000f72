"""Files of a prepared NYU-like set, written so that none is ever half done.

Layout below the root: ``rgb/NNNN.jpg`` (or png), ``depth/NNNN.png`` (16 bit,
millimetres, 0 = no value), ``label40/NNNN.png`` and ``label13/NNNN.png``
(8 bit, 255 = unlabelled), ``splits/<split>.txt`` (one frame a line),
``splits/pairs_<split>.csv`` (with the group of each frame), and the names of
the classes in ``classes40.csv`` and ``classes13.csv``.
"""

import os

import cv2
import numpy as np

from ...atomic_files import write_bytes, write_text
from ..nyu_meta import NYU13_CLASSES, NYU40_CLASSES, map_40_to_13

_JPEG_QUALITY = 95
_MARKS = {
    '.png': (b'\x89PNG\r\n\x1a\n', b'IEND\xaeB`\x82'),
    '.jpg': (b'\xff\xd8', b'\xff\xd9'),
}


def frame_paths(root, name, rgb_suffix='.jpg'):
    """Files of one frame.

    Args:
        root (Path): Root of the set.
        name (str): Frame, such as '0002'.
        rgb_suffix (str): '.jpg' or '.png'.

    Returns:
        dict[str, Path]: By folder name.
    """
    paths = dict(rgb=root / 'rgb' / f'{name}{rgb_suffix}')
    for folder in ('depth', 'label40', 'label13'):
        paths[folder] = root / folder / f'{name}.png'
    return paths


def is_complete(path):
    """Whether a png or jpg file exists and has its beginning and its end."""
    start, end = _MARKS[path.suffix]
    try:
        with open(path, 'rb') as file:
            if file.read(len(start)) != start:
                return False
            file.seek(-len(end), os.SEEK_END)
            return file.read() == end
    except FileNotFoundError:
        return False


def to_millimetres(depth):
    """Depth as it is stored.

    Args:
        depth (np.ndarray): Float metres, any shape.

    Returns:
        np.ndarray: uint16 millimetres, rounded, at most 65535; 0 where depth
        is not a positive number.
    """
    depth = np.nan_to_num(depth, nan=0.0, posinf=0.0, neginf=0.0)
    millimetres = np.rint(depth.astype(np.float64) * 1000)
    return millimetres.clip(0, 65535).astype(np.uint16)


def write_frame(root, name, rgb, depth, label, rgb_suffix='.jpg'):
    """Write the four files of one frame.

    Args:
        root (Path): Root of the set.
        name (str): Frame.
        rgb (np.ndarray): (H, W, 3) uint8, channels R, G, B.
        depth (np.ndarray): (H, W) float metres, see :func:`to_millimetres`.
        label (np.ndarray): (H, W) uint8, 0..39 or 255.
        rgb_suffix (str): '.jpg' or '.png'.
    """
    pictures = dict(
        rgb=np.ascontiguousarray(rgb[:, :, ::-1]),
        depth=to_millimetres(depth),
        label40=label,
        label13=map_40_to_13(label),
    )
    quality = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
    for folder, path in frame_paths(root, name, rgb_suffix).items():
        options = quality if path.suffix == '.jpg' else []
        _, code = cv2.imencode(path.suffix, pictures[folder], options)
        write_bytes(path, code.tobytes())


def write_split(root, split, names, groups=None):
    """Write the list of a split, and its groups where they are known.

    Args:
        root (Path): Root of the set.
        split (str): Name of the split.
        names (Sequence[str]): Its frames.
        groups (Sequence[str], optional): Scene of each frame.
    """
    folder = root / 'splits'
    write_text(folder / f'{split}.txt', ''.join(f'{n}\n' for n in names))
    if groups is not None:
        rows = [f'{n},{g}\n' for n, g in zip(names, groups, strict=True)]
        text = ''.join(['pair_id,group_id\n', *rows])
        write_text(folder / f'pairs_{split}.csv', text)


def write_classes(root):
    """Write the names of the 40 and of the 13 classes."""
    for names in (NYU40_CLASSES, NYU13_CLASSES):
        rows = [f'{index},{name}\n' for index, name in enumerate(names)]
        text = ''.join(['id,name\n', *rows])
        write_text(root / f'classes{len(names)}.csv', text)
