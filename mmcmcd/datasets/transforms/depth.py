"""Transforms of depth maps: float32 (H, W) metres, invalid exactly 0."""

import cv2
import numpy as np
from mmcv.transforms import BaseTransform
from mmcv.transforms.utils import cache_randomness

from mmcmcd.errors import ConfigError
from mmcmcd.registry import TRANSFORMS


def note_valid(results, valid):
    """Put beside an image which of its pixels hold a measurement.

    The first to note it is ``FillDepth``, which makes the others up, or what
    turns depth into an input of a network, in which 0 may be a value.

    Args:
        results (dict): A side's; ``valid`` (bool, (H, W)) is set. Pixels that
            were noted as invalid before remain so.
        valid (np.ndarray): Booleans (H, W). Left out where the image's size
            has changed since the last note.
    """
    known = results.get('valid')
    if known is not None:
        if known.shape != valid.shape:
            # Nobody knows where they are now; PackPairedInputs refuses it.
            return
        valid = valid & known
    results['valid'] = valid


def _check_range(owner, low, high):
    if not 0 <= low < high:
        raise ConfigError(
            f'{owner}: 0 <= min_depth < max_depth is needed (metres), got '
            f'min_depth={low}, max_depth={high}.'
        )


@TRANSFORMS.register_module()
class ClipDepth(BaseTransform):
    """Clip valid depth to a range; invalid pixels stay 0.

    ``LoadDepthFromFile(min_depth, max_depth)`` makes values outside invalid
    instead.

    Required Keys:

    - img (float32, (H, W), metres)

    Modified Keys:

    - img

    Args:
        min_depth (float): Lower bound in metres, positive, so that a valid
            pixel stays valid.
        max_depth (float): Upper bound in metres.
    """

    def __init__(self, min_depth, max_depth):
        _check_range('ClipDepth', min_depth, max_depth)
        if min_depth == 0:
            raise ConfigError('ClipDepth: min_depth must be positive, got 0.')
        self.min_depth = min_depth
        self.max_depth = max_depth

    def transform(self, results):
        """Clip ``results['img']``."""
        depth = results['img']
        clipped = np.clip(depth, self.min_depth, self.max_depth)
        clipped[depth <= 0] = 0
        results['img'] = clipped
        return results

    def __repr__(self):
        return (
            f'{self.__class__.__name__}(min_depth={self.min_depth}, '
            f'max_depth={self.max_depth})'
        )


@TRANSFORMS.register_module()
class NormalizeDepth(BaseTransform):
    """Bring depth into a range that a network likes; invalid becomes 0.

    - 'range': ``(d - min) / (max - min)``, clipped to [0, 1].
    - 'log': the same of ``log d``, which gives near and far structure
      similar weight.
    - 'robust': ``(d - mean) / sqrt(var + 1e-6)`` with mean and variance of
      this image's valid pixels after dropping the lowest and highest
      ``trim`` of them, the standardisation of MultiMAE (Bachmann et al.,
      ECCV 2022).  It takes away the absolute scale, and 0 then means "the
      mean" as well as "invalid".

    The result is finite for all-invalid and constant maps.

    Required Keys:

    - img (float32, (H, W), metres)

    Modified Keys:

    - img
    - valid (bool, (H, W)), see :func:`note_valid`

    Args:
        mode (str): 'range', 'log' or 'robust'.  Defaults to 'range'.
        min_depth (float): Metres mapped to 0 in 'range' and 'log'; positive
            for 'log'.  Defaults to 0.
        max_depth (float): Metres mapped to 1 in 'range' and 'log'.
            Defaults to 10.
        trim (float): Share dropped at each end in 'robust'.  Defaults to
            0.1.
    """

    def __init__(self, mode='range', min_depth=0.0, max_depth=10.0, trim=0.1):
        if mode not in ('range', 'log', 'robust'):
            raise ConfigError(
                "NormalizeDepth: mode must be 'range', 'log' or 'robust', "
                f'got {mode!r}.'
            )
        _check_range('NormalizeDepth', min_depth, max_depth)
        if mode == 'log' and min_depth <= 0:
            raise ConfigError(
                "NormalizeDepth: mode='log' needs a positive min_depth "
                f'(metres), got {min_depth}.'
            )
        if not 0 <= trim < 0.5:
            raise ConfigError(
                f'NormalizeDepth: trim must be in [0, 0.5), got {trim}.'
            )
        self.mode = mode
        self.min_depth = min_depth
        self.max_depth = max_depth
        self.trim = trim

    def transform(self, results):
        """Normalise ``results['img']``."""
        depth = results['img']
        valid = depth > 0
        out = getattr(self, f'_{self.mode}')(depth, valid)
        out[~valid] = 0
        results['img'] = out
        note_valid(results, valid)
        return results

    def _range(self, depth, valid):
        scale = 1 / (self.max_depth - self.min_depth)
        out = (depth - np.float32(self.min_depth)) * np.float32(scale)
        return np.clip(out, 0, 1, out=out)

    def _log(self, depth, valid):
        low, high = np.log(self.min_depth), np.log(self.max_depth)
        out = np.log(np.maximum(depth, np.float32(self.min_depth)))
        out = (out - np.float32(low)) * np.float32(1 / (high - low))
        return np.clip(out, 0, 1, out=out)

    def _robust(self, depth, valid):
        mean, var = trimmed_moments(depth[valid], self.trim)
        return (depth - np.float32(mean)) * np.float32(1 / np.sqrt(var + 1e-6))

    def __repr__(self):
        return (
            f'{self.__class__.__name__}(mode={self.mode!r}, '
            f'min_depth={self.min_depth}, max_depth={self.max_depth}, '
            f'trim={self.trim})'
        )


def trimmed_moments(values, trim):
    """Mean and variance without the lowest and highest share.

    Args:
        values (np.ndarray): (N,), N may be 0.
        trim (float): Share dropped at each end.

    Returns:
        tuple[float, float]: Mean and variance; (0, 0) when N is 0.
    """
    if values.size == 0:
        return 0.0, 0.0
    low = int(trim * values.size)
    high = max(values.size - low, low + 1)
    if low:
        # A partial sort is enough, the order within does not matter.
        values = np.partition(values, (low, high - 1))[low:high]
    values = values.astype(np.float64)
    return float(values.mean()), float(values.var())


@TRANSFORMS.register_module()
class RepeatChannels(BaseTransform):
    """Repeat a one-channel image, for networks that want three channels.

    Required Keys:

    - img ((H, W) or (H, W, 1))

    Modified Keys:

    - img ((H, W, channels))

    Args:
        channels (int): Number of channels.  Defaults to 3.
    """

    def __init__(self, channels=3):
        if channels < 1:
            raise ConfigError(
                f'RepeatChannels: channels must be >= 1, got {channels}.'
            )
        self.channels = channels

    def transform(self, results):
        """Repeat ``results['img']``."""
        img = results['img']
        if img.ndim == 3 and img.shape[2] == 1:
            img = img[..., 0]
        if img.ndim != 2:
            raise ConfigError(
                'RepeatChannels: a one-channel image is needed, got shape '
                f'{img.shape}; leave this transform out.'
            )
        merged = cv2.merge([img] * self.channels)
        results['img'] = merged.reshape(*img.shape, self.channels)
        return results

    def __repr__(self):
        return f'{self.__class__.__name__}(channels={self.channels})'


@TRANSFORMS.register_module()
class DepthToDisparity(BaseTransform):
    """Replace depth by ``scale / depth``; invalid stays 0.

    Required Keys:

    - img (float32, (H, W), metres)

    Modified Keys:

    - img (float32, (H, W), ``scale`` per metre)
    - valid (bool, (H, W)), see :func:`note_valid`

    Args:
        scale (float): Focal length times baseline, or 1 for inverse depth.
            Defaults to 1.
    """

    def __init__(self, scale=1.0):
        if not scale > 0:
            raise ConfigError(
                f'DepthToDisparity: scale must be positive, got {scale}.'
            )
        self.scale = scale

    def transform(self, results):
        """Invert ``results['img']``."""
        note_valid(results, results['img'] > 0)
        results['img'] = inverse_depth(results['img'], self.scale)
        return results

    def __repr__(self):
        return f'{self.__class__.__name__}(scale={self.scale})'


def inverse_depth(depth, scale=1.0):
    """Return ``scale / depth``, 0 where depth is invalid (<= 0)."""
    return np.divide(
        np.float32(scale),
        depth,
        out=np.zeros(depth.shape, np.float32),
        where=depth > 0,
    )


@TRANSFORMS.register_module()
class FillDepth(BaseTransform):
    """Fill invalid pixels with the depth of the nearest valid one.

    Nearest by OpenCV's distance transform (5x5 chamfer, within about 2 % of
    the Euclidean distance).  An all-invalid map stays 0.

    Required Keys:

    - img (float32, (H, W), metres)

    Modified Keys:

    - img
    - valid (bool, (H, W)), the pixels that were not filled
    """

    def transform(self, results):
        """Fill ``results['img']``."""
        note_valid(results, results['img'] > 0)
        results['img'] = fill_nearest(results['img'])
        return results

    def __repr__(self):
        return f'{self.__class__.__name__}()'


def fill_nearest(depth):
    """Return ``depth`` with 0 replaced by the nearest positive value."""
    invalid = (depth <= 0).astype(np.uint8)
    if not invalid.any() or invalid.all():
        return depth
    _, labels = cv2.distanceTransformWithLabels(
        invalid, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    seeds = invalid == 0
    lookup = np.zeros(labels.max() + 1, depth.dtype)
    lookup[labels[seeds]] = depth[seeds]
    return lookup[labels]


@TRANSFORMS.register_module()
class RandomDepthJitter(BaseTransform):
    """Vary depth as sensors do, in metres; invalid pixels stay 0.

    In this order: one factor for the map, Gaussian noise whose standard
    deviation grows with the square of the distance (as for structured
    light and stereo: Khoshelham and Elberink, Sensors 2012), rectangular
    holes.  A valid pixel outside the holes stays valid.

    Required Keys:

    - img (float32, (H, W), metres)

    Modified Keys:

    - img

    Args:
        scale_range (tuple[float, float]): Range of the factor.  Defaults to
            (0.9, 1.1).
        noise_std (float): Standard deviation in metres at 1 m; at z metres
            it is ``noise_std * z ** 2``.  Defaults to 0.
        max_holes (int): The number of holes is uniform in
            [0, max_holes].  Defaults to 0.
        hole_size (tuple[float, float]): Range of a hole's sides as shares
            of the map's.  Defaults to (0.05, 0.2).
        prob (float): Probability of any change.  Defaults to 0.5.
    """

    MIN_DEPTH = 1e-3  # metres; keeps a noisy pixel valid

    def __init__(
        self,
        scale_range=(0.9, 1.1),
        noise_std=0.0,
        max_holes=0,
        hole_size=(0.05, 0.2),
        prob=0.5,
    ):
        if not 0 < scale_range[0] <= scale_range[1]:
            raise ConfigError(
                'RandomDepthJitter: scale_range must be 0 < low <= high, '
                f'got {scale_range}.'
            )
        if not 0 < hole_size[0] <= hole_size[1] <= 1:
            raise ConfigError(
                'RandomDepthJitter: hole_size must be 0 < low <= high <= 1, '
                f'got {hole_size}.'
            )
        self.scale_range = tuple(scale_range)
        self.noise_std = noise_std
        self.max_holes = max_holes
        self.hole_size = tuple(hole_size)
        self.prob = prob

    @cache_randomness
    def _disabled(self):
        return np.random.rand() >= self.prob

    @cache_randomness
    def _factor(self):
        return np.float32(np.random.uniform(*self.scale_range))

    @cache_randomness
    def _holes(self, height, width):
        """Boxes (top, left, bottom, right)."""
        boxes = []
        for _ in range(np.random.randint(self.max_holes + 1)):
            h, w = (
                max(1, round(np.random.uniform(*self.hole_size) * side))
                for side in (height, width)
            )
            top = np.random.randint(height - h + 1)
            left = np.random.randint(width - w + 1)
            boxes.append((top, left, top + h, left + w))
        return boxes

    def transform(self, results):
        """Vary ``results['img']``."""
        if self._disabled():
            return results
        depth = results['img']
        out = depth * self._factor()
        if self.noise_std > 0:
            noise = np.random.standard_normal(depth.shape)
            out += noise.astype(np.float32) * self.noise_std * out * out
        np.maximum(out, self.MIN_DEPTH, out=out)
        out[depth <= 0] = 0
        for top, left, bottom, right in self._holes(*depth.shape[:2]):
            out[top:bottom, left:right] = 0
        results['img'] = out
        return results

    def __repr__(self):
        return (
            f'{self.__class__.__name__}(scale_range={self.scale_range}, '
            f'noise_std={self.noise_std}, max_holes={self.max_holes}, '
            f'hole_size={self.hole_size}, prob={self.prob})'
        )
