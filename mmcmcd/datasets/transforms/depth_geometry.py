"""Encodings of depth that need the camera: surface normals and HHA."""

import cv2
import numpy as np
from mmcv.transforms import BaseTransform

from mmcmcd.errors import ConfigError
from mmcmcd.registry import TRANSFORMS

from .depth import inverse_depth, note_valid


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
    - valid (bool, (H, W)): pixels with a normal
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
        normals = surface_normals(results['img'], focal, self.window)
        note_valid(results, normals.any(axis=2))
        results['img'] = normals
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
    - valid (bool, (H, W)): pixels with a depth
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
        note_valid(results, results['img'] > 0)
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
