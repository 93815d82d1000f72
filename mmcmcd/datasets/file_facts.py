"""What one file of a pair is like: an image, audio, or another array."""

import io
import os.path as osp
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from mmcmcd.errors import ConfigError, UnreadableFileError

from .archives import read_array, split_archive_path
from .npy_files import decode_npy
from .transforms.audio_loading import SILENT_RANGE
from .transforms.loading import read_bytes
from .transforms.sketch import is_inverted
from .transforms.sound_files import open_sound, read_samples

_STORED_AS = {
    '1': '1-bit',
    'F': '32-bit float',
    'I': '32-bit integer',
    'I;16': '16-bit grey',
    'I;16B': '16-bit grey',
    'L': '8-bit grey',
    'LA': '8-bit grey with alpha',
    'P': '8-bit palette',
    'RGB': '8-bit RGB',
    'RGBA': '8-bit RGBA',
}
# Our choices. Clipping leaves so many equal samples in a row at full scale,
# which in 8-bit files ends at 127/128; a file that was only scaled up touches
# it with single samples.
_CLIPPED_RUN = 3
_FULL_SCALE = 127 / 128


@dataclass
class FileFacts:
    """Facts of one file.

    Attributes:
        path (str): The file.
        kind (str): 'image', 'depth', 'sketch', 'audio' or 'array'.
        stored (str): E.g. '16-bit grey', 'WAV PCM_16', 'float32'.
        minimum, maximum, mean (float | None): Of the finite values as
            loaded, for depth of the valid ones; for audio as stored, full
            scale being 1.
        size (tuple[int, int] | None): Width and height of an image.
        channels (int | None): Of an array or audio.
        layout (str): Axes of an array or audio, e.g. '6 x T'; else ''.
        length (int | None): Samples along T of an array or audio.
        rate (float | None): Of them per second, where known.
        invalid (float | None): Fraction of invalid pixels of depth.
        inverted (bool | None): Whether a sketch is white on black.
        not_finite (int): Values that are NaN or infinite.
        clipped (bool): Whether audio stays at full scale somewhere.
        silent (bool): Whether no channel of audio spans 2e-4, that is a tone
            at -80 dB.
    """

    path: str
    kind: str
    stored: str
    minimum: float | None = None
    maximum: float | None = None
    mean: float | None = None
    size: tuple | None = None
    channels: int | None = None
    layout: str = ''
    length: int | None = None
    rate: float | None = None
    invalid: float | None = None
    inverted: bool | None = None
    not_finite: int = 0
    clipped: bool = False
    silent: bool = False


def file_facts(loaders, item):
    """Load a file as its pipeline does, and describe it.

    Args:
        loaders (list[callable]): What the side meets first; the first
            transforms up to the one that sets ``img`` are run.
        item (dict): What the first loader gets, with ``img_path``; it may
            be changed.

    Returns:
        FileFacts: The facts.

    Raises:
        ValueError: A loader returned None, or there is none.
        Exception: Whatever a loader raises.
    """
    path = item['img_path']
    for transform in loaders:
        item = transform(item)
        if item is None:
            raise ValueError(f'{type(transform).__name__} returned None')
        if 'img' in item:
            break
    else:
        raise ConfigError(
            f'No transform of the pipeline loads {path}; it has '
            f'{[type(t).__name__ for t in loaders]}.'
        )
    if item.get('modality') == 'audio':
        return _audio_facts(item, path)
    if isinstance(item['img'], torch.Tensor):
        return _array_facts(item, path)
    return _image_facts(item, path)


def _image_facts(item, path):
    img = item['img']
    kind, values, invalid, inverted = 'image', img, None, None
    if item.get('modality') == 'depth':
        kind, values = 'depth', img[img > 0]
        invalid = 1 - values.size / img.size
    elif item.get('modality') == 'sketch':
        kind, inverted = 'sketch', is_inverted(img)
    return FileFacts(
        path,
        kind,
        stored_as(path),
        **_moments(values),
        size=img.shape[1::-1],
        invalid=invalid,
        inverted=inverted,
    )


def _array_facts(item, path, kind='array', stored=None):
    values = item['img'].numpy()
    channels, length, *space = values.shape
    return FileFacts(
        path,
        kind,
        stored or stored_as(path),
        **_moments(values),
        channels=channels,
        layout=' x '.join(map(str, [channels, 'T', *space])),
        length=length,
        rate=item.get('rate'),
    )


def _audio_facts(item, path):
    """Facts of the whole file, of which the loader took a segment."""
    try:
        with open_sound(path) as file:
            rate, stored = file.samplerate, f'{file.format} {file.subtype}'
            samples = read_samples(file, path)
    except UnreadableFileError:
        # Another loader than LoadAudio: what it gave has to do.
        rate, stored = item.get('rate'), stored_as(path)
        samples = item['img'].numpy()
    facts = _array_facts(
        dict(img=torch.from_numpy(samples), rate=rate), path, 'audio', stored
    )
    facts.silent = bool(np.ptp(samples, axis=1).max() < SILENT_RANGE)
    facts.clipped = _is_clipped(samples)
    return facts


def _is_clipped(samples):
    """Whether a channel stays at its extreme, and that is full scale."""
    high = samples.max(axis=1, keepdims=True)
    low = samples.min(axis=1, keepdims=True)
    for at_extreme in (
        (samples == high) & (high >= _FULL_SCALE),
        (samples == low) & (low <= -_FULL_SCALE),
    ):
        runs = np.lib.stride_tricks.sliding_window_view(
            np.pad(at_extreme, ((0, 0), (0, _CLIPPED_RUN - 1))),
            _CLIPPED_RUN,
            axis=1,
        )
        if runs.all(axis=-1).any():
            return True
    return False


def _moments(values):
    finite = values
    if values.dtype.kind == 'f':
        finite = values[np.isfinite(values)]
    found = dict(not_finite=values.size - finite.size)
    if finite.size:
        found.update(
            minimum=float(finite.min()),
            maximum=float(finite.max()),
            mean=float(finite.mean(dtype=float)),
        )
    return found


@lru_cache(maxsize=8)
def stored_as(path):
    """Say how a file stores its values.

    Args:
        path (str): A file, or an array in an archive.

    Returns:
        str: E.g. '16-bit grey' or 'float32'; the suffix if unknown.
    """
    archive, name = split_archive_path(path)
    if archive:
        return str(read_array(archive, name).dtype)
    content = read_bytes(path)
    kind = osp.splitext(path)[1].lower()
    if kind == '.npy':
        return str(decode_npy(content, path).dtype)
    try:
        mode = Image.open(io.BytesIO(content)).mode
        return _STORED_AS.get(mode, mode)
    except UnidentifiedImageError:
        return kind[1:]
