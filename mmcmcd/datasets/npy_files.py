"""Content of ``.npy`` files, whose headers are not believed."""

import io
import math
import tokenize

import numpy as np

from mmcmcd.errors import UnreadableFileError

NPY_MAGIC = np.lib.format.MAGIC_PREFIX
# Version 3 is for names of fields alone, which plain arrays have not.
_READ_HEADER = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def decode_npy(content, path):
    """Decode the content of a ``.npy`` file.

    Memory is taken for what is there, not for what the header claims.

    Args:
        content (bytes): The file's content.
        path (str): Named in the message.

    Returns:
        np.ndarray: The array as it is stored.

    Raises:
        UnreadableFileError: It is truncated, or holds objects.
    """
    try:
        return _decode(content)
    except (
        ValueError,
        EOFError,
        OverflowError,
        # The header is a piece of Python, which NumPy parses.
        SyntaxError,
        TypeError,
        LookupError,
        RecursionError,
        MemoryError,
        tokenize.TokenError,
    ) as error:
        raise UnreadableFileError(
            f'Cannot decode {path}: truncated or not a plain numeric array '
            f'({error}).'
        ) from error


def _decode(content):
    stream = io.BytesIO(content)
    version = np.lib.format.read_magic(stream)
    if version not in _READ_HEADER:
        raise ValueError(f'version {version} of the format')
    shape, is_fortran, dtype = _READ_HEADER[version](stream)
    if dtype.hasobject:
        # Pickled objects would run code of whoever made the file.
        raise ValueError('objects, which take allow_pickle, are not read')
    if any(length < 0 for length in shape):
        raise ValueError(f'shape {shape}')
    start = stream.tell()
    promised = math.prod(shape) * dtype.itemsize
    if promised > len(content) - start:
        raise ValueError(
            f'its header claims {shape} of {dtype}, {promised} bytes, but '
            f'{len(content) - start} are there'
        )
    stored = np.ndarray(
        shape, dtype, content, start, order='F' if is_fortran else 'C'
    )
    return stored.copy(order='K')  # writable, as what numpy.load returns
