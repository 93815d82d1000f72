"""The camera: where it stands, and what its two sensors make of a room."""

from typing import NamedTuple

import numpy as np

from .raycast import NUM_SHELL, cast

# Calibrated RGB camera of NYU-Depth V2: 518.86 pixels at a width of 640.
FOCAL_PER_WIDTH = 518.86 / 640
DEPTH_RANGE = (0.7, 10.0)
_KINECT_FOCAL, _KINECT_BASELINE = 580.0, 0.075
_CANDIDATES = 8


class Camera(NamedTuple):
    """A pose: (3, 1) position and (3, 3) columns right, down, forward."""

    position: np.ndarray
    axes: np.ndarray

    def rays(self, height, width, shift=(0.0, 0.0)):
        """Directions through the pixels, of length 1 along the camera's z.

        Args:
            height (int): Rows.
            width (int): Columns.
            shift (tuple): Offset (down, right) from the pixels' centres.

        Returns:
            np.ndarray: (3, height * width) float32.
        """
        focal = FOCAL_PER_WIDTH * width
        y = (np.arange(height) + 0.5 + shift[0] - height / 2) / focal
        x = (np.arange(width) + 0.5 + shift[1] - width / 2) / focal
        grid = np.stack(
            [np.tile(x, height), np.repeat(y, width), np.ones(height * width)]
        )
        return (self.axes @ grid).astype(np.float32)


def _axes(yaw, pitch, roll):
    level = np.cos(pitch)
    forward = np.array(
        [np.cos(yaw) * level, np.sin(yaw) * level, np.sin(pitch)]
    )
    right = np.array([np.sin(yaw), -np.cos(yaw), 0.0])
    down = np.cross(forward, right)
    cos, sin = np.cos(roll), np.sin(roll)
    return np.stack(
        [cos * right + sin * down, cos * down - sin * right, forward], axis=1
    )


def _random_camera(room, rng):
    """Somewhere on free floor, looking roughly across the room."""
    inner = room.size[:2] - 0.3
    for _ in range(30):
        spot = rng.uniform(0.3, inner)
        boxes = room.footprints
        blocked = (spot > boxes[:, :2] - 0.3) & (spot < boxes[:, 2:] + 0.3)
        if not blocked.all(axis=1).any():
            break
    aim = rng.uniform(0.25, 0.75, 2) * room.size[:2] - spot
    yaw = np.arctan2(aim[1], aim[0]) + rng.normal(0, 0.3)
    pitch, roll = rng.normal(-0.22, 0.13), rng.normal(0, 0.03)
    position = np.array([[*spot, rng.uniform(1.0, 1.7)]], np.float32).T
    return Camera(position, _axes(yaw, pitch, roll))


def choose_camera(room, rng):
    """The best of some random poses.

    Preferred are views with many classes and much furniture but nothing
    right before the lens, as a person with a camera would choose them.

    Args:
        room (scene.Room): Where to stand.
        rng (np.random.Generator): Draws the poses.

    Returns:
        Camera: The pose.
    """
    poses = [_random_camera(room, rng) for _ in range(_CANDIDATES)]
    rays = [pose.rays(12, 16) for pose in poses]
    origin = np.concatenate(
        [np.repeat(pose.position, 12 * 16, axis=1) for pose in poses], axis=1
    )
    depth, part = cast(room.size, room.groups, origin, np.hstack(rays))
    depth = depth.reshape(len(poses), -1)
    classes = room.classes[part].reshape(len(poses), -1)
    variety = np.array(
        [np.sum(np.bincount(row, minlength=40) >= 2) for row in classes]
    )
    close = (depth < DEPTH_RANGE[0] + 0.1).mean(axis=1)
    flat = (np.median(depth, axis=1) < 1.3) * 3
    furnished = (part.reshape(len(poses), -1) >= NUM_SHELL).mean(axis=1)
    return poses[np.argmax(variety + 6 * furnished - 25 * close - flat)]


def develop(radiance, rng):
    """Turn scene radiance into the picture of a cheap colour camera.

    Exposure, white balance, vignetting, noise and the sRGB-like curve.

    Args:
        radiance (np.ndarray): (H, W, 3) linear, non-negative.
        rng (np.random.Generator): Draws the camera's settings and noise.

    Returns:
        np.ndarray: (H, W, 3) uint8 RGB.
    """
    height, width = radiance.shape[:2]
    level = np.exp(np.log(radiance + 1e-3).mean())
    image = radiance * np.float32(rng.uniform(0.2, 0.36) / level)
    image *= rng.uniform(0.92, 1.08, 3).astype(np.float32)
    y = (np.arange(height, dtype=np.float32) / height - 0.5)[:, None]
    x = np.arange(width, dtype=np.float32) / width - 0.5
    image *= (1 - rng.uniform(0.2, 0.7) * (x * x + y * y))[:, :, None]
    # Linear in the shadows, saturating softly: no burnt-out lamps.
    image = image * (1 + image / 4) / (1 + image)
    image = np.clip(image, 0, 1) ** np.float32(1 / 2.2)
    spread = np.float32(rng.uniform(0.006, 0.02))
    image += spread * rng.standard_normal(image.shape, dtype=np.float32)
    return (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)


def sense_depth(depth, slant, absorbing, rng, holes):
    """Give exact depth the errors of a structured-light sensor.

    The disparity gets Gaussian noise and is rounded to an eighth of a pixel,
    so that the error grows with the square of the distance (K. Khoshelham,
    S. Elberink, *Accuracy and Resolution of Kinect Depth Data for Indoor
    Mapping Applications*, Sensors 2012); the values at edges come from a
    neighbouring pixel now and then.

    Args:
        depth (np.ndarray): (H, W) metres along the camera's z.
        slant (np.ndarray): (H, W) cosine between ray and surface normal.
        absorbing (np.ndarray): (H, W) bool, glass and black screens.
        rng (np.random.Generator): Draws the errors.
        holes (bool): Whether pixels without a return become 0; otherwise
            they are filled as in the labelled NYU set: all are valid.

    Returns:
        np.ndarray: (H, W) float32 metres within DEPTH_RANGE, or 0.
    """
    height, width = depth.shape
    rows = np.arange(height)[:, None] + _jump(rng, depth.shape)
    columns = np.arange(width) + _jump(rng, depth.shape)
    noisy = depth[rows.clip(0, height - 1), columns.clip(0, width - 1)]
    disparity = _KINECT_FOCAL * _KINECT_BASELINE / noisy
    disparity += 0.09 * rng.standard_normal(depth.shape, dtype=np.float32)
    disparity = np.maximum(np.round(disparity * 8) / 8, 1)
    noisy = (_KINECT_FOCAL * _KINECT_BASELINE / disparity).astype(np.float32)
    if not holes:
        return noisy.clip(*DEPTH_RANGE)
    chance = 0.002 + 0.7 * (slant < 0.12) + 0.6 * absorbing
    lost = rng.random(depth.shape, dtype=np.float32) < chance
    lost |= _shadowed(depth)
    lost |= (noisy < DEPTH_RANGE[0]) | (noisy > DEPTH_RANGE[1])
    return np.where(lost, np.float32(0), noisy)


def _jump(rng, shape):
    """-1, 0 or 1, mostly 0."""
    draw = rng.random(shape, dtype=np.float32)
    return (draw > 0.94).astype(np.int64) - (draw < 0.06)


def _shadowed(depth):
    """Pixels that the sensor's projector, beside the camera, does not reach.

    Seen from the projector, a pixel is hidden if one further left in the
    picture appears further right there.
    """
    width = depth.shape[1]
    shift = FOCAL_PER_WIDTH * width * _KINECT_BASELINE / depth
    place = np.arange(width) + shift
    return place < np.maximum.accumulate(place, axis=1) - 0.5
