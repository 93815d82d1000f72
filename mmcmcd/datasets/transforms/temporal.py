"""Cropping of time: of one array, or of all sides with one draw."""

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmcv.transforms.utils import cache_randomness

from mmcmcd.errors import ConfigError, UnreadableFileError
from mmcmcd.registry import TRANSFORMS

from .arrays import (
    is_number,
    is_range,
    is_whole,
    replace_array,
    timed_array_of,
)

_SHORT = ('error', 'zero', 'repeat', 'edge')
_EPSILON = 1e-6  # seconds; differences below are rounding


def pad_time(array, length, mode):
    """Lengthen an array at its end.

    Args:
        array (torch.Tensor): (C, T, *space), T <= ``length``.
        length (int): Samples along time.
        mode (str): 'zero', 'repeat' (start again) or 'edge' (hold the last
            sample).

    Returns:
        torch.Tensor: (C, length, *space).
    """
    steps = torch.arange(length)
    last = array.shape[1] - 1
    index = steps % (last + 1) if mode == 'repeat' else steps.clamp(max=last)
    padded = array[:, index]
    if mode == 'zero':
        padded[:, last + 1 :] = 0
    return padded


def _check_short(owner, short):
    if short not in _SHORT:
        raise ConfigError(
            f'{type(owner).__name__}: short must be one of {list(_SHORT)}, '
            f'got {short!r}.'
        )


def _checked_fraction(owner, fraction):
    """Return (low, high)."""
    pair = (fraction, fraction) if is_number(fraction) else fraction
    if not is_range(pair, 1):
        raise ConfigError(
            f'{type(owner).__name__}: fraction must be a number, or (low, '
            f'high), with 0 < low <= high <= 1, got {fraction!r}.'
        )
    return tuple(pair)


def _stretch(length, start, fraction):
    """First and last index (exclusive) of a fraction of the samples."""
    size = max(1, round(fraction * length))
    first = min(round(start * length), length - size)
    return first, first + size


@TRANSFORMS.register_module()
class RandomTimeCrop(BaseTransform):
    """Keep a random stretch of time.

    It draws anew for every side: :class:`SharedTemporalCrop` keeps the sides
    of a pair at the same moment.

    Required Keys:

    - img (torch.Tensor, (C, T, *space))

    Modified Keys:

    - img
    - img_shape

    Args:
        fraction (tuple[float, float] | float): Range of the share that is
            kept. Defaults to (0.7, 1.0).

    Raises:
        ConfigError: The range is not in order.
    """

    def __init__(self, fraction=(0.7, 1.0)):
        self.fraction = _checked_fraction(self, fraction)

    @cache_randomness
    def _draw(self):
        fraction = np.random.uniform(*self.fraction)
        return np.random.uniform(0, 1 - fraction), fraction

    def transform(self, results):
        """Crop ``results['img']``."""
        array = timed_array_of(results, self)
        first, last = _stretch(array.shape[1], *self._draw())
        return replace_array(results, array[:, first:last].contiguous())

    def __repr__(self):
        return f'{self.__class__.__name__}(fraction={self.fraction})'


@TRANSFORMS.register_module()
class CenterTimeCrop(BaseTransform):
    """Keep a fixed number of samples in the middle.

    Required Keys:

    - img (torch.Tensor, (C, T, *space))

    Modified Keys:

    - img ((C, length, *space))
    - img_shape

    Args:
        length (int): Samples.
        short (str): What to do with shorter arrays: 'error', or lengthen
            them at the end by 'zero's, a 'repeat'ed start or the last sample
            ('edge'). Defaults to 'error'.

    Raises:
        ConfigError: An argument makes no sense.
        UnreadableFileError: An array is shorter, under 'error'.
    """

    def __init__(self, length, short='error'):
        if not is_whole(length, 1):
            raise ConfigError(
                'CenterTimeCrop: length must be a whole number, 1 or more, '
                f'got {length!r}.'
            )
        _check_short(self, short)
        self.length = length
        self.short = short

    def transform(self, results):
        """Crop or lengthen ``results['img']``."""
        array = timed_array_of(results, self)
        surplus = array.shape[1] - self.length
        if surplus >= 0:
            array = array[:, surplus // 2 : surplus // 2 + self.length]
        elif self.short == 'error':
            raise UnreadableFileError(
                f'CenterTimeCrop: {results.get("img_path", "the array")} has '
                f'{array.shape[1]} samples, expected {self.length} or more. '
                f'Take a shorter crop, or set short to one of {_SHORT[1:]}.'
            )
        else:
            array = pad_time(array, self.length, self.short)
        return replace_array(results, array.contiguous())

    def __repr__(self):
        return (
            f'{self.__class__.__name__}(length={self.length}, '
            f'short={self.short!r})'
        )


@TRANSFORMS.register_module()
class SharedTemporalCrop(BaseTransform):
    """Crop all sides of a pair to the same moment, with one draw.

    What :class:`SharedGeometry` is for space, this is for time. The moment is
    drawn once, either as a segment of ``duration`` seconds on the clock that
    all sides share (every clip starts at 0), or as a ``fraction`` of each
    side's own length. A side is one of these:

    - a loaded array with ``rate``: cropped to the segment. All segments of
      one duration have the same number of samples.
    - ``duration`` (seconds) without ``img``, as of a sound that is yet to be
      loaded: gets ``segment``, which the loader honours.
    - ``frames`` (paths) and ``frame_times`` (seconds, ascending): the frame
      nearest to the middle of the segment becomes ``img_path``. The middle
      is drawn where a frame is near: at most half a segment, or half the
      widest gap between frames, outside of the first or last frame. With
      ``fraction`` the side needs its ``duration`` (seconds), too; without
      it the frames are taken as evenly spread, whatever their times.

    Required Keys:

    - sides (optional, tuple, default ('source', 'target'))
    - <side>, as above; ``rate`` with ``duration`` only

    Modified Keys:

    - <side>.img, <side>.img_shape, <side>.segment ((start, duration) in
      seconds) or <side>.img_path

    Args:
        duration (float, optional): Seconds.
        fraction (tuple[float, float] | float, optional): Range of the share
            of every side that is kept. Exactly one of the two must be given.
        random (bool): Whether to draw. If not, the segment is in the middle,
            and the largest fraction is taken. Defaults to True.
        short (str): What to do with sides that are shorter than
            ``duration``: 'error', or lengthen arrays at the end by 'zero's,
            a 'repeat'ed start or the last sample ('edge'). A sound that is
            yet to be loaded is then lengthened by its loader. Defaults to
            'error'.

    Raises:
        ConfigError: Arguments make no sense, or a side has no time.
        UnreadableFileError: A side is too short, or the sides have no moment
            in common.
    """

    def __init__(
        self, duration=None, fraction=None, random=True, short='error'
    ):
        if (duration is None) == (fraction is None):
            raise ConfigError(
                'SharedTemporalCrop: give either duration (seconds) or '
                f'fraction, got duration={duration} and fraction={fraction}.'
            )
        if duration is not None and not (is_number(duration) and duration > 0):
            raise ConfigError(
                'SharedTemporalCrop: duration must be positive (seconds), '
                f'got {duration!r}.'
            )
        _check_short(self, short)
        self.duration = duration
        self.fraction = fraction
        if fraction is not None:
            self.fraction = _checked_fraction(self, fraction)
        self.random = random
        self.short = short

    @cache_randomness
    def _draw(self):
        """Two numbers in [0, 1): which length, which place."""
        return np.random.random_sample(2)

    def transform(self, results):
        """Crop every side of ``results``."""
        sides = {
            name: self._side(name, results)
            for name in results.get('sides', ('source', 'target'))
        }
        length, place = self._draw() if self.random else (1.0, 0.5)
        if self.fraction is not None:
            low, high = self.fraction
            fraction = low + length * (high - low)
            start = place * (1 - fraction)
            for side in sides.values():
                side.crop_fraction(start, fraction)
            return results
        start = self._middle(sides, place, results) - self.duration / 2
        for side in sides.values():
            side.crop_seconds(start, self.duration, self.short)
        return results

    def _side(self, name, results):
        """Tell the three kinds of sides apart."""
        item = results.get(name)
        if isinstance(item, dict):
            if 'img' in item:
                timed_array_of(item, self)
                if self.fraction is not None or 'rate' in item:
                    return _LoadedSide(item)
            elif item.get('frames'):
                return _FramesSide(item)
            elif 'duration' in item:
                return _UnreadSide(item)
        has = sorted(item) if isinstance(item, dict) else 'nothing'
        raise ConfigError(
            f'SharedTemporalCrop: side {name!r} of pair '
            f'{results.get("pair_id")!r} has no time (it has {has}). It '
            "needs a loaded array, with duration=... also its 'rate' (set "
            "LoadArray(rate=...)), or 'frames' and 'frame_times', or "
            "'duration'. A side without time does not belong to a crop of "
            'time.'
        )

    def _middle(self, sides, place, results):
        """Return the middle of the segment in seconds."""
        spans = {
            name: self._span(name, side, results)
            for name, side in sides.items()
        }
        low = max(span[0] for span in spans.values())
        high = min(span[1] for span in spans.values())
        if high < low - _EPSILON:
            found = ', '.join(
                f'{name} {first:.3f} to {last:.3f}'
                for name, (first, last) in spans.items()
            )
            raise UnreadableFileError(
                'SharedTemporalCrop: the sides of pair '
                f'{results.get("pair_id")!r} have no moment in common; the '
                f'middle of {self.duration} s could lie at (seconds) {found}. '
                'Correct the times, or take a shorter duration.'
            )
        return low + place * max(high - low, 0)

    def _span(self, name, side, results):
        """Where the middle may lie for one side: first and last second."""
        low, high = side.span(self.duration)
        if high < low - _EPSILON and self.short == 'error':
            raise UnreadableFileError(
                f'SharedTemporalCrop: side {name!r} of pair '
                f'{results.get("pair_id")!r} '
                f'({side.item.get("img_path", "no path")}) lasts '
                f'{low + high:.3f} s, shorter than the segment of '
                f'{self.duration} s. Take a shorter duration, or set short '
                f'to one of {_SHORT[1:]}.'
            )
        return low, max(low, high)

    def __repr__(self):
        return (
            f'{self.__class__.__name__}(duration={self.duration}, '
            f'fraction={self.fraction}, random={self.random}, '
            f'short={self.short!r})'
        )


class _LoadedSide:
    """An array (C, T, *space), with ``rate`` if it is cropped by seconds."""

    def __init__(self, item):
        self.item = item

    def span(self, duration):
        """Where the middle of a segment may lie: first and last second."""
        length = self.item['img'].shape[1] / self.item['rate']
        return duration / 2, length - duration / 2

    def crop_seconds(self, start, duration, short):
        array, rate = self.item['img'], self.item['rate']
        size = max(1, round(duration * rate))
        if size > array.shape[1]:
            array = pad_time(array, size, short)
        first = min(max(round(start * rate), 0), array.shape[1] - size)
        self._keep(array, first, first + size)

    def crop_fraction(self, start, fraction):
        array = self.item['img']
        self._keep(array, *_stretch(array.shape[1], start, fraction))

    def _keep(self, array, first, last):
        replace_array(self.item, array[:, first:last].contiguous())


class _UnreadSide:
    """A file of known ``duration`` whose loader honours ``segment``."""

    def __init__(self, item):
        self.item = item

    def span(self, duration):
        return duration / 2, self.item['duration'] - duration / 2

    def crop_seconds(self, start, duration, short):
        self.item['segment'] = start, duration

    def crop_fraction(self, start, fraction):
        length = self.item['duration']
        self.item['segment'] = start * length, fraction * length


class _FramesSide:
    """Single frames, of which one is chosen."""

    def __init__(self, item):
        self.item = item

    def span(self, duration):
        times = np.asarray(self.item['frame_times'])
        reach = max(duration, *np.diff(times), 0) / 2
        return times[0] - reach, times[-1] + reach

    def crop_seconds(self, start, duration, short):
        self._choose(self.item['frame_times'], start + duration / 2)

    def crop_fraction(self, start, fraction):
        middle, length = start + fraction / 2, self.item.get('duration')
        if length is None:
            number = len(self.item['frames'])
            self._choose((np.arange(number) + 0.5) / number, middle)
        else:
            self._choose(self.item['frame_times'], middle * length)

    def _choose(self, times, middle):
        nearest = np.abs(np.asarray(times) - middle).argmin()
        self.item['img_path'] = self.item['frames'][nearest]
