"""Pictures of what an image side of a pair may hold."""

import matplotlib
import numpy as np


def finite_range(values):
    """Least and greatest of the finite values; (0, 0) without any."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        return 0.0, 0.0
    return float(finite.min()), float(finite.max())


def colour_depth(depth, low=2, high=98):
    """Colour a depth map, red near to blue far, invalid black.

    Args:
        depth (np.ndarray): (H, W); any unit, invalid is 0 or not finite.
        low (float): Percentile of the valid values that is red.
        high (float): Percentile of the valid values that is blue.

    Returns:
        np.ndarray: (H, W, 3) uint8, BGR.
    """
    valid = np.isfinite(depth) & (depth != 0)
    out = np.zeros((*depth.shape, 3), np.uint8)
    if valid.any():
        near, far = np.percentile(depth[valid], [low, high])
        scaled = (depth[valid] - near) / max(far - near, 1e-12)
        colours = matplotlib.colormaps['Spectral'](np.clip(scaled, 0, 1))
        out[valid] = (colours[..., 2::-1] * 255).astype(np.uint8)
    return out


def image_picture(img, is_depth=False, channel_order='BGR'):
    """Show any image.

    Args:
        img (np.ndarray): (H, W) or (H, W, C), any type, as in a pipeline.
        is_depth (bool): Whether it is a depth map. Defaults to False.
        channel_order (str): 'BGR' or 'RGB' of colour images.

    Returns:
        np.ndarray: (H, W, 3) uint8, BGR.
    """
    if img.ndim == 3 and (img == img[..., :1]).all() and is_depth:
        img = img[..., 0]
    if img.ndim == 2 and img.dtype != np.uint8:
        return colour_depth(img)
    if img.ndim == 2 or img.shape[2] == 1:
        img = np.repeat(img.reshape(*img.shape[:2], 1), 3, axis=2)
    img = img[..., :3]
    if img.dtype != np.uint8:
        # Normals, HHA, or a normalised image: no scale of its own is known.
        low, high = finite_range(img)
        scaled = (np.clip(img, low, high) - low) / max(high - low, 1e-12)
        img = (np.nan_to_num(scaled) * 255).astype(np.uint8)
    return img if channel_order == 'BGR' else img[..., ::-1]
