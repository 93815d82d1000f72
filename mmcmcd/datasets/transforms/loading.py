"""Loading of depth maps and images, strict about broken files."""

import os

import cv2
import mmcv
import mmengine.fileio as fileio
import numpy as np
from mmcv.transforms import BaseTransform, LoadImageFromFile
from PIL import Image

from mmcmcd.errors import ConfigError, UnreadableFileError
from mmcmcd.registry import TRANSFORMS

from ..archives import split_archive_path
from ..npy_files import NPY_MAGIC, decode_npy
from .image_headers import (
    EXR_MAGIC,
    MAX_PIXELS,
    check_complete,
    check_max_pixels,
    check_pixels,
)

_EXR_SWITCH = 'OPENCV_IO_ENABLE_OPENEXR'


def read_bytes(path, backend_args=None):
    """Read a whole file through mmengine's storage backends.

    Args:
        path (str): Path or URI.
        backend_args (dict, optional): See :func:`mmengine.fileio.get`.

    Returns:
        bytes: The content, never empty.

    Raises:
        UnreadableFileError: The file is missing, unreadable or empty.
    """
    try:
        content = fileio.get(path, backend_args=backend_args)
    except FileNotFoundError as error:
        raise UnreadableFileError(
            f'File does not exist: {path}. Check data_root, the folder and '
            'the suffix of this side.'
        ) from error
    except OSError as error:
        archive, name = split_archive_path(path)
        if archive and name:
            raise UnreadableFileError(
                f"'{name}' in {archive} is an array in an archive, which "
                'this loader does not read. Load series and clips by '
                'mmcmcd.LoadArray, one image of many by mmcmcd.LoadArrayRow.'
            ) from error
        raise UnreadableFileError(f'Cannot read {path}: {error}') from error
    if not content:
        raise UnreadableFileError(
            f'File is empty (0 bytes): {path}. Restore it or take it out of '
            'the list.'
        )
    return content


@TRANSFORMS.register_module()
class LoadImageStrict(LoadImageFromFile):
    """mmcv's ``LoadImageFromFile`` that never returns half an image.

    The stock transform hands bytes to the decoder unchecked, and OpenCV may
    fill the missing part of a truncated JPEG with grey.  Here the bytes are
    read once, checked for the end marker and for the size that their header
    claims, and then decoded as mmcv does.
    Damage in the middle of a JPEG that leaves it decodable is not detected.

    Required Keys:

    - img_path

    Added Keys:

    - img
    - img_shape
    - ori_shape

    Args:
        max_pixels (int): Refuse images of more, width times height, before
            they are decoded.  Defaults to 89478485, Pillow's own limit.
        **kwargs: As for :class:`mmcv.transforms.LoadImageFromFile`.  With
            ``ignore_empty=True`` a broken file gives None.

    Raises:
        ConfigError: ``max_pixels`` is not positive.
        UnreadableFileError: The file is missing, empty, truncated, too large
            or not an image.
    """

    def __init__(self, *, max_pixels=MAX_PIXELS, **kwargs):
        check_max_pixels(self, max_pixels)
        self.max_pixels = max_pixels
        super().__init__(**kwargs)

    def transform(self, results):
        """Read, check and decode ``results['img_path']``."""
        path = results['img_path']
        try:
            img = self._load(path)
        except UnreadableFileError:
            if self.ignore_empty:
                return None
            raise
        if self.to_float32:
            img = img.astype(np.float32)
        results['img'] = img
        results['img_shape'] = img.shape[:2]
        results['ori_shape'] = img.shape[:2]
        return results

    def _load(self, path):
        content = read_bytes(path, self.backend_args)
        check_complete(content, path)
        check_pixels(content, path, self.max_pixels)
        try:
            img = mmcv.imfrombytes(
                content, flag=self.color_type, backend=self.imdecode_backend
            )
        # Pillow has an error for every format, and one for large images.
        except (
            cv2.error,
            OSError,
            SyntaxError,
            ValueError,
            Image.DecompressionBombError,
        ) as error:
            raise UnreadableFileError(
                f'Cannot decode image {path}: {error}'
            ) from error
        if img is None:
            raise UnreadableFileError(
                f'Cannot decode {path}: it is damaged or not an image '
                f'({len(content)} bytes, starts with {content[:8]!r}).'
            )
        return img


@TRANSFORMS.register_module()
class LoadDepthFromFile(BaseTransform):
    """Load a depth map as float32 metres, invalid pixels exactly 0.

    8- and 16-bit PNG, TIFF, NPY and, where OpenCV was built with it, EXR.
    ``metres = stored / depth_scale``.  NaN, infinite and negative values,
    values in ``invalid_values`` and values outside
    ``[min_depth, max_depth]`` become 0 = invalid, so that nearest resizing,
    cropping and zero padding keep the validity and no mask is carried.

    Required Keys:

    - img_path

    Added Keys:

    - img (float32, (H, W), metres)
    - img_shape
    - ori_shape
    - modality ('depth')

    Args:
        depth_scale (float): Stored units per metre: 1000 for millimetres,
            25.5 for 8 bits over 10 m, 1 for metres.
        expected_dtype (str, optional): Refuse files stored otherwise, e.g.
            'uint16'.  An 8-bit file where 16 bits were promised otherwise
            gives plausible but wrong depth.
        min_depth (float): Smallest valid depth in metres.  Defaults to 0.
        max_depth (float, optional): Largest valid depth in metres.
        invalid_values (tuple): Stored values that mean "no measurement".
            Defaults to (0,).
        min_valid_fraction (float): Smallest accepted share of valid pixels.
            Defaults to 0, so an all-invalid map is accepted.
        ignore_empty (bool): Return None for an unreadable file, as stock
            loaders do, instead of raising.  Defaults to False.
        backend_args (dict, optional): See :func:`mmengine.fileio.get`.
        max_pixels (int): Refuse images of more, width times height, before
            they are decoded.  Defaults to 89478485, Pillow's own limit.

    Raises:
        ConfigError: An argument is out of range.
        UnreadableFileError: The file is missing, empty, truncated, too
            large, has another bit depth than promised, has colour channels,
            or too few valid pixels.
    """

    def __init__(
        self,
        depth_scale,
        expected_dtype=None,
        min_depth=0.0,
        max_depth=None,
        invalid_values=(0,),
        min_valid_fraction=0.0,
        ignore_empty=False,
        backend_args=None,
        max_pixels=MAX_PIXELS,
    ):
        check_max_pixels(self, max_pixels)
        if not depth_scale > 0:
            raise ConfigError(
                'LoadDepthFromFile: depth_scale must be positive (stored '
                f'units per metre, e.g. 1000 for mm), got {depth_scale}.'
            )
        if max_depth is not None and max_depth <= min_depth:
            raise ConfigError(
                'LoadDepthFromFile: max_depth must exceed min_depth, got '
                f'min_depth={min_depth}, max_depth={max_depth}.'
            )
        self.depth_scale = depth_scale
        self.expected_dtype = expected_dtype
        self.min_depth = min_depth
        self.max_depth = max_depth
        self.invalid_values = tuple(invalid_values)
        self.min_valid_fraction = min_valid_fraction
        self.ignore_empty = ignore_empty
        self.backend_args = backend_args
        self.max_pixels = max_pixels

    def transform(self, results):
        """Load ``results['img_path']`` into ``results['img']``."""
        path = results['img_path']
        try:
            depth = self._to_metres(self._read(path))
            self._check_valid_fraction(depth, path)
        except UnreadableFileError:
            if self.ignore_empty:
                return None
            raise
        results['img'] = depth
        results['img_shape'] = depth.shape
        results['ori_shape'] = depth.shape
        results['modality'] = 'depth'
        return results

    def _read(self, path):
        """Return the stored (H, W) array, checked."""
        content = read_bytes(path, self.backend_args)
        if content.startswith(NPY_MAGIC):
            stored = decode_npy(content, path)
        else:
            check_complete(content, path)
            check_pixels(content, path, self.max_pixels)
            stored = _decode_image(content, path)
        if stored.ndim == 3 and stored.shape[2] == 1:
            stored = stored[..., 0]
        if stored.ndim != 2:
            raise UnreadableFileError(
                f'Not a depth map: {path} has shape {stored.shape} '
                '(a colour image?); expected one channel, (H, W).'
            )
        if stored.dtype.kind not in 'uif':
            raise UnreadableFileError(
                f'Not a depth map: {path} stores {stored.dtype}; expected '
                'integers or floats.'
            )
        expected = self.expected_dtype
        if expected is not None and stored.dtype != np.dtype(expected):
            raise UnreadableFileError(
                f'Wrong bit depth: {path} stores {stored.dtype}, '
                f'expected_dtype is {expected}. Convert the file again, or '
                'set expected_dtype and depth_scale to what is stored.'
            )
        return stored

    def _to_metres(self, stored):
        with np.errstate(invalid='ignore', over='ignore'):
            depth = np.divide(
                stored,
                np.float32(self.depth_scale),
                dtype=np.float32,
                casting='unsafe',
            )
        invalid = [stored == v for v in self.invalid_values if v != 0]
        if stored.dtype.kind == 'f':
            invalid.append(~np.isfinite(depth))
        if stored.dtype.kind in 'if' or self.min_depth > 0:
            invalid.append(depth < self.min_depth)
        if self.max_depth is not None:
            invalid.append(depth > self.max_depth)
        for mask in invalid:
            depth[mask] = 0
        return depth

    def _check_valid_fraction(self, depth, path):
        if self.min_valid_fraction <= 0:
            return
        fraction = np.count_nonzero(depth) / depth.size
        if fraction < self.min_valid_fraction:
            raise UnreadableFileError(
                f'Too few valid pixels: {path} has {fraction:.1%}, '
                f'min_valid_fraction is {self.min_valid_fraction:.1%} '
                f'(depth_scale={self.depth_scale}, '
                f'min_depth={self.min_depth}, max_depth={self.max_depth}).'
            )

    def __repr__(self):
        return (
            f'{self.__class__.__name__}(depth_scale={self.depth_scale}, '
            f'expected_dtype={self.expected_dtype!r}, '
            f'min_depth={self.min_depth}, max_depth={self.max_depth}, '
            f'invalid_values={self.invalid_values}, '
            f'min_valid_fraction={self.min_valid_fraction})'
        )


def _decode_image(content, path):
    reason = 'it is damaged, truncated or not an image'
    if content.startswith(EXR_MAGIC):
        if os.environ.get(_EXR_SWITCH) != '1':
            raise UnreadableFileError(
                f'Cannot decode {path}: OpenCV reads EXR only with the '
                f'environment variable {_EXR_SWITCH}=1, set before Python '
                'starts. Or convert the data to 16-bit PNG, TIFF or NPY.'
            )
        reason += ', or this OpenCV was built without EXR'
    try:
        img = cv2.imdecode(
            np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED
        )
    except cv2.error as error:
        raise UnreadableFileError(f'Cannot decode {path}: {error}') from error
    if img is None:
        raise UnreadableFileError(
            f'Cannot decode {path}: {reason} ({len(content)} bytes, starts '
            f'with {content[:8]!r}).'
        )
    return img
