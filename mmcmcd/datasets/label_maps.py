"""Segmentation maps: images whose values are numbers of classes."""

import io

import numpy as np
from PIL import Image

from mmcmcd.errors import UnreadableFileError

from .transforms.image_headers import (
    check_complete,
    check_pixels,
    check_png_sums,
    is_png,
)
from .transforms.loading import read_bytes


def check_label_map(path, backend_args=None):
    """Refuse a broken segmentation map, if possible without decoding it.

    Stock loaders may fill what is missing, or fail with an error of their own.

    Args:
        path (str): Path or URI.
        backend_args (dict, optional): See :func:`mmengine.fileio.get`.

    Raises:
        UnreadableFileError: See :func:`read_label_map`.
    """
    content = read_bytes(path, backend_args)
    if is_png(content):
        _check(content, path)
        check_png_sums(content, path)
    else:
        _decode(content, path)


def read_label_map(path, backend_args=None):
    """Read a segmentation map as it is stored, strict about broken files.

    Args:
        path (str): Path or URI.
        backend_args (dict, optional): See :func:`mmengine.fileio.get`.

    Returns:
        np.ndarray: (H, W), or (H, W, C) of an image of colours.

    Raises:
        UnreadableFileError: The file is missing, empty, truncated, damaged,
            no image, or claims to be huge.
    """
    return _decode(read_bytes(path, backend_args), path)


def _check(content, path):
    check_complete(content, path)
    check_pixels(content, path)


def _decode(content, path):
    _check(content, path)
    try:
        return np.asarray(Image.open(io.BytesIO(content)))
    except (OSError, SyntaxError, ValueError) as error:
        raise UnreadableFileError(
            f'Cannot decode label map {path}: {error}'
        ) from error
