"""Random changes of series (C, T) and clips (C, T, H, W)."""

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmcv.transforms.utils import cache_randomness
from torch.nn.functional import interpolate

from mmcmcd.errors import ConfigError
from mmcmcd.registry import TRANSFORMS

from .arrays import (
    array_of,
    is_number,
    is_range,
    is_whole,
    replace_array,
    timed_array_of,
)


class _RandomArrayTransform(BaseTransform):
    """Draw with some probability, and change an array by what was drawn.

    Every class has its own ``_draw``, decorated by ``cache_randomness``:
    mmcv files decorated methods of a base class and of all its subclasses
    under one list.
    """

    def __init__(self, prob):
        _check_share(self, 'prob', prob)
        self.prob = prob

    def transform(self, results):
        """Change ``results['img']``, or leave it as it is."""
        array = self.array_of(results)
        drawn = self._draw(array.shape)
        if drawn is None:
            return results
        return replace_array(results, self.change(array, drawn))

    def array_of(self, results):
        """Return the array, or raise ConfigError if it is none for this."""
        return array_of(results, self)

    def _draw(self, shape):
        """Return random numbers, or None to change nothing."""
        raise NotImplementedError

    def change(self, array, drawn):
        """Return the changed array; the given one must stay as it is."""
        raise NotImplementedError

    def _occurs(self):
        return np.random.rand() < self.prob

    def __repr__(self):
        arguments = ', '.join(
            f'{key}={value!r}'
            for key, value in vars(self).items()
            if not key.startswith('_')
        )
        return f'{self.__class__.__name__}({arguments})'


def _check_share(owner, name, value):
    if not (is_number(value) and 0 <= value <= 1):
        raise ConfigError(
            f'{type(owner).__name__}: {name} must be in [0, 1], got {value!r}.'
        )


def _check_not_negative(owner, name, value):
    if not (is_number(value) and value >= 0):
        raise ConfigError(
            f'{type(owner).__name__}: {name} must be 0 or more, got {value!r}.'
        )


@TRANSFORMS.register_module()
class RandomJitter(_RandomArrayTransform):
    """Add Gaussian noise to every value.

    Required Keys:

    - img (torch.Tensor, (C, T, *space))

    Modified Keys:

    - img

    Args:
        std (float): Standard deviation, in the unit of the values.
        prob (float): Probability of any change. Defaults to 1.
    """

    def __init__(self, std, prob=1.0):
        super().__init__(prob)
        _check_not_negative(self, 'std', std)
        self.std = std

    @cache_randomness
    def _draw(self, shape):
        if not self._occurs():
            return None
        noise = np.random.normal(0.0, self.std, shape)
        return torch.from_numpy(noise.astype(np.float32))

    def change(self, array, drawn):
        """Add the noise."""
        return array + drawn


@TRANSFORMS.register_module()
class RandomChannelScale(_RandomArrayTransform):
    """Multiply every channel by its own factor, drawn around 1.

    Required Keys:

    - img (torch.Tensor, (C, T, *space))

    Modified Keys:

    - img

    Args:
        std (float): Standard deviation of the factors, which are Gaussian.
        prob (float): Probability of any change. Defaults to 1.
    """

    def __init__(self, std, prob=1.0):
        super().__init__(prob)
        _check_not_negative(self, 'std', std)
        self.std = std

    @cache_randomness
    def _draw(self, shape):
        if not self._occurs():
            return None
        factors = np.random.normal(1.0, self.std, shape[0])
        return torch.from_numpy(factors.astype(np.float32))

    def change(self, array, drawn):
        """Scale the channels."""
        return array * drawn.reshape(-1, *[1] * (array.ndim - 1))


@TRANSFORMS.register_module()
class RandomTimeMask(_RandomArrayTransform):
    """Set all channels of one stretch of time to a number.

    Required Keys:

    - img (torch.Tensor, (C, T, *space))

    Modified Keys:

    - img

    Args:
        max_fraction (float): The length of the stretch is uniform between 0
            and this share of T.
        fill (float): The number; 0 is the mean of normalised arrays.
            Defaults to 0.
        prob (float): Probability of any change. Defaults to 1.
    """

    def __init__(self, max_fraction, fill=0.0, prob=1.0):
        super().__init__(prob)
        _check_share(self, 'max_fraction', max_fraction)
        self.max_fraction = max_fraction
        self.fill = fill

    def array_of(self, results):
        """Refuse a spectrogram, which has mmcmcd.SpecAugment."""
        return timed_array_of(results, self)

    @cache_randomness
    def _draw(self, shape):
        if not self._occurs():
            return None
        length = round(np.random.uniform(0, self.max_fraction) * shape[1])
        start = np.random.randint(shape[1] - length + 1)
        return start, start + length

    def change(self, array, drawn):
        """Mask a stretch."""
        start, stop = drawn
        array = array.clone()
        array[:, start:stop] = self.fill
        return array


@TRANSFORMS.register_module()
class RandomRotation3D(_RandomArrayTransform):
    """Turn a skeleton, or other points in space, about one axis.

    All points at all times turn by one angle, about the axis through the
    mean of them all. Place it before a normalisation by channel, which
    stretches the axes of space.

    Required Keys:

    - img (torch.Tensor, (3 * points, T): x, y, z of the first point, then of
      the second, ..., as ``LoadArray(axes='TVC')`` makes it)

    Modified Keys:

    - img

    Args:
        max_angle (float): In degrees; the angle is uniform between minus
            this and this.
        axis (str): 'x', 'y' or 'z'. Defaults to 'y', the vertical of
            cameras such as the Kinect.
        prob (float): Probability of any change. Defaults to 1.

    Raises:
        ConfigError: An argument makes no sense, or the channels are no
            triples.
    """

    def __init__(self, max_angle, axis='y', prob=1.0):
        super().__init__(prob)
        if axis not in ('x', 'y', 'z'):
            raise ConfigError(
                "RandomRotation3D: axis must be 'x', 'y' or 'z', got "
                f'{axis!r}.'
            )
        _check_not_negative(self, 'max_angle', max_angle)
        self.max_angle = max_angle
        self.axis = axis

    def array_of(self, results):
        """Refuse what is no series of points."""
        array = timed_array_of(results, self)
        if array.ndim != 2 or array.shape[0] % 3:
            raise ConfigError(
                'RandomRotation3D: expected x, y, z of points, (3 * points, '
                f'time), got shape {tuple(array.shape)}.'
            )
        return array

    @cache_randomness
    def _draw(self, shape):
        """Return the angle in radians."""
        if not self._occurs():
            return None
        return np.radians(np.random.uniform(-self.max_angle, self.max_angle))

    def change(self, array, drawn):
        """Turn the points."""
        points = array.reshape(-1, 3, array.shape[1])
        centre = points.mean(dim=(0, 2), keepdim=True)
        turned = self._matrix(drawn) @ (points - centre)
        return (turned + centre).reshape(array.shape)

    def _matrix(self, angle):
        """Right-handed rotation about the axis, (3, 3)."""
        first, second = [i for i in range(3) if 'xyz'[i] != self.axis]
        if self.axis == 'y':  # x, y, z is z, x, y in the plane of y
            first, second = second, first
        matrix = torch.eye(3)
        matrix[first, first] = matrix[second, second] = float(np.cos(angle))
        matrix[second, first] = float(np.sin(angle))
        matrix[first, second] = -matrix[second, first]
        return matrix


def resize_frames(clip, size, interpolation):
    """Resize every frame of a clip.

    Pixel centres are aligned; bilinear resizing does not smooth before
    shrinking.

    Args:
        clip (torch.Tensor): (C, T, H, W).
        size (tuple[int, int]): Height and width.
        interpolation (str): 'nearest' or 'bilinear'.

    Returns:
        torch.Tensor: (C, T, *size).
    """
    modes = dict(nearest='nearest-exact', bilinear='bilinear')
    return interpolate(clip, size, mode=modes[interpolation])


def _check_interpolation(owner, interpolation):
    if interpolation not in ('nearest', 'bilinear'):
        raise ConfigError(
            f"{type(owner).__name__}: interpolation must be 'nearest' or "
            f"'bilinear', got {interpolation!r}."
        )


def _height_and_width(owner, size):
    sides = size if isinstance(size, (list, tuple)) else (size, size)
    if len(sides) != 2 or not all(is_whole(side, 1) for side in sides):
        raise ConfigError(
            f'{type(owner).__name__}: size must be a whole number, or '
            f'(height, width), 1 or more, got {size!r}.'
        )
    return tuple(sides)


def _clip_of(results, owner):
    clip = array_of(results, owner)
    if clip.ndim != 4:
        raise ConfigError(
            f'{type(owner).__name__}: expected a clip (channels, time, '
            f'height, width), got shape {tuple(clip.shape)}.'
        )
    return clip


@TRANSFORMS.register_module()
class ResizeClip(BaseTransform):
    """Resize all frames of a clip.

    Required Keys:

    - img (torch.Tensor, (C, T, H, W))

    Modified Keys:

    - img ((C, T, *size))
    - img_shape

    Args:
        size (int | tuple[int, int]): Height and width.
        interpolation (str): 'nearest' or 'bilinear'. Defaults to 'nearest',
            which mixes no depth across edges and holes.

    Raises:
        ConfigError: An argument makes no sense, or ``img`` is no clip.
    """

    def __init__(self, size, interpolation='nearest'):
        _check_interpolation(self, interpolation)
        self.size = _height_and_width(self, size)
        self.interpolation = interpolation

    def transform(self, results):
        """Resize ``results['img']``."""
        clip = _clip_of(results, self)
        clip = resize_frames(clip, self.size, self.interpolation)
        return replace_array(results, clip)

    def __repr__(self):
        return (
            f'{self.__class__.__name__}(size={self.size}, '
            f'interpolation={self.interpolation!r})'
        )


@TRANSFORMS.register_module()
class RandomResizedCropClip(_RandomArrayTransform):
    """Crop all frames of a clip at one random place, and resize them.

    Area and aspect ratio are drawn as by the crop of Inception (Szegedy et
    al., CVPR 2015), except that a draw that does not fit is cut to the
    frame, not drawn again (our choice).

    Required Keys:

    - img (torch.Tensor, (C, T, H, W))

    Modified Keys:

    - img ((C, T, *size))
    - img_shape

    Args:
        size (int | tuple[int, int]): Height and width of the result.
        area_ratio (tuple[float, float]): Range of the crop's share of the
            frame. Defaults to (0.5, 1.0).
        aspect_ratio (tuple[float, float]): Range by which the ratio of
            width to height differs from the frame's; drawn uniformly in the
            logarithm. Defaults to (3 / 4, 4 / 3).
        interpolation (str): 'nearest' or 'bilinear'. Defaults to 'nearest',
            which mixes no depth across edges and holes.

    Raises:
        ConfigError: An argument makes no sense, or ``img`` is no clip.
    """

    def __init__(
        self,
        size,
        area_ratio=(0.5, 1.0),
        aspect_ratio=(3 / 4, 4 / 3),
        interpolation='nearest',
    ):
        super().__init__(prob=1.0)
        _check_interpolation(self, interpolation)
        if not is_range(area_ratio, 1):
            raise ConfigError(
                'RandomResizedCropClip: area_ratio must be 0 < low <= high '
                f'<= 1, got {area_ratio!r}.'
            )
        if not is_range(aspect_ratio, np.inf):
            raise ConfigError(
                'RandomResizedCropClip: aspect_ratio must be 0 < low <= '
                f'high, got {aspect_ratio!r}.'
            )
        self.size = _height_and_width(self, size)
        self.area_ratio = tuple(area_ratio)
        self.aspect_ratio = tuple(aspect_ratio)
        self.interpolation = interpolation

    def array_of(self, results):
        """Refuse what is no clip."""
        return _clip_of(results, self)

    @cache_randomness
    def _draw(self, shape):
        """Return (top, left, bottom, right)."""
        height, width = shape[-2:]
        area = np.random.uniform(*self.area_ratio)
        aspect = np.exp(np.random.uniform(*np.log(self.aspect_ratio)))
        h = min(height, max(1, round(height * np.sqrt(area / aspect))))
        w = min(width, max(1, round(width * np.sqrt(area * aspect))))
        top = np.random.randint(height - h + 1)
        left = np.random.randint(width - w + 1)
        return top, left, top + h, left + w

    def change(self, array, drawn):
        """Crop and resize the frames."""
        top, left, bottom, right = drawn
        crop = array[..., top:bottom, left:right]
        return resize_frames(crop, self.size, self.interpolation)


@TRANSFORMS.register_module()
class RandomFlipClip(_RandomArrayTransform):
    """Mirror all frames of a clip left-right.

    Required Keys:

    - img (torch.Tensor, (C, T, H, W))

    Modified Keys:

    - img

    Args:
        prob (float): Probability. Defaults to 0.5. Mind that it turns 'left'
            into 'right'.

    Raises:
        ConfigError: ``img`` is no clip.
    """

    def __init__(self, prob=0.5):
        super().__init__(prob)

    def array_of(self, results):
        """Refuse what is no clip."""
        return _clip_of(results, self)

    @cache_randomness
    def _draw(self, shape):
        return True if self._occurs() else None

    def change(self, array, drawn):
        """Mirror the frames."""
        return array.flip(-1)
