"""Rooms: paint, furniture, and where everything stands."""

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from . import furniture as f
from .pieces import CLASS_ID, hsv, material, plain
from .raycast import Group

_TRIES = 40


class Room(NamedTuple):
    """A furnished room.

    Attributes:
        size: (3,) float32 extent in metres; one corner is the origin.
        groups: Tuple of :class:`raycast.Group`.
        classes: (P,) uint8 class of each part, floor, ceiling, walls first.
        materials: Tuple of materials.
        material_of: (P,) index into `materials` of each part.
        lights: (L, 7) position, colour and reach in metres of each light.
        footprints: (F, 4) low x, low y, high x, high y of what a camera must
            not stand in.
    """

    size: np.ndarray
    groups: tuple
    classes: np.ndarray
    materials: tuple
    material_of: np.ndarray
    lights: np.ndarray
    footprints: np.ndarray


class _Builder:
    """Collects pieces and keeps them from standing in each other."""

    def __init__(self, rng, size, paint):
        self.rng, self.size = rng, size
        self.groups, self.parts, self.lights = [], [], []
        self.footprints = []
        self.wall_rects = [[] for _ in range(4)]
        self.parts = [
            (CLASS_ID['floor'], paint['floor']),
            (CLASS_ID['ceiling'], paint['ceiling']),
            *[(CLASS_ID['wall'], paint[f'wall{i}']) for i in range(4)],
        ]

    def put(self, piece, x, y, yaw, shadow=True):
        """Add a piece at a place, whatever is there."""
        # The light of a lamp stands in its shade, which must not dim it.
        shadow &= piece.boxes[0][2] != CLASS_ID['lamp']
        low, high = (
            np.array([box[i] for box in piece.boxes], np.float32)[:, :, None]
            for i in (0, 1)
        )
        origin = np.array([[x], [y], [0]], np.float32)
        cos, sin = np.float32(np.cos(yaw)), np.float32(np.sin(yaw))
        first = len(self.parts)
        self.groups.append(Group(origin, cos, sin, low, high, first, shadow))
        self.parts += [(box[2], box[3]) for box in piece.boxes]
        for box in piece.boxes:
            if box[3].emission and box[2] == CLASS_ID['lamp']:
                middle = (box[0] + box[1]) / 2
                self.lights.append(
                    [x + cos * middle[0] - sin * middle[1],
                     y + sin * middle[0] + cos * middle[1],
                     box[0][2] - 0.03]
                )  # fmt: skip
        return True

    def _bounds(self, piece, x, y, yaw, margin=0.0):
        low, high = piece.extent()
        cos, sin = np.cos(yaw), np.sin(yaw)
        corners = np.array(
            [(a, b) for a in (low[0], high[0]) for b in (low[1], high[1])]
        )
        world = corners @ np.array([[cos, sin], [-sin, cos]]) + (x, y)
        return (*world.min(axis=0) - margin, *world.max(axis=0) + margin)

    def is_free(self, bounds):
        """Whether a rectangle (low x, y, high x, y) of floor is free."""
        low, high = np.array(bounds[:2]), np.array(bounds[2:])
        if (low < -0.05).any() or (high > self.size[:2] + 0.05).any():
            return False
        for box in self.footprints:
            if (low < box[2:]).all() and (high > box[:2]).all():
                return False
        return True

    def wall_pose(self, wall, along):
        """Point at a wall and the rotation that looks into the room."""
        width, length = self.size[:2]
        x, y, yaw = [
            (along, 0, 0),
            (width, along, 0.5),
            (along, length, 1),
            (0, along, 1.5),
        ][wall]
        return x, y, yaw * np.pi

    def at_wall(self, piece, gap=0.02, front=0.0, near=None):
        """Stand a piece with its back to a wall.

        Args:
            piece (Piece): What to place.
            gap (float): Distance from the wall.
            front (float): Depth in front of it to keep clear of furniture.
            near (tuple, optional): Wall and place along it to keep close to.

        Returns:
            tuple | None: The wall and the place along it, if there was room.
        """
        low, high = piece.extent()
        for _ in range(_TRIES):
            wall = self.rng.integers(4) if near is None else near[0]
            length = self.size[wall % 2]
            along = self.rng.uniform(-low[0], length - high[0])
            if near is not None:
                along = near[1] + self.rng.uniform(-1.6, 1.6)
            x, y, yaw = self.wall_pose(wall, along)
            x, y = x - gap * np.sin(yaw), y + gap * np.cos(yaw)
            bounds = self._bounds(piece, x, y, yaw)
            if not self.is_free(bounds):
                continue
            self.footprints.append(np.array(bounds))
            self.wall_rects[wall].append(
                (along + low[0], along + high[0], low[2], high[2])
            )
            self.put(piece, x, y, yaw)
            if front:
                x, y = x - front * np.sin(yaw), y + front * np.cos(yaw)
                self.footprints.append(
                    np.array(self._bounds(piece, x, y, yaw))
                )
            return wall, along
        return None

    def on_wall(self, piece, wall=None):
        """Hang a piece on a wall where nothing hangs or hides it."""
        low, high = piece.extent()
        for _ in range(_TRIES):
            side = self.rng.integers(4) if wall is None else wall
            length = self.size[side % 2]
            along = self.rng.uniform(0.1 - low[0], length - high[0] - 0.1)
            rect = (along + low[0], along + high[0], low[2], high[2])
            clash = any(
                rect[0] < r[1] + 0.05 and rect[1] > r[0] - 0.05
                and rect[2] < r[3] and rect[3] > r[2]
                for r in self.wall_rects[side]
            )  # fmt: skip
            if clash or along < -low[0] or high[2] > self.size[2]:
                continue
            self.wall_rects[side].append(rect)
            x, y, yaw = self.wall_pose(side, along)
            self.put(piece, x, y, yaw, shadow=high[1] > 0.06)
            return side, along
        return None

    def free_standing(self, piece, turn=np.pi, margin=0.05, solid=True):
        """Stand a piece somewhere in the room, turned by up to `turn`."""
        for _ in range(_TRIES):
            x, y = self.rng.uniform(0.3, 1, 2) * (self.size[:2] - 0.3)
            yaw = self.rng.integers(4) * np.pi / 2
            yaw += self.rng.uniform(-turn, turn)
            bounds = self._bounds(piece, x, y, yaw, margin)
            if solid and not self.is_free(bounds):
                continue
            if not solid and not self._inside(bounds):
                continue
            if solid:
                self.footprints.append(np.array(bounds))
            self.put(piece, x, y, yaw)
            return x, y, yaw
        return None

    def _inside(self, bounds):
        return min(bounds[:2]) > 0 and (bounds[2:] < self.size[:2]).all()

    def before(self, piece, place, target, distance, side=0.0):
        """Stand a piece facing another one, e.g. a chair at a desk.

        Args:
            piece (Piece): What to place.
            place (tuple): x, y, yaw of the other piece.
            target (float): Depth of the other piece.
            distance (float): From its front edge to this piece's front edge.
            side (float): Shift to the side.
        """
        x, y, yaw = place
        reach = target + distance + piece.extent()[1][1]
        x += side * np.cos(yaw) - reach * np.sin(yaw)
        y += side * np.sin(yaw) + reach * np.cos(yaw)
        yaw += np.pi + self.rng.normal(0, 0.25)
        bounds = self._bounds(piece, x, y, yaw)
        if self.is_free(bounds):
            self.footprints.append(np.array(bounds))
            self.put(piece, x, y, yaw)


def _paint(rng):
    """Materials of floor, ceiling and walls."""
    hue, strong = rng.random(), rng.random() < 0.25
    saturation = rng.uniform(0.3, 0.6) if strong else rng.uniform(0, 0.25)
    main = hsv(hue, saturation, rng.uniform(0.6, 0.97))
    second = hsv(hue + rng.normal(0, 0.1), saturation * 1.3, 0.7)
    kind = str(rng.choice(['plain', 'stripes', 'wainscot', 'dots'],
                          p=[0.65, 0.12, 0.13, 0.1]))  # fmt: skip
    scale = rng.uniform(0.8, 1.1) if kind == 'wainscot' else 0.3
    if kind in ('stripes', 'dots'):
        second = main * rng.uniform(0.85, 0.95)
    wall = material(rng, kind, [main, second, hsv(0, 0, 0.95)], scale)
    walls = {f'wall{i}': wall for i in range(4)}
    if rng.random() < 0.25:
        accent = hsv(rng.random(), rng.uniform(0.3, 0.7), 0.7)
        walls[f'wall{rng.integers(4)}'] = material(rng, 'plain', [accent])
    ceiling = plain(rng, (0, 0.08), (0.82, 1))
    return dict(walls, ceiling=ceiling, floor=_floor(rng))


def _floor(rng):
    kind = rng.choice(['planks', 'tiles', 'carpet'], p=[0.45, 0.25, 0.3])
    if kind == 'planks':
        hue = rng.uniform(0.04, 0.11)
        main = hsv(hue, rng.uniform(0.25, 0.7), rng.uniform(0.35, 0.85))
        width = rng.uniform(0.09, 0.2)
        turned = rng.random() < 0.5
        return material(rng, 'planks', [main, main * 0.88], width, turned)
    main = hsv(rng.random(), rng.uniform(0, 0.5), rng.uniform(0.3, 0.9))
    if kind == 'tiles':
        colours = [main, main * rng.uniform(0.4, 0.9), hsv(0.1, 0.1, 0.6)]
        scale, checker = rng.uniform(0.25, 0.6), rng.random() < 0.4
        return material(rng, 'tiles', colours, scale, checker)
    return material(rng, 'carpet', [main, main * 0.75], 0.6)


def _bedroom(build, rng):
    place = build.at_wall(f.bed(rng))
    for _ in range(rng.integers(1, 3)):
        if place:
            build.at_wall(f.night_stand(rng), near=place)
    for make in (f.wardrobe, f.dresser):
        if rng.random() < 0.75:
            build.at_wall(make(rng))
    if rng.random() < 0.4:
        build.at_wall(f.bookshelf(rng))
    if rng.random() < 0.4:
        _study_corner(build, rng)


def _study_corner(build, rng):
    piece = f.desk(rng)
    place = build.at_wall(piece)
    if place:
        x, y, yaw = build.wall_pose(*place)
        build.before(f.chair(rng), (x, y, yaw), piece.extent()[1][1],
                     rng.uniform(-0.2, 0.2))  # fmt: skip


def _living(build, rng):
    piece = f.sofa(rng)
    place = build.at_wall(piece, gap=rng.uniform(0.02, 0.4))
    if place and rng.random() < 0.8:
        low_table = f.table(rng, low=True)
        build.before(low_table, build.wall_pose(*place), piece.extent()[1][1],
                     rng.uniform(0.3, 0.6))  # fmt: skip
    build.at_wall(f.sideboard(rng))
    for make, chance in ((f.bookshelf, 0.7), (f.dresser, 0.3), (f.sofa, 0.4)):
        if rng.random() < chance:
            build.at_wall(make(rng))
    for _ in range(rng.integers(0, 3)):
        build.free_standing(f.armchair(rng), turn=0.6)


def _dining(build, rng):
    piece = f.table(rng)
    (left, _, _), (right, depth, _) = piece.extent()
    place = build.free_standing(piece, turn=0.3, margin=0.15)
    if place:
        x, y, yaw = place
        for side in rng.uniform(left + 0.2, right - 0.2, 2):
            build.before(f.chair(rng), place, depth,
                         rng.uniform(0, 0.3), side)  # fmt: skip
        behind = (x - depth * np.sin(yaw), y + depth * np.cos(yaw),
                  yaw + np.pi)  # fmt: skip
        for side in rng.uniform(left + 0.2, right - 0.2, 2):
            build.before(f.chair(rng), behind, depth,
                         rng.uniform(0, 0.3), side)  # fmt: skip
    if rng.random() < 0.7:
        build.at_wall(f.counter(rng))
        if rng.random() < 0.8:
            build.at_wall(f.refrigerator(rng))
    for make, chance in ((f.sideboard, 0.5), (f.wardrobe, 0.4)):
        if rng.random() < chance:
            build.at_wall(make(rng))


def _study(build, rng):
    for _ in range(rng.integers(1, 4)):
        _study_corner(build, rng)
    for _ in range(rng.integers(1, 3)):
        build.at_wall(f.bookshelf(rng))
    if rng.random() < 0.6:
        build.on_wall(f.whiteboard(rng))
    if rng.random() < 0.5:
        build.at_wall(f.wardrobe(rng))
    if rng.random() < 0.4:
        build.at_wall(f.sofa(rng))


def _fixtures(build, rng):
    """Doors and windows, which come before the furniture."""
    build.at_wall(f.door(rng), gap=0.0, front=0.6)
    if rng.random() < 0.3:
        build.at_wall(f.door(rng), gap=0.0, front=0.6)
    for _ in range(rng.integers(1, 4)):
        build.on_wall(f.window(rng, build.size[2]))


def _extras(build, rng):
    """What any room may have."""
    height = build.size[2]
    for make, low, high in (
        (f.floor_lamp, 0, 2), (f.plant, 0, 2), (f.carton, 0, 3), (f.bag, 0, 2),
    ):  # fmt: skip
        for _ in range(rng.integers(low, high)):
            if rng.random() < 0.5:
                build.at_wall(make(rng), gap=rng.uniform(0.02, 0.2))
            else:
                build.free_standing(make(rng))
    for _ in range(rng.integers(1, 6)):
        build.on_wall(f.picture(rng))
    if rng.random() < 0.25:
        build.on_wall(f.wall_television(rng))
    if rng.random() < 0.35:
        build.on_wall(f.wall_shelves(rng))
    if rng.random() < 0.5:
        build.free_standing(f.rug(rng), turn=0.15, solid=False)
    if rng.random() < 0.6:
        x, y = rng.uniform(0.35, 0.65, 2) * build.size[:2]
        build.put(f.ceiling_lamp(rng, height), x, y, rng.uniform(0, 1))


def _lights(build, rng):
    """One or two point lights: a lamp or the ceiling, and the daylight."""
    size = build.size
    warm = 1 + rng.uniform(0, 0.4) * np.array([0.6, 0.1, -0.6])
    spots = [spot for spot in build.lights if spot[2] > 1.2]
    middle = [*rng.uniform(0.3, 0.7, 2) * size[:2], size[2] - 0.15]
    spot = spots[-1] if spots and rng.random() < 0.7 else middle
    lights = [[*spot, *warm * rng.uniform(0.6, 1.2), rng.uniform(2, 4)]]
    if rng.random() < 0.75:
        cool = 1 + rng.uniform(0, 0.3) * np.array([-0.5, 0, 0.6])
        x, y = _daylight_spot(build, rng)
        cool = cool * rng.uniform(0.3, 1.1)
        lights.append([x, y, rng.uniform(1.4, 2.0), *cool, 3.0])
    return np.array(lights, np.float32)


def _daylight_spot(build, rng):
    """A place before a wall, outside of the furniture if possible."""
    for _ in range(_TRIES):
        along = rng.uniform(0.2, 0.8) * min(build.size[:2])
        x, y, yaw = build.wall_pose(rng.integers(4), along)
        x, y = x - 0.4 * np.sin(yaw), y + 0.4 * np.cos(yaw)
        if build.is_free((x - 0.1, y - 0.1, x + 0.1, y + 0.1)):
            break
    return x, y


@lru_cache(maxsize=4)
def build_room(seed, number):
    """Furnish a room.

    Args:
        seed (int): Seed of the data set.
        number (int): Number of the room in it.

    Returns:
        Room: The same for the same arguments.
    """
    rng = np.random.default_rng([seed, number])
    size = np.array([rng.uniform(3.2, 6), rng.uniform(3.2, 6),
                     rng.uniform(2.35, 3)], np.float32)  # fmt: skip
    paint = _paint(rng)
    build = _Builder(rng, size, paint)
    _fixtures(build, rng)
    if rng.random() < 0.3:
        build.at_wall(f.pillar(paint['wall0'], rng, size[2]), gap=0)
    kinds = (_bedroom, _living, _dining, _study)
    kinds[rng.integers(len(kinds))](build, rng)
    _extras(build, rng)
    lights = _lights(build, rng)
    materials = {id(mat): mat for _, mat in build.parts}
    index = {key: i for i, key in enumerate(materials)}
    return Room(
        size,
        tuple(build.groups),
        np.array([part[0] for part in build.parts], np.uint8),
        tuple(materials.values()),
        np.array([index[id(mat)] for _, mat in build.parts]),
        lights,
        np.array(build.footprints, np.float32).reshape(-1, 4),
    )
