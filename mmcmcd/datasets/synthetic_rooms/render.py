"""One frame: colour, depth and labels of a view into a room."""

import numpy as np

from mmcmcd.errors import ConfigError

from ..nyu_meta import IGNORE_INDEX
from .camera import choose_camera, develop, sense_depth
from .materials import albedo, noise
from .pieces import CLASS_ID
from .raycast import SURFACE_OFFSET, cast, surface, visible
from .scene import build_room

VIEWS_PER_ROOM = 3
# Where the extra rays of a pixel on an edge go, in pixels.
_SUBPIXELS = ((-0.28, 0.22), (0.22, 0.3), (0.05, -0.33))
_ABSORBING = [CLASS_ID[n] for n in ('window', 'television', 'mirror')]


def render_room(seed, frame, height=120, width=160, holes=False):
    """Render one frame of the endless set of rooms with a given seed.

    Frames 3k, 3k+1 and 3k+2 look into the same room from different places.
    A frame depends on nothing but the arguments.

    Args:
        seed (int): Seed of the set, not negative.
        frame (int): Number of the frame, not negative.
        height (int): Rows of the pictures.
        width (int): Columns; the horizontal field of view is always that of
            the NYU camera.
        holes (bool): Whether depth has pixels without a value (0), as a raw
            sensor gives it, instead of being filled in.

    Returns:
        dict: ``rgb`` (H, W, 3) uint8; ``depth`` (H, W) float32 in metres
        along the camera's axis, 0.7..10, or 0 for a hole; ``label`` (H, W)
        uint8, the 40 NYU classes from 0, 255 for unlabelled.

    Raises:
        ConfigError: A size or number makes no sense.
    """
    check_request(seed, frame, height, width)
    room = build_room(seed, frame // VIEWS_PER_ROOM)
    rng = np.random.default_rng([seed, frame, 1])
    camera = choose_camera(room, rng)
    direction = camera.rays(height, width)
    distance, part = cast(room.size, room.groups, camera.position, direction)
    ends = surface(room.groups, camera.position, direction, distance, part)
    # One stream per sensor: the size of one draw cannot shift the other's.
    streams = [np.random.default_rng([seed, frame, i]) for i in (2, 3, 4)]
    radiance = _shade(room, ends, streams[0])
    _smooth_edges(
        radiance, room, camera, part.reshape(height, width), streams[0]
    )
    rgb = develop(radiance.reshape(height, width, 3), streams[1])
    length = np.linalg.norm(direction, axis=0)
    slant = np.abs((ends.normal * direction).sum(axis=0)) / length
    label = room.classes[part]
    depth = sense_depth(
        *(a.reshape(height, width)
          for a in (distance, slant, np.isin(label, _ABSORBING))),
        streams[2], holes,
    )  # fmt: skip
    label = _annotate(label.reshape(height, width), frame)
    return dict(rgb=rgb, depth=depth, label=label)


def check_request(seed, frame, height, width):
    """Refuse arguments of :func:`render_room` that make no sense."""
    if min(seed, frame) < 0:
        raise ConfigError(
            'seed and frame of a synthetic room must not be negative, got '
            f'seed={seed}, frame={frame}'
        )
    if min(height, width) < 8:
        raise ConfigError(
            'synthetic rooms need at least 8 rows and columns, got '
            f'height={height}, width={width}'
        )


def _shade(room, ends, rng):
    """Linear radiance (N, 3) of surface points."""
    material = room.material_of[ends.part]
    colour = np.empty((len(material), 3), np.float32)
    emission = np.zeros((len(material), 1), np.float32)
    for index in np.unique(material):
        rays = np.flatnonzero(material == index)
        mat = room.materials[index]
        colour[rays] = albedo(mat, ends.local[:, rays], ends.axis[rays])
        emission[rays] = mat.emission
    colour **= np.float32(2.2)
    sky = 0.8 + 0.2 * ends.normal[2]
    light = 0.22 * (sky * _corner_shade(room, ends))[:, None]
    light = np.repeat(light, 3, axis=1)
    start = ends.point + SURFACE_OFFSET * ends.normal
    for lamp in room.lights:
        # A shifted lamp for each ray makes the edges of shadows soft.
        spot = lamp[:3, None] + 0.05 * rng.standard_normal(
            start.shape, dtype=np.float32
        )
        way = spot - start
        length = np.sqrt((way * way).sum(axis=0))
        facing = (way * ends.normal).sum(axis=0) / length
        lit = np.flatnonzero(facing > 0)
        lit = lit[visible(room.groups, start[:, lit], spot[:, lit])]
        fall = facing[lit] / (1 + (length[lit] / lamp[6]) ** 2)
        light[lit] += fall[:, None] * lamp[3:6]
    return colour * (light + emission)


def _corner_shade(room, ends):
    """Less ambient light near the room's edges and under furniture."""
    shade = np.ones(ends.point.shape[1], np.float32)
    for axis in range(3):
        away = np.abs(ends.normal[axis]) < 0.9
        for gap in (ends.point[axis], room.size[axis] - ends.point[axis]):
            shade -= away * 0.35 * np.exp(-np.abs(gap) / np.float32(0.25))
    return np.maximum(shade, 0.2)


def _smooth_edges(radiance, room, camera, part, rng):
    """Average extra rays into pixels where two parts meet, in place."""
    height, width = part.shape
    edge = np.zeros(part.shape, bool)
    across, along = part[:, 1:] != part[:, :-1], part[1:] != part[:-1]
    edge[:, 1:] |= across
    edge[:, :-1] |= across
    edge[1:] |= along
    edge[:-1] |= along
    pixels = np.flatnonzero(edge)
    rays = [camera.rays(height, width, s)[:, pixels] for s in _SUBPIXELS]
    rays = np.hstack(rays)
    hit = cast(room.size, room.groups, camera.position, rays)
    ends = surface(room.groups, camera.position, rays, *hit)
    extra = _shade(room, ends, rng).reshape(len(_SUBPIXELS), len(pixels), 3)
    # Lamps are far brighter than paper: clip, or they leave jagged rims.
    total = np.minimum(radiance[pixels], 2) + np.minimum(extra, 2).sum(axis=0)
    radiance[pixels] = total / (1 + len(_SUBPIXELS))


def _annotate(label, frame):
    """Leave out some borders between classes, as human annotators do."""
    border = np.zeros(label.shape, bool)
    border[:, 1:] |= label[:, 1:] != label[:, :-1]
    border[1:] |= label[1:] != label[:-1]
    y, x = (grid / 512 for grid in np.indices(label.shape))
    careless = noise(x + frame * 0.37, y + frame * 0.11) > 0.2
    return np.where(border & careless, np.uint8(IGNORE_INDEX), label)
