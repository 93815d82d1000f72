"""What furniture is made of: boxes, materials and small things.

A piece stands in its own frame: x along its width (centred), y from its back
(0, towards the wall) to its front, z up from the floor, all in metres.
"""

import colorsys

import numpy as np

from ..nyu_meta import NYU40_CLASSES
from .materials import Material

CLASS_ID = {name: index for index, name in enumerate(NYU40_CLASSES)}


def hsv(hue, saturation, value):
    """(3,) sRGB of a colour given by hue, saturation and value."""
    return np.array(colorsys.hsv_to_rgb(hue % 1, saturation, value))


def material(rng, kind, colours, scale=1.0, turned=False, emission=0.0):
    """A material with a random shift of its pattern."""
    colours = np.stack([*colours, *colours[-1:] * 2])[:3]
    return Material(
        kind,
        colours.astype(np.float32),
        scale,
        tuple(rng.uniform(0, 1, 2)),
        turned,
        emission,
    )


def wood(rng, kind='wood', scale=0.05, turned=False):
    """Natural wood, or (one piece in four) painted."""
    if rng.random() < 0.25:
        hue, value = rng.random(), rng.choice([0.2, 0.55, 0.9])
        main = hsv(hue, rng.uniform(0, 0.5), value)
        second = main * 0.94
    else:
        hue = rng.uniform(0.04, 0.11)
        main = hsv(hue, rng.uniform(0.35, 0.75), rng.uniform(0.3, 0.85))
        second = main * rng.uniform(0.65, 0.85)
    knob = hsv(0.12, 0.2, rng.choice([0.15, 0.9]))
    return material(rng, kind, [main, second, knob], scale, turned)


def fabric(rng, vivid=0.6):
    """Cloth in any colour, plain or patterned."""
    hue, value = rng.random(), rng.uniform(0.25, 0.95)
    main = hsv(hue, rng.uniform(0.1, 1) * vivid, value)
    other = hsv(hue + rng.normal(0, 0.2), vivid * rng.random(), 1.1 - value)
    kinds = ['carpet', 'plain', 'stripes', 'checks', 'dots']
    kind = rng.choice(kinds, p=[0.4, 0.15, 0.15, 0.15, 0.15])
    scale = rng.uniform(0.08, 0.3)
    return material(rng, str(kind), [main, other], scale, rng.random() < 0.5)


def plain(rng, saturation=(0, 0.3), value=(0.1, 0.95), kind='plain'):
    """One colour."""
    colour = hsv(rng.random(), rng.uniform(*saturation), rng.uniform(*value))
    return material(rng, kind, [colour, colour * 0.8])


class Piece:
    """Boxes of one piece of furniture.

    Attributes:
        boxes (list): (low (3,), high (3,), class id, material) each.
    """

    def __init__(self):
        self.boxes = []

    def add(self, name, mat, x, y, z):
        """Add the box between the given ranges of x, y and z."""
        low, high = np.array([x, y, z], dtype=float).T
        if (high - low > 1e-3).all():
            self.boxes.append((low, high, CLASS_ID[name], mat))
        return self

    def legs(self, name, mat, x, y, height, thick=0.05):
        """Four legs at the corners of the rectangle x, y."""
        for left in (x[0], x[1] - thick):
            for back in (y[0], y[1] - thick):
                self.add(name, mat, (left, left + thick),
                         (back, back + thick), (0, height))  # fmt: skip
        return self

    def extent(self):
        """Lower and upper corner of all boxes."""
        low = np.min([box[0] for box in self.boxes], axis=0)
        return low, np.max([box[1] for box in self.boxes], axis=0)


def clutter(rng, piece, x, y, z, count):
    """Small things on a level surface: books, boxes, vessels."""
    for _ in range(count):
        width, depth = rng.uniform(0.06, 0.28, 2)
        left = rng.uniform(x[0], max(x[0], x[1] - width))
        back = rng.uniform(y[0], max(y[0], y[1] - depth))
        name = rng.choice(['books', 'box', 'otherprop', 'bag', 'lamp'],
                          p=[0.3, 0.2, 0.35, 0.1, 0.05])  # fmt: skip
        height = rng.uniform(0.04, 0.3)
        if name == 'books':
            height = rng.uniform(0.03, 0.15)
            width, depth = max(width, 0.15), max(depth, 0.2)
            mat = books(rng, lying=True)
        elif name == 'box':
            mat = cardboard(rng)
        elif name == 'lamp':
            table_lamp(rng, piece, left, back, z)
            continue
        else:
            mat = plain(rng, (0.4, 1), (0.3, 1))
        piece.add(name, mat, (left, left + width), (back, back + depth),
                  (z, z + height))  # fmt: skip
    return piece


def books(rng, lying=False):
    """Spines; lying ones run level."""
    colours = [hsv(rng.random(), rng.uniform(0.3, 0.9), rng.uniform(0.2, 0.9))
               for _ in range(3)]  # fmt: skip
    return material(rng, 'books', colours, rng.uniform(0.025, 0.05), lying)


def cardboard(rng):
    """Brown, rarely another colour."""
    if rng.random() < 0.3:
        return plain(rng, (0.2, 0.9), (0.4, 0.9))
    brown = hsv(rng.uniform(0.07, 0.11), rng.uniform(0.3, 0.5), 0.72)
    return material(rng, 'plain', [brown])


def shade_light(rng):
    """A lamp shade, mostly switched on."""
    colour = hsv(rng.uniform(0.08, 0.15), rng.uniform(0.1, 0.45), 0.98)
    return material(rng, 'plain', [colour], emission=rng.choice([0, 1.5, 2.5]))


def table_lamp(rng, piece, x, y, z):
    """A foot and a shade; (x, y) is the corner of the shade."""
    size, height = rng.uniform(0.18, 0.3), rng.uniform(0.3, 0.5)
    middle = (x + size / 2, y + size / 2)
    foot = [(c - 0.03, c + 0.03) for c in middle]
    piece.add('lamp', plain(rng), *foot, (z, z + height * 0.6))
    piece.add('lamp', shade_light(rng), (x, x + size), (y, y + size),
              (z + height * 0.5, z + height))  # fmt: skip
    return piece
