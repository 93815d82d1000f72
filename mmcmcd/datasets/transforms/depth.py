"""Transforms of depth maps: float32 (H, W) metres, invalid exactly 0."""

import cv2
import numpy as np
from mmcv.transforms import BaseTransform
from mmcv.transforms.utils import cache_randomness

from mmcmcd.errors import ConfigError
from mmcmcd.registry import TRANSFORMS


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
    """

    def transform(self, results):
        """Fill ``results['img']``."""
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


@TRANSFORMS.register_module()
class DepthToNormals(BaseTransform):
    """Replace depth by surface normals of a pinhole camera.

    Camera axes: x right, y down, z forward; normals have length 1 and point
    to the camera.  Invalid pixels, and those whose neighbourhood has too
    few valid ones for a plane, are (0, 0, 0).

    A plane's inverse depth is affine in pixel coordinates: ``n . P = c``
    with ``P = z ((u - cx) / fx, (v - cy) / fy, 1)`` gives
    ``n_x (u - cx) / fx + n_y (v - cy) / fy + n_z = c / z``.  A least-squares
    fit of that over the valid pixels of a window is therefore exact for
    planes at any window size.  The principal point is the image centre.

    The camera must belong to the image as it is when this runs.  Either
    give ``focal`` in pixels of the files and place this before all
    geometry, which is checked, or give ``fov``, which also holds after a
    resize of the whole frame, but not after a crop.  Later flips and
    rotations move the normals, they do not turn them.

    Required Keys:

    - img (float32, (H, W), metres)
    - ori_shape (with ``focal``)

    Modified Keys:

    - img (float32, (H, W, 3), in [-1, 1])
    - modality ('normals')

    Args:
        fov (float, optional): Horizontal field of view in degrees, pixels
            being square.
        focal (tuple[float, float], optional): (fx, fy) in pixels of the
            files.  Exactly one of the two must be given.
        window (int): Side of the window, odd.  Larger is smoother.
            Defaults to 5.

    Raises:
        ConfigError: Not exactly one camera given, or ``focal`` used after
            the size changed.
    """

    def __init__(self, fov=None, focal=None, window=5):
        self.camera = Camera(type(self).__name__, fov, focal)
        _check_window(type(self).__name__, window)
        self.window = window

    def transform(self, results):
        """Replace ``results['img']``."""
        focal = self.camera.focal_for(results)
        results['img'] = surface_normals(results['img'], focal, self.window)
        results['modality'] = 'normals'
        return results

    def __repr__(self):
        return (
            f'{self.__class__.__name__}(fov={self.camera.fov}, '
            f'focal={self.camera.focal}, window={self.window})'
        )


def _check_window(owner, window):
    if window < 3 or window % 2 == 0:
        raise ConfigError(
            f'{owner}: window must be odd and at least 3, got {window}.'
        )


class Camera:
    """Field of view or focal lengths, and the check that they apply."""

    def __init__(self, owner, fov=None, focal=None):
        if (fov is None) == (focal is None):
            raise ConfigError(
                f'{owner}: give exactly one of fov (degrees) and focal '
                f'((fx, fy) in pixels), got fov={fov}, focal={focal}.'
            )
        if fov is not None and not 0 < fov < 180:
            raise ConfigError(
                f'{owner}: fov must be in (0, 180) degrees, got {fov}.'
            )
        self.owner = owner
        self.fov = fov
        self.focal = focal

    def focal_for(self, results):
        """Return (fx, fy) in pixels of ``results['img']``."""
        height, width = results['img'].shape[:2]
        if self.fov is not None:
            f = width / 2 / np.tan(np.radians(self.fov) / 2)
            return f, f
        original = tuple(results['ori_shape'][:2])
        if original != (height, width):
            raise ConfigError(
                f'{self.owner}: focal={self.focal} belongs to the files '
                f'({original[1]}x{original[0]} pixels), but the image is '
                f'{width}x{height} here. Place this transform before '
                'geometric ones, or give fov.'
            )
        return self.focal


def surface_normals(depth, focal, window=5):
    """Normals by plane fits to inverse depth, see :class:`DepthToNormals`.

    Args:
        depth (np.ndarray): (H, W) metres, invalid 0.
        focal (tuple[float, float]): (fx, fy) in pixels.
        window (int): Odd side of the window.

    Returns:
        np.ndarray: float32 (H, W, 3), unit length or zero.
    """
    height, width = depth.shape
    valid = depth > 0
    weight = valid.astype(np.float32)
    inverse = inverse_depth(depth)
    offsets = np.arange(window, dtype=np.float32) - window // 2
    ones = np.ones(window, np.float32)

    def moment(img, kx, ky):
        return cv2.sepFilter2D(
            img, cv2.CV_32F, kx, ky, borderType=cv2.BORDER_CONSTANT
        )

    squares = offsets * offsets
    n = moment(weight, ones, ones)
    su, sv = moment(weight, offsets, ones), moment(weight, ones, offsets)
    suu, svv = moment(weight, squares, ones), moment(weight, ones, squares)
    suv = moment(weight, offsets, offsets)
    r = moment(inverse, ones, ones)
    ru, rv = moment(inverse, offsets, ones), moment(inverse, ones, offsets)

    # Normal equations of  inverse = a du + b dv + c  by Cramer's rule after
    # removing the mean (a 2x2 system).
    count = np.maximum(n, 1)
    cuu, cvv = suu - su * su / count, svv - sv * sv / count
    cuv = suv - su * sv / count
    cru, crv = ru - r * su / count, rv - r * sv / count
    det = cuu * cvv - cuv * cuv
    solvable = valid & (det > 0.5)
    det[~solvable] = 1
    a = (cru * cvv - crv * cuv) / det
    b = (crv * cuu - cru * cuv) / det
    c = (r - a * su - b * sv) / count

    u = np.arange(width, dtype=np.float32) - (width - 1) / 2
    v = np.arange(height, dtype=np.float32)[:, None] - (height - 1) / 2
    normals = np.empty((height, width, 3), np.float32)
    fx, fy = focal
    # The left side of the plane equation is c / z > 0 with n away from the
    # camera; hence the minus signs.
    np.multiply(a, -fx, out=normals[..., 0])
    np.multiply(b, -fy, out=normals[..., 1])
    np.subtract(a * u + b * v, c, out=normals[..., 2])
    length = np.sqrt(np.einsum('hwc,hwc->hw', normals, normals))
    solvable &= length > 0
    length[~solvable] = 1
    normals /= length[..., None]
    normals[~solvable] = 0
    return normals


@TRANSFORMS.register_module()
class DepthToHHA(BaseTransform):
    """Encode depth as disparity, height above ground and angle to gravity.

    After Gupta, Girshick, Arbelaez and Malik (ECCV 2014) and the code
    published with it, values in [0, 255] so that image statistics apply:

    - horizontal disparity, ``31000 / max(depth in cm, 100)``;
    - height above the lowest point, in cm.  When that point is less than
      90 cm below the camera, the floor is not in view and is taken to be
      130 cm below it;
    - angle between normal and the upward direction in degrees, plus 38.

    The upward direction comes from :func:`estimate_up`.  Invalid pixels are
    (0, 0, 0); a pixel without a normal has angle 0.  The camera is given as
    for :class:`DepthToNormals`.

    Required Keys:

    - img (float32, (H, W), metres)
    - ori_shape (with ``focal``)

    Modified Keys:

    - img (float32, (H, W, 3), in [0, 255])
    - modality ('hha')

    Args:
        fov (float, optional): Horizontal field of view in degrees.
        focal (tuple[float, float], optional): (fx, fy) in pixels of the
            files.
        window (int): Side of the normals' window, odd.  Defaults to 7.
    """

    def __init__(self, fov=None, focal=None, window=7):
        self.camera = Camera(type(self).__name__, fov, focal)
        _check_window(type(self).__name__, window)
        self.window = window

    def transform(self, results):
        """Replace ``results['img']``."""
        focal = self.camera.focal_for(results)
        results['img'] = encode_hha(results['img'], focal, self.window)
        results['modality'] = 'hha'
        return results

    def __repr__(self):
        return (
            f'{self.__class__.__name__}(fov={self.camera.fov}, '
            f'focal={self.camera.focal}, window={self.window})'
        )


def encode_hha(depth, focal, window=7):
    """Encode depth as HHA, see :class:`DepthToHHA`.

    Args:
        depth (np.ndarray): (H, W) metres, invalid 0.
        focal (tuple[float, float]): (fx, fy) in pixels.
        window (int): Odd side of the normals' window.

    Returns:
        np.ndarray: float32 (H, W, 3) in [0, 255].
    """
    height, width = depth.shape
    valid = depth > 0
    hha = np.zeros((height, width, 3), np.float32)
    if not valid.any():
        return hha
    normals = surface_normals(depth, focal, window)
    up = estimate_up(normals)

    u = (np.arange(width, dtype=np.float32) - (width - 1) / 2) / focal[0]
    v = (np.arange(height, dtype=np.float32) - (height - 1) / 2) / focal[1]
    # Height over the camera in cm: 100 * P . up.
    elevation = (u * up[0] + (v * up[1])[:, None] + up[2]) * depth * 100
    lowest = elevation[valid].min()
    floor = lowest if lowest <= -90 else -130

    hha[..., 0] = 31000 / np.maximum(depth * 100, 100)
    hha[..., 1] = elevation - floor
    cosine = np.clip(normals @ up, -1, 1)
    known = np.einsum('hwc,hwc->hw', normals, normals) > 0
    hha[..., 2] = np.where(known, np.degrees(np.arccos(cosine)) + 38, 0)
    hha[~valid] = 0
    return np.clip(hha, 0, 255, out=hha)


def estimate_up(normals, max_normals=20000):
    """Estimate the upward direction from surface normals.

    The iteration of Gupta, Arbelaez and Malik (CVPR 2013), section on
    gravity: starting from the image's upward direction, take the normals
    (nearly) parallel and those (nearly) orthogonal to the estimate, and
    choose the direction most parallel to the first and most orthogonal to
    the second, the smallest eigenvector of ``W W^T - F F^T``; five rounds
    with a tolerance of 45 degrees, five with 15.

    Args:
        normals (np.ndarray): (..., 3), zero where unknown, axes x right,
            y down, z forward.
        max_normals (int): At most about so many are used, evenly spread.

    Returns:
        np.ndarray: float32 (3,), unit length; (0, -1, 0) without normals.
    """
    start = np.array([0, -1, 0], np.float32)
    flat = normals.reshape(-1, 3)
    flat = flat[:: max(1, len(flat) // max_normals)]
    flat = flat[flat.any(axis=1)]
    up = start
    for degrees in [45] * 5 + [15] * 5:
        cosine = np.abs(flat @ up)
        tolerance = np.radians(degrees)
        floors = flat[cosine > np.cos(tolerance)]
        walls = flat[cosine < np.sin(tolerance)]
        if not len(floors) and not len(walls):
            break
        _, vectors = np.linalg.eigh(walls.T @ walls - floors.T @ floors)
        up = vectors[:, 0] * (1 if vectors[:, 0] @ start >= 0 else -1)
    return up.astype(np.float32)
