"""Rays against boxes rotated about the vertical, in numpy.

Points and directions are float32 arrays of shape (3, N), world axes x, y on
the floor and z up, in metres.  Directions need not be of unit length: the
distances returned are multiples of them.
"""

from typing import NamedTuple

import numpy as np

# Shadow rays start this far off their surface, in metres.
SURFACE_OFFSET = 2e-3
FLOOR, CEILING, FIRST_WALL, NUM_SHELL = 0, 1, 2, 6


class Group(NamedTuple):
    """Boxes that share one rotation: one piece of furniture.

    Attributes:
        origin: (3, 1) position in the room.
        cos, sin: Rotation about the vertical.
        low, high: (B, 3, 1) corners of the boxes in the group's own frame.
        first: Part number of the first box; the others follow.
        shadow: Whether the boxes throw shadows.
    """

    origin: np.ndarray
    cos: float
    sin: float
    low: np.ndarray
    high: np.ndarray
    first: int
    shadow: bool

    def to_local(self, vector):
        """Rotate (3, N) world vectors into the group's frame."""
        x, y, z = vector
        return np.stack(
            [self.cos * x + self.sin * y, self.cos * y - self.sin * x, z]
        )

    def bounds(self):
        """Two (3, 1) corners of an upright box around the whole group."""
        low, high = self.low.min(axis=0), self.high.max(axis=0)
        middle, half = (low + high) / 2, (high - low) / 2
        cos, sin = abs(self.cos), abs(self.sin)
        reach = np.stack(
            [cos * half[0] + sin * half[1], sin * half[0] + cos * half[1],
             half[2]]
        )  # fmt: skip
        x, y, z = middle
        middle = np.stack(
            [self.cos * x - self.sin * y, self.sin * x + self.cos * y, z]
        )
        middle, reach = middle + self.origin, reach + np.float32(1e-4)
        return middle - reach, middle + reach


class Surface(NamedTuple):
    """Where rays ended.

    Attributes:
        point: (3, N) world coordinates.
        normal: (3, N) unit normals that face the ray.
        local: (3, N) coordinates in the frame of the part's group.
        axis: (N,) axis of that frame along which the face looks.
        part: (N,) part numbers, see :class:`Group`; 0..5 are the floor, the
            ceiling and the walls at x=0, x=X, y=0, y=Y.
    """

    point: np.ndarray
    normal: np.ndarray
    local: np.ndarray
    axis: np.ndarray
    part: np.ndarray


def _safe_inverse(direction):
    tiny = np.float32(1e-7)
    flat = np.abs(direction) < tiny
    return 1 / np.where(flat, np.copysign(tiny, direction), direction)


def _slabs(low, high, origin, inverse):
    """Entry and exit distance of rays, the axis being the last but one."""
    one, two = (low - origin) * inverse, (high - origin) * inverse
    near, far = np.minimum(one, two), np.maximum(one, two)
    # Three named axes: much faster than a reduction over an axis of three.
    x, y, z = (near[..., i, :] for i in range(3))
    enter = np.maximum(np.maximum(x, y), z)
    x, y, z = (far[..., i, :] for i in range(3))
    return enter, np.minimum(np.minimum(x, y), z)


def _group_hits(group, origin, direction, inverse, limit):
    """Nearest box of a group along each ray that meets it before `limit`.

    Returns:
        tuple: Ray indices (M,), distances (M,), box indices (M,).
    """
    # First, without rotating anything, the box around the whole group.
    enter, leave = _slabs(*group.bounds(), origin, inverse)
    rays = np.flatnonzero((enter <= leave) & (leave > 0) & (enter < limit))
    if not rays.size:
        return rays, enter[rays], rays
    start = origin[:, rays] if origin.shape[1] > 1 else origin
    start = group.to_local(start - group.origin)
    inverse = _safe_inverse(group.to_local(direction[:, rays]))
    enter, leave = _slabs(group.low, group.high, start, inverse)
    # A box that the ray starts in (enter < 0) is not seen.
    enter[(enter > leave) | (enter <= 0)] = np.inf
    box = enter.argmin(axis=0)
    distance = enter[box, np.arange(len(rays))]
    hit = distance < limit[rays]
    return rays[hit], distance[hit], box[hit]


def cast(size, groups, origin, direction):
    """First surface along each ray from inside a room.

    Args:
        size (np.ndarray): (3,) extent of the room, one corner in the origin.
        groups (Sequence[Group]): What stands in it.
        origin (np.ndarray): (3, 1) or (3, N).
        direction (np.ndarray): (3, N).

    Returns:
        tuple: Distances (N,) in multiples of the directions, parts (N,).
    """
    inverse = _safe_inverse(direction)
    wall = np.where(inverse > 0, size[:, None], np.float32(0))
    far = (wall - origin) * inverse
    axis = far.argmin(axis=0)
    rays = np.arange(direction.shape[1])
    distance = far[axis, rays]
    upper = inverse[axis, rays] > 0
    part = np.where(
        axis == 2, FLOOR + upper, FIRST_WALL + 2 * axis + upper
    ).astype(np.int32)
    for group in groups:
        rays, near, box = _group_hits(
            group, origin, direction, inverse, distance
        )
        distance[rays] = near
        part[rays] = group.first + box
    return distance, part


def visible(groups, origin, target):
    """Whether the straight way from `origin` to `target` is free.

    Args:
        groups (Sequence[Group]): What stands in the room.
        origin (np.ndarray): (3, N), a little off its surface.
        target (np.ndarray): (3, 1) or (3, N).

    Returns:
        np.ndarray: (N,) bool.
    """
    direction = target - origin
    inverse = _safe_inverse(direction)
    limit = np.ones(direction.shape[1], np.float32)
    for group in groups:
        if group.shadow:
            rays, _, _ = _group_hits(group, origin, direction, inverse, limit)
            limit[rays] = 0  # nothing can be nearer: the ray is done
    return limit > 0


def surface(groups, origin, direction, distance, part):
    """Geometry at the end of each ray; arguments as :func:`cast` has them.

    Returns:
        Surface: Points, normals, coordinates for the texture.
    """
    point = origin + distance * direction
    normal = np.zeros_like(point)
    local = point.copy()
    shell = part < NUM_SHELL
    axis = np.where(part < FIRST_WALL, 2, (part - FIRST_WALL) // 2)
    upper = (part % 2).astype(np.float32)
    rays = np.flatnonzero(shell)
    normal[axis[rays], rays] = 1 - 2 * upper[rays]
    for group in groups:
        box = part - group.first
        rays = np.flatnonzero((box >= 0) & (box < len(group.low)))
        if not rays.size:
            continue
        inner = group.to_local(point[:, rays] - group.origin)
        low, high = (c[box[rays], :, 0].T for c in (group.low, group.high))
        offset = (2 * inner - low - high) / (high - low)
        face = np.abs(offset).argmax(axis=0)
        sign = np.sign(offset[face, np.arange(len(rays))])
        local[:, rays], axis[rays] = inner, face
        normal[0, rays] = sign * np.choose(face, [group.cos, -group.sin, 0])
        normal[1, rays] = sign * np.choose(face, [group.sin, group.cos, 0])
        normal[2, rays] = sign * (face == 2)
    return Surface(point, normal, local, axis, part)
