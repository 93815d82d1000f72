"""Any modality that is an array: loading, resampling, normalising.

In the pipeline an array is a float32 tensor, channels first and time second:
a series is (C, T), a clip (C, T, H, W).
"""

import json
import os.path as osp
from numbers import Integral, Real

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from torch.nn.functional import interpolate

from mmcmcd.errors import ConfigError, UnreadableFileError
from mmcmcd.registry import TRANSFORMS

from ..archives import read_array, split_archive_path
from ..npy_files import decode_npy
from .loading import read_bytes

_SPACE = 'DHW'
_DELIMITERS = ',;\t'
_MISSING = frozenset({'', 'na', 'n/a', 'nan', 'null', 'none'})


def is_number(value):
    """Whether a value is one finite number: no text, no bool."""
    number = isinstance(value, Real) and not isinstance(value, bool)
    return number and bool(np.isfinite(value))


def is_whole(value, least):
    """Whether a value is a whole number, ``least`` or more."""
    return is_number(value) and isinstance(value, Integral) and value >= least


def is_range(value, most):
    """Whether a value is (low, high) with 0 < low <= high <= most."""
    return (
        isinstance(value, (list, tuple))
        and len(value) == 2
        and all(map(is_number, value))
        and 0 < value[0] <= value[1] <= most
    )


def array_of(results, owner):
    """Return the array of a results dict.

    Args:
        results (dict): With ``img``.
        owner (object): The transform; its class is named in the message.

    Returns:
        torch.Tensor: (C, T, *space), or a spectrogram (C, mel, T).

    Raises:
        ConfigError: It is an image, or nothing is loaded yet.
    """
    array = results.get('img')
    if array is None:
        raise ConfigError(
            f'{type(owner).__name__}: there is no array yet. Put it behind a '
            'loader such as mmcmcd.LoadArray.'
        )
    if not isinstance(array, torch.Tensor) or array.ndim < 2:
        raise ConfigError(
            f'{type(owner).__name__}: expected a tensor (channels, time, '
            f'...), got {type(array).__name__} of shape '
            f'{tuple(array.shape)}. Load the file by mmcmcd.LoadArray or '
            'mmcmcd.LoadAudio before.'
        )
    return array


def timed_array_of(results, owner):
    """Return the array of a results dict, whose second axis is time.

    Args:
        results (dict): With ``img``.
        owner (object): The transform; its class is named in the message.

    Returns:
        torch.Tensor: (C, T, *space).

    Raises:
        ConfigError: It is an image, or a spectrogram, whose time is last.
    """
    array = array_of(results, owner)
    if results.get('modality') == 'spectrogram':
        raise ConfigError(
            f'{type(owner).__name__}: a spectrogram is (channels, mel, '
            'time); put this transform before mmcmcd.LogMel.'
        )
    return array


def replace_array(results, array):
    """Store a changed array and its shape in the results dict."""
    results['img'] = array
    results['img_shape'] = tuple(array.shape)
    return results


@TRANSFORMS.register_module()
class LoadArray(BaseTransform):
    """Load an array from ``.npy``, ``.csv``, ``.npz``, ``.h5`` or ``.hdf5``.

    An array in an archive has a path like that of a file in a folder:
    ``data/inertial.npz/a01_s1_t1``, ``data/radar.h5/day1/0007``. An archive
    with one array needs no name behind it. A ``.csv`` file has one row per
    position of the first axis. A first line with text and without any number
    is a header; empty cells and 'NA', 'NaN', 'null', 'None' are NaN, see
    ``invalid``; lines that are all blank are skipped.

    Required Keys:

    - img_path

    Added Keys:

    - img (torch.Tensor, float32, (C, T, *space))
    - img_shape, ori_shape
    - modality ('series', or 'clip' with axes of space)
    - rate (float, with ``rate``)

    Args:
        axes (str): One letter per stored axis, in stored order: 'T' is time,
            'D', 'H' and 'W' are space, brought into this order; all other
            letters become channels, flattened in stored order. 'TC' is a
            table with a row per time step, 'TVC' a skeleton (channels x, y, z
            of the first joint, then of the second, ...), 'THW' a video of
            depth, 'T' one channel. Defaults to 'TC'.
        rate (float, optional): Samples per second along T.
        expected_channels (int, optional): Refuse arrays with another number
            of channels.
        invalid (str | float): What to do with NaN and infinite values:
            'error', or the number that takes their place. Defaults to
            'error'.
        channels (Sequence[int], optional): Keep only these channels, counted
            from 0, for example to leave out a column of timestamps. Defaults
            to None: all.

    Raises:
        ConfigError: An argument makes no sense.
        UnreadableFileError: The file or array is missing, damaged, empty, of
            another shape, not numeric or not finite.
    """

    def __init__(
        self,
        axes='TC',
        rate=None,
        expected_channels=None,
        invalid='error',
        channels=None,
    ):
        if (
            not isinstance(axes, str)
            or axes.count('T') != 1
            or len(set(axes)) != len(axes)
        ):
            raise ConfigError(
                f'LoadArray: axes={axes!r} must have one letter per stored '
                "axis, all different, one of them 'T' (time)."
            )
        if rate is not None and not (is_number(rate) and rate > 0):
            raise ConfigError(
                f'LoadArray: rate must be positive (samples per second), got '
                f'{rate!r}.'
            )
        if invalid != 'error' and not is_number(invalid):
            raise ConfigError(
                "LoadArray: invalid must be 'error' or a finite number, got "
                f'{invalid!r}.'
            )
        if channels is not None and not _are_places(channels):
            raise ConfigError(
                'LoadArray: channels must be a list of whole numbers, 0 or '
                f'more, got {channels!r}.'
            )
        self.axes = axes
        self.rate = rate
        self.expected_channels = expected_channels
        self.invalid = invalid
        self.channels = None if channels is None else list(channels)
        self._space = [axes.index(name) for name in _SPACE if name in axes]
        self._flattened = [
            i for i, name in enumerate(axes) if name not in _SPACE + 'T'
        ]

    def transform(self, results):
        """Load ``results['img_path']`` into ``results['img']``."""
        path = results['img_path']
        stored = self._checked(_read(path), path)
        array = self._channels_first(stored)
        if self.expected_channels not in (None, array.shape[0]):
            raise UnreadableFileError(
                f'Wrong number of channels: {path} has {array.shape[0]} '
                f'(shape {stored.shape}, axes {self.axes!r}), '
                f'expected_channels is {self.expected_channels}.'
            )
        if self.channels is not None:
            array = self._kept(array, path)
        replace_array(results, torch.from_numpy(array))
        results['ori_shape'] = results['img_shape']
        results['modality'] = 'clip' if self._space else 'series'
        if self.rate is not None:
            results['rate'] = float(self.rate)
        return results

    def _checked(self, stored, path):
        """Return the stored array as finite float32."""
        if stored.ndim != len(self.axes):
            raise UnreadableFileError(
                f'Wrong number of axes: {path} has shape {stored.shape}, '
                f'axes={self.axes!r} names {len(self.axes)}.'
            )
        if stored.size == 0:
            raise UnreadableFileError(
                f'Empty array: {path} has shape {stored.shape}. Restore it or '
                'take it out of the list.'
            )
        if stored.dtype.kind not in 'biuf':
            raise UnreadableFileError(
                f'Not numeric: {path} stores {stored.dtype}; expected '
                'integers or floats.'
            )
        with np.errstate(over='ignore'):  # found below as infinite
            array = stored.astype(np.float32)
        bad = ~np.isfinite(array)
        if bad.any():
            if self.invalid == 'error':
                first = tuple(np.argwhere(bad)[0].tolist())
                raise UnreadableFileError(
                    f'Not finite: {path} has {bad.sum()} NaN or infinite '
                    f'values of {bad.size}, the first at index {first} (axes '
                    f'{self.axes!r}). Mend the file, or set '
                    'LoadArray(invalid=0.0) to fill them.'
                )
            array[bad] = self.invalid
        return array

    def _channels_first(self, array):
        """Bring the stored axes into the order (C, T, *space)."""
        time = self.axes.index('T')
        array = array.transpose(*self._flattened, time, *self._space)
        behind = array.shape[len(self._flattened) :]
        return np.ascontiguousarray(array.reshape(-1, *behind))

    def _kept(self, array, path):
        """Take out the channels that are asked for."""
        if max(self.channels) >= len(array):
            raise UnreadableFileError(
                f'Too few channels: {path} has {len(array)}, LoadArray is '
                f'to keep channels={self.channels}, counted from 0.'
            )
        return array[self.channels]

    def __repr__(self):
        return (
            f'{self.__class__.__name__}(axes={self.axes!r}, '
            f'rate={self.rate}, expected_channels={self.expected_channels}, '
            f'invalid={self.invalid!r}, channels={self.channels})'
        )


def _are_places(values):
    return (
        isinstance(values, (list, tuple))
        and len(values) > 0
        and all(is_whole(value, 0) for value in values)
    )


def _read(path):
    archive, name = split_archive_path(path)
    if archive:
        return read_array(archive, name)
    kind = osp.splitext(path)[1].lower()
    if kind not in ('.npy', '.csv'):
        raise UnreadableFileError(
            f"Unknown kind of array: {path} ends with '{kind}'; expected "
            '.npy, .csv, or an array in a .npz, .h5 or .hdf5 archive.'
        )
    content = read_bytes(path)
    if kind == '.npy':
        return decode_npy(content, path)
    return _decode_csv(content, path)


def _decode_csv(content, path):
    try:
        lines = content.decode('utf-8-sig').splitlines()
        rows = [line for line in lines if line.strip()]
        first = rows[0] if rows else ''
        delimiter = next((d for d in _DELIMITERS if d in first), None)
        if _is_header(first.split(delimiter)):
            rows = rows[1:]
        if not rows:
            return np.empty((0, 0))
        return np.loadtxt(
            rows,
            delimiter=delimiter,
            comments=None,
            converters=_number_of,
            encoding=None,
            ndmin=2,
        )
    except ValueError as error:
        raise UnreadableFileError(
            f'Cannot decode {path}: not a table of numbers ({error}).'
        ) from error


def _number_of(cell):
    """Return the number in a cell, NaN if it says that there is none."""
    try:
        return float(cell)
    except ValueError:
        if cell.strip().lower() in _MISSING:
            return np.nan
        raise


def _is_header(cells):
    """Whether there is text in a line, and no number."""
    texts = 0
    for cell in cells:
        try:
            number = _number_of(cell)
        except ValueError:
            texts += 1
        else:
            if not np.isnan(number):
                return False
    return texts > 0


@TRANSFORMS.register_module()
class NormalizeArray(BaseTransform):
    """Subtract the mean and divide by the standard deviation, by channel.

    Required Keys:

    - img (torch.Tensor, (C, T, *space))

    Modified Keys:

    - img

    Args:
        mean (Sequence[float] | float, optional): Of every channel, or of
            all.
        std (Sequence[float] | float, optional): The same.
        statistics (str, optional): The file that ``python
            tools/misc/array_statistics.py CONFIG`` writes, instead of mean
            and std. A channel that was constant there (std 0) is only
            shifted. It is read when the first array comes.
        side (str, optional): Entry of ``statistics``, any name.

    Raises:
        ConfigError: Not exactly one kind of statistics is given, or they are
            no numbers; the file is missing or another one; or it is for
            another number of channels.
    """

    def __init__(self, mean=None, std=None, statistics=None, side=None):
        given = [arg is not None for arg in (mean, std, statistics, side)]
        if given not in (
            [True, True, False, False],
            [False, False, True, True],
        ):
            raise ConfigError(
                'NormalizeArray: give mean and std, or statistics and side '
                f'(got mean={mean}, std={std}, statistics={statistics!r}, '
                f'side={side!r}).'
            )
        if mean is not None:
            _moments(mean, std)
        self.mean = mean
        self.std = std
        self.statistics = statistics
        self.side = side
        self._moments = None

    def transform(self, results):
        """Normalise ``results['img']``."""
        array = array_of(results, self)
        if self._moments is None:
            self._moments = self._load_moments()
        shape = (-1, *[1] * (array.ndim - 1))
        mean, std = (values.reshape(shape) for values in self._moments)
        if mean.shape[0] not in (1, array.shape[0]):
            raise ConfigError(
                f'NormalizeArray: statistics of {mean.shape[0]} channels for '
                f'an array of {array.shape[0]} '
                f'({results.get("img_path", "no path")}).'
            )
        return replace_array(results, (array - mean) / std)

    def _load_moments(self):
        mean, std = self.mean, self.std
        if self.statistics is not None:
            entry = read_statistics(self.statistics, self.side)
            mean, std = entry['mean'], entry['std']
            if isinstance(std, list):
                std = [value or 1.0 for value in std]
        return _moments(mean, std, self.statistics)

    def __repr__(self):
        return (
            f'{self.__class__.__name__}(mean={self.mean}, std={self.std}, '
            f'statistics={self.statistics!r}, side={self.side!r})'
        )


def _moments(mean, std, file=None):
    """Return mean and std as two tensors (C,), checked."""
    rows = [
        list(row) if isinstance(row, (list, tuple, np.ndarray)) else [row]
        for row in (mean, std)
    ]
    numbers = all(map(is_number, [*rows[0], *rows[1]]))
    same = len(rows[0]) == len(rows[1]) > 0
    if not (numbers and same and min(rows[1]) > 0):
        where = f" in '{file}'" if file else ''
        raise ConfigError(
            f'NormalizeArray: mean and std{where} must have one value per '
            'channel, finite numbers, std positive; got '
            f'mean={mean!r} and std={std!r}.'
        )
    return [torch.tensor(row, dtype=torch.float32) for row in rows]


def read_statistics(path, side):
    """Read mean and std of one side.

    Args:
        path (str): JSON file of ``tools/misc/array_statistics.py``.
        side (str): The entry.

    Returns:
        dict: With the lists ``mean`` and ``std``, and how they were made.

    Raises:
        ConfigError: The file is missing, another one, or lacks the side.
    """
    howto = (
        'Compute it: python tools/misc/array_statistics.py CONFIG, with the '
        'config of the distillation, not of the fine-tuning: a student needs '
        'the numbers that it was taught with'
    )
    try:
        with open(path, encoding='utf-8') as file:
            sides = json.load(file)
    except FileNotFoundError:
        raise ConfigError(
            f"NormalizeArray: statistics '{path}' does not exist. {howto}."
        ) from None
    except OSError as error:
        raise ConfigError(
            f"NormalizeArray: statistics '{path}' cannot be read ({error}); "
            'expected a JSON file.'
        ) from None
    except ValueError as error:
        raise ConfigError(
            f"NormalizeArray: statistics '{path}' is not valid JSON "
            f'({error}). Remove it. {howto}.'
        ) from None
    entry = sides.get(side) if isinstance(sides, dict) else None
    if not isinstance(entry, dict) or not {'mean', 'std'} <= entry.keys():
        raise ConfigError(
            f"NormalizeArray: '{path}' has no statistics of side {side!r}; "
            f'it has {list(sides)}. {howto}.'
        )
    return entry


@TRANSFORMS.register_module()
class ResampleArray(BaseTransform):
    """Bring the time axis to a fixed length by interpolation.

    The first and the last sample stay where they are, as in
    ``numpy.interp(numpy.linspace(0, T - 1, length), numpy.arange(T), x)``
    ("align corners"). There is no low-pass filter: what is fast compared
    with the new rate is aliased. One sample is repeated.

    Clips of depth need 'nearest': a mean of two frames shows what moves
    twice, and false depth around holes.

    Required Keys:

    - img (torch.Tensor, (C, T, *space))
    - rate (optional)

    Modified Keys:

    - img ((C, length, *space))
    - img_shape
    - rate (if known)

    Args:
        length (int): Samples, 2 or more.
        mode (str): 'linear', or 'nearest' (the later of two that are equally
            near). Defaults to 'linear'.

    Raises:
        ConfigError: ``length`` is another number, or the mode unknown.
    """

    def __init__(self, length, mode='linear'):
        if not is_whole(length, 2):
            raise ConfigError(
                'ResampleArray: length must be a whole number, 2 or more, '
                f'got {length!r}.'
            )
        if mode not in ('linear', 'nearest'):
            raise ConfigError(
                "ResampleArray: mode must be 'linear' or 'nearest', got "
                f'{mode!r}.'
            )
        self.length = length
        self.mode = mode

    def transform(self, results):
        """Resample ``results['img']``."""
        array = timed_array_of(results, self)
        steps = array.shape[1] - 1
        if 'rate' in results and steps:
            results['rate'] = results['rate'] * (self.length - 1) / steps
        resample = self._nearest if self.mode == 'nearest' else self._linear
        return replace_array(results, resample(array).contiguous())

    def _nearest(self, array):
        places = torch.linspace(0, array.shape[1] - 1, self.length)
        return array[:, (places + 0.5).long()]

    def _linear(self, array):
        rows = array.movedim(1, -1)
        # In single precision places are wrong by 1e-5 of a step.
        new = interpolate(
            rows.reshape(1, -1, rows.shape[-1]).double(),
            self.length,
            mode='linear',
            align_corners=True,
        ).to(array.dtype)
        return new.reshape(*rows.shape[:-1], self.length).movedim(-1, 1)

    def __repr__(self):
        return (
            f'{self.__class__.__name__}(length={self.length}, '
            f'mode={self.mode!r})'
        )


@TRANSFORMS.register_module()
class ClampArray(BaseTransform):
    """Scale all values, then clip them to a range.

    E.g. depth of a video in millimetres to metres within a room, no return
    being as far as the wall: ``ClampArray(1, 4, scale=0.001, missing=4)``.

    Required Keys:

    - img (torch.Tensor, (C, T, *space))

    Modified Keys:

    - img

    Args:
        low (float): Smallest value, in the unit after scaling.
        high (float): Largest value.
        scale (float): Factor before. Defaults to 1.
        missing (float, optional): What takes the place of zeros, which mean
            "no measurement"; in the unit after scaling. Defaults to None:
            zeros are values like others.

    Raises:
        ConfigError: The range is empty, or no numbers are given.
    """

    def __init__(self, low, high, scale=1.0, missing=None):
        given = [low, high, scale, 0 if missing is None else missing]
        if not all(map(is_number, given)) or not low < high:
            raise ConfigError(
                'ClampArray: numbers with low < high are needed, got '
                f'low={low!r}, high={high!r}, scale={scale!r}, '
                f'missing={missing!r}.'
            )
        self.low = low
        self.high = high
        self.scale = scale
        self.missing = missing

    def transform(self, results):
        """Scale and clip ``results['img']``."""
        stored = array_of(results, self)
        array = (stored * self.scale).clamp_(self.low, self.high)
        if self.missing is not None:
            array[stored == 0] = self.missing
        return replace_array(results, array)

    def __repr__(self):
        return (
            f'{self.__class__.__name__}(low={self.low}, high={self.high}, '
            f'scale={self.scale}, missing={self.missing})'
        )
