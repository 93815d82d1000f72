"""Pieces of furniture, each made by one function from random numbers."""

from itertools import pairwise

import numpy as np

from .pieces import (
    Piece,
    books,
    cardboard,
    clutter,
    fabric,
    hsv,
    material,
    plain,
    shade_light,
    table_lamp,
    wood,
)


def bed(rng):
    """A single or double bed with cover and pillows."""
    w, d = rng.uniform(0.45, 0.95), rng.uniform(1.9, 2.1)
    h = rng.uniform(0.38, 0.62)
    frame, cover = wood(rng), fabric(rng)
    piece = Piece()
    piece.add('bed', frame, (-w - 0.03, w + 0.03), (0, 0.06),
              (0, h + rng.uniform(0.1, 0.6)))  # fmt: skip
    piece.add('bed', frame, (-w, w), (0.06, d), (0.08, h - 0.2))
    sheet = plain(rng, (0, 0.25), (0.75, 0.98))
    piece.add('bed', sheet, (-w, w), (0.06, d), (h - 0.2, h))
    start = rng.uniform(0.5, 0.9)
    over = rng.uniform(0.02, 0.05)
    piece.add('bed', cover, (-w - over, w + over), (start, d + over),
              (rng.uniform(0.05, h - 0.2), h + over))  # fmt: skip
    centres = [0] if w < 0.65 else [-w / 2, w / 2]
    case = fabric(rng) if rng.random() < 0.5 else sheet
    for centre in centres:
        half = rng.uniform(0.25, 0.35)
        piece.add('pillow', case, (centre - half, centre + half),
                  (0.1, rng.uniform(0.4, 0.5)), (h, h + 0.13))  # fmt: skip
    return piece


def sofa(rng):
    """A sofa with cushions, sometimes with a long seat on one side."""
    w, d = rng.uniform(0.7, 1.25), rng.uniform(0.8, 1.0)
    seat, back = rng.uniform(0.38, 0.48), rng.uniform(0.72, 0.95)
    arm = rng.uniform(0.12, 0.25)
    cover = fabric(rng, 0.8)
    if rng.random() < 0.3:  # leather
        brown = hsv(rng.uniform(0.02, 0.09), 0.6, rng.uniform(0.1, 0.5))
        cover = material(rng, 'carpet', [brown, brown * 0.8], 0.5)
    piece = Piece()
    piece.add('sofa', cover, (-w, w), (0, d), (0.06, seat - 0.14))
    piece.add('sofa', cover, (-w, w), (0, 0.25), (0, back))
    count = 2 if w < 1 else 3
    edges = np.linspace(-w + arm, w - arm, count + 1)
    for left, right in pairwise(edges):
        piece.add('sofa', cover, (left + 0.01, right - 0.01), (0.2, d + 0.03),
                  (seat - 0.14, seat))  # fmt: skip
    top = seat + rng.uniform(0.1, 0.22)
    for left in (-w, w - arm):
        piece.add('sofa', cover, (left, left + arm), (0, d), (0, top))
    if rng.random() < 0.3:
        side = rng.choice([-1, 1])
        x = sorted((side * (w - arm), side * (w - arm - 0.7)))
        piece.add('sofa', cover, x, (d, d + 0.7), (0.06, seat))
    for _ in range(rng.integers(0, 4)):
        left = rng.uniform(-w + arm, w - arm - 0.4)
        y = rng.uniform(0.22, 0.32)
        piece.add('pillow', fabric(rng, 0.95), (left, left + 0.4),
                  (y, y + 0.14), (seat, seat + 0.38))  # fmt: skip
    return piece


def armchair(rng):
    """A wide upholstered chair."""
    w, d, seat = rng.uniform(0.38, 0.46), rng.uniform(0.75, 0.85), 0.42
    cover = fabric(rng, 0.9)
    piece = Piece()
    piece.add('chair', cover, (-w, w), (0, d), (0.08, seat))
    piece.add('chair', cover, (-w, w), (0, 0.2), (0, rng.uniform(0.8, 1.05)))
    for left in (-w, w - 0.14):
        piece.add('chair', cover, (left, left + 0.14), (0, d), (0, 0.6))
    return piece


def chair(rng):
    """A four-legged chair, a swivel chair or a stool."""
    w, seat = rng.uniform(0.19, 0.25), rng.uniform(0.42, 0.5)
    d, top = 2 * w, rng.uniform(0.8, 1.05)
    body = wood(rng) if rng.random() < 0.6 else plain(rng, (0, 0.9))
    cushion = fabric(rng) if rng.random() < 0.5 else body
    piece = Piece()
    x, y = (-w, w), (0, d)
    kind = rng.choice(['legs', 'swivel', 'stool'], p=[0.6, 0.3, 0.1])
    piece.add('chair', cushion, x, y, (seat - 0.05, seat))
    if kind == 'stool':
        return piece.legs('chair', body, x, y, seat - 0.05, 0.04)
    if kind == 'legs':
        piece.legs('chair', body, x, y, seat - 0.05, 0.04)
        for left in (-w, w - 0.04):
            piece.add('chair', body, (left, left + 0.04), (0, 0.04),
                      (seat, top))  # fmt: skip
        low = seat + rng.uniform(0.02, 0.3)
        return piece.add('chair', cushion, x, (0, 0.03), (low, top))
    dark = plain(rng, (0, 0.1), (0.05, 0.3))
    piece.add('chair', dark, (-0.03, 0.03), (w - 0.03, w + 0.03),
              (0.05, seat))  # fmt: skip
    piece.add('chair', dark, x, (w - 0.03, w + 0.03), (0.03, 0.08))
    piece.add('chair', dark, (-0.03, 0.03), y, (0.03, 0.08))
    piece.add('chair', cushion, x, (0, 0.06), (seat + 0.08, top))
    if rng.random() < 0.6:
        for left in (-w, w - 0.05):
            piece.add('chair', dark, (left, left + 0.05), (0.1, d - 0.1),
                      (seat + 0.18, seat + 0.22))  # fmt: skip
    return piece


def table(rng, low=False):
    """A dining table, or a low one for the sofa."""
    w, d = rng.uniform(0.4, 0.9), rng.uniform(0.7, 1.0)
    h = rng.uniform(0.7, 0.78)
    if low:
        w, d, h = w * 0.75, d * 0.65, rng.uniform(0.32, 0.5)
    top = wood(rng)
    legs = top if rng.random() < 0.7 else plain(rng, (0, 0.1))
    if rng.random() < 0.25:
        top = plain(rng, (0, 0.2), (0.75, 1))
    piece = Piece()
    piece.add('table', top, (-w, w), (0, d), (h - 0.04, h))
    if rng.random() < 0.8:
        piece.legs('table', legs, (-w + 0.03, w - 0.03), (0.03, d - 0.03),
                   h - 0.04, 0.06)  # fmt: skip
    else:
        piece.add('table', legs, (-w * 0.5, w * 0.5),
                  (d * 0.4, d * 0.6), (0, h - 0.04))  # fmt: skip
    return clutter(rng, piece, (-w, w), (0, d), h, rng.integers(0, 5))


def desk(rng):
    """A desk with drawers, a screen and things on it."""
    w, d, h = rng.uniform(0.5, 0.85), rng.uniform(0.6, 0.8), 0.74
    top = wood(rng)
    drawers = top._replace(kind='panels', scale=rng.uniform(0.15, 0.3))
    piece = Piece()
    piece.add('desk', top, (-w, w), (0, d), (h - 0.04, h))
    piece.add('desk', top, (-w, w), (0.02, 0.05), (0.3, h - 0.04))
    side = rng.choice([-1, 1])
    x = sorted((side * w, side * (w - 0.42)))
    piece.add('desk', drawers, x, (0.03, d - 0.03), (0, h - 0.04))
    x = sorted((-side * w, -side * (w - 0.04)))
    piece.add('desk', top, x, (0.03, d - 0.03), (0, h - 0.04))
    if rng.random() < 0.7:
        middle = rng.uniform(-w / 3, w / 3)
        television(rng, piece, middle, 0.15, h + 0.1, rng.uniform(0.22, 0.3))
        piece.add('television', plain(rng, (0, 0.1), (0.05, 0.2)),
                  (middle - 0.04, middle + 0.04), (0.14, 0.17),
                  (h, h + 0.1))  # fmt: skip
    return clutter(rng, piece, (-w, w), (0.3, d), h, rng.integers(1, 5))


def television(rng, piece, x, y, z, half):
    """A flat screen, dark or showing something, with a black rim."""
    dark = hsv(rng.random(), 0.3, rng.uniform(0.02, 0.1))
    screen = material(rng, 'screen', [dark, dark * 3], 1.0)
    if rng.random() < 0.35:
        colours = [hsv(rng.random(), 0.7, 0.9) for _ in range(3)]
        screen = material(rng, 'painting', colours, 1.5, emission=0.8)
    height = half * 1.15
    rim = plain(rng, (0, 0.1), (0.03, 0.12))
    piece.add('television', rim, (x - half, x + half), (y, y + 0.05),
              (z, z + height))  # fmt: skip
    edge = 0.025
    half -= edge
    return piece.add('television', screen, (x - half, x + half),
                     (y + 0.05, y + 0.054),
                     (z + edge, z + height - edge))  # fmt: skip


def _chest(rng, name, w, d, h, count):
    body = wood(rng)
    turned = bool(rng.random() < 0.3)
    front = body._replace(kind='panels', scale=h / count, turned=turned)
    piece = Piece()
    piece.add(name, body, (-w, w), (0, d), (0.04, h))
    piece.add(name, front, (-w + 0.02, w - 0.02), (d, d + 0.015),
              (0.08, h - 0.02))  # fmt: skip
    piece.add(
        name, body, (-w - 0.015, w + 0.015), (0, d + 0.02), (h, h + 0.02)
    )
    return piece


def dresser(rng):
    """A chest of drawers."""
    w, d = rng.uniform(0.4, 0.8), rng.uniform(0.4, 0.52)
    h = rng.uniform(0.75, 1.15)
    piece = _chest(rng, 'dresser', w, d, h, rng.integers(3, 6))
    return clutter(rng, piece, (-w, w), (0, d), h + 0.02, rng.integers(0, 5))


def night_stand(rng):
    """A small chest beside the bed, mostly with a lamp."""
    w, d, h = rng.uniform(0.18, 0.28), 0.4, rng.uniform(0.42, 0.65)
    piece = _chest(rng, 'night stand', w, d, h, 2)
    if rng.random() < 0.7:
        return table_lamp(rng, piece, -0.12, 0.05, h + 0.02)
    return clutter(rng, piece, (-w, w), (0, d), h + 0.02, 2)


def sideboard(rng):
    """A low cabinet, mostly with a television."""
    w, d = rng.uniform(0.6, 1.0), rng.uniform(0.38, 0.5)
    h = rng.uniform(0.4, 0.7)
    piece = _chest(rng, 'cabinet', w, d, h, rng.integers(1, 3))
    if rng.random() < 0.75:
        return television(rng, piece, rng.uniform(-0.15, 0.15), 0.15,
                          h + 0.06, rng.uniform(0.4, 0.62))  # fmt: skip
    return clutter(rng, piece, (-w, w), (0, d), h + 0.02, 4)


def wardrobe(rng):
    """A tall cabinet with doors."""
    w, d, h = rng.uniform(0.4, 1.0), 0.6, rng.uniform(1.75, 2.25)
    body = wood(rng)
    piece = Piece()
    piece.add('cabinet', body, (-w, w), (0, d), (0, h))
    scale = 2 * w / max(2, round(2 * w / 0.5))
    front = body._replace(kind='panels', turned=True, scale=scale)
    return piece.add('cabinet', front, (-w, w), (d, d + 0.02), (0.06, h))


def _filled_boards(rng, piece, name, body, w, d, heights):
    """Boards at the given heights with books and things between them."""
    for low, high in pairwise(heights):
        piece.add(name, body, (-w, w), (0, d), (low, low + 0.025))
        room = high - low - 0.06
        left = -w + 0.04
        while left < w - 0.15:
            right = min(left + rng.uniform(0.15, 0.8), w - 0.04)
            kind = rng.choice(['books', 'thing', 'gap'], p=[0.7, 0.1, 0.2])
            top = low + 0.025 + room * rng.uniform(0.6, 1)
            if kind == 'books':
                piece.add('books', books(rng), (left, right),
                          (0.03, d - rng.uniform(0.02, 0.09)),
                          (low + 0.025, top))  # fmt: skip
            elif kind == 'thing':
                right = min(right, left + 0.25)
                piece.add('otherprop', plain(rng, (0.4, 1), (0.3, 1)),
                          (left, right), (0.05, d - 0.06),
                          (low + 0.025, top))  # fmt: skip
            left = right + 0.01
    return piece


def bookshelf(rng):
    """An upright shelf full of books."""
    w, d = rng.uniform(0.35, 0.75), rng.uniform(0.26, 0.36)
    h, body = rng.uniform(1.1, 2.2), wood(rng)
    piece = Piece()
    piece.add('bookshelf', body, (-w, w), (0, 0.02), (0, h))
    for left in (-w, w - 0.03):
        piece.add('bookshelf', body, (left, left + 0.03), (0, d), (0, h))
    piece.add('bookshelf', body, (-w, w), (0, d), (h - 0.03, h))
    heights = np.linspace(0.06, h, round(h / rng.uniform(0.32, 0.42)) + 1)
    return _filled_boards(rng, piece, 'bookshelf', body, w, d, heights)


def wall_shelves(rng):
    """One to three boards on the wall with books and things."""
    w, d = rng.uniform(0.3, 0.7), rng.uniform(0.2, 0.28)
    start = rng.uniform(1.2, 1.5)
    heights = start + 0.33 * np.arange(rng.integers(2, 4))
    return _filled_boards(rng, Piece(), 'shelves', wood(rng), w, d, heights)


def counter(rng):
    """A kitchen block with hanging cabinets and a sink."""
    w, d, h = rng.uniform(0.8, 1.5), 0.6, 0.9
    body = wood(rng)
    front = body._replace(kind='panels', turned=True, scale=w / 2)
    stone = plain(rng, (0, 0.25), (0.15, 0.9), 'carpet')
    piece = Piece()
    piece.add('cabinet', front, (-w, w), (0, d - 0.03), (0.08, h - 0.04))
    piece.add('counter', stone, (-w, w), (0, d), (h - 0.04, h))
    if rng.random() < 0.8:
        low = rng.uniform(1.4, 1.55)
        piece.add('cabinet', front, (-w, w * rng.uniform(0, 1)), (0, 0.34),
                  (low, low + 0.7))  # fmt: skip
    steel = plain(rng, (0, 0.05), (0.6, 0.8))
    x = rng.uniform(-w + 0.1, w - 0.6)
    piece.add('sink', steel, (x, x + 0.5), (0.1, 0.5), (h, h + 0.015))
    piece.add('sink', steel, (x + 0.23, x + 0.27), (0.04, 0.08), (h, h + 0.28))
    return clutter(rng, piece, (-w, w), (0.05, d), h, rng.integers(2, 6))


def refrigerator(rng):
    """A tall smooth box with two doors."""
    w, h = rng.uniform(0.3, 0.42), rng.uniform(1.5, 1.9)
    skin = plain(rng, (0, 0.12), rng.choice([(0.85, 1), (0.45, 0.6)]))
    split = h * rng.uniform(0.55, 0.7)
    piece = Piece()
    piece.add('refridgerator', skin, (-w, w), (0, 0.62), (0.03, h))
    for low, high in ((0.08, split - 0.01), (split + 0.01, h)):
        piece.add('refridgerator', skin, (-w, w), (0.63, 0.68), (low, high))
    return piece


def floor_lamp(rng):
    """A pole with a shade."""
    h, half = rng.uniform(1.4, 1.8), rng.uniform(0.12, 0.22)
    metal = plain(rng, (0, 0.3), (0.05, 0.6))
    piece = Piece()
    piece.add('lamp', metal, (-0.13, 0.13), (0.1, 0.36), (0, 0.03))
    piece.add('lamp', metal, (-0.015, 0.015), (0.215, 0.245), (0, h))
    return piece.add('lamp', shade_light(rng), (-half, half),
                     (0.23 - half, 0.23 + half), (h - 0.3, h))  # fmt: skip


def carton(rng):
    """A box on the floor, sometimes two."""
    w, d, h = rng.uniform(0.12, 0.3, 3)
    piece = Piece().add('box', cardboard(rng), (-w, w), (0, 2 * d), (0, 2 * h))
    if rng.random() < 0.3:
        piece.add('box', cardboard(rng), (-w * 0.8, w * 0.6), (0.02, d),
                  (2 * h, 3 * h))  # fmt: skip
    return piece


def plant(rng):
    """A pot with a tuft of leaves."""
    pot, green = rng.uniform(0.13, 0.2), rng.uniform(0.25, 0.4)
    leaf = hsv(rng.uniform(0.22, 0.4), rng.uniform(0.5, 0.9), 0.5)
    leaves = material(rng, 'carpet', [leaf, leaf * 0.4], 0.15)
    h = rng.uniform(0.5, 1.3)
    piece = Piece()
    middle = green
    piece.add('otherprop', plain(rng, (0.2, 0.8), (0.3, 0.8)), (-pot, pot),
              (middle - pot, middle + pot), (0, 0.3))  # fmt: skip
    for share, low, high in ((0.55, 0.3, h), (1, 0.4, h * 0.85)):
        half = green * share
        piece.add('otherprop', leaves, (-half, half),
                  (middle - half, middle + half), (low, high))  # fmt: skip
    return piece


def bag(rng):
    """A bag left on the floor."""
    w, d, h = rng.uniform(0.15, 0.25), 0.22, rng.uniform(0.3, 0.5)
    cloth = fabric(rng, 1.0)
    piece = Piece().add('bag', cloth, (-w, w), (0, d), (0, h))
    return piece.add('bag', cloth, (-w * 0.5, w * 0.5), (d * 0.4, d * 0.5),
                     (h, h + 0.12))  # fmt: skip


def rug(rng):
    """A floor mat, a centimetre thick."""
    w, d = rng.uniform(0.5, 1.3), rng.uniform(0.9, 1.8)
    kind = rng.choice(['stripes', 'checks', 'carpet', 'painting'])
    colours = [hsv(rng.random(), rng.uniform(0.4, 0.95),
                   rng.uniform(0.3, 0.9)) for _ in range(3)]  # fmt: skip
    mat = material(rng, str(kind), colours, rng.uniform(0.15, 0.5))
    return Piece().add('floor mat', mat, (-w, w), (0, d), (0, 0.012))


def pillar(paint, rng, height):
    """A chimney breast or pillar, painted as the wall."""
    w, d = rng.uniform(0.2, 0.6), rng.uniform(0.2, 0.5)
    return Piece().add('wall', paint, (-w, w), (0, d), (0, height))


def door(rng):
    """A door with its frame, a few centimetres proud of the wall."""
    w, h = rng.uniform(0.38, 0.46), rng.uniform(1.95, 2.1)
    leaf = wood(rng, 'panels', rng.uniform(0.7, 1.0))
    frame = wood(rng) if rng.random() < 0.5 else leaf._replace(kind='plain')
    piece = Piece()
    piece.add('door', leaf, (-w, w), (0, 0.03), (0, h))
    for left in (-w - 0.08, w):
        piece.add('door', frame, (left, left + 0.08), (0, 0.06), (0, h + 0.08))
    piece.add('door', frame, (-w, w), (0, 0.06), (h, h + 0.08))
    x = rng.choice([-1, 1]) * (w - 0.08)
    metal = plain(rng, (0, 0.3), (0.5, 0.9))
    return piece.add('door', metal, (x - 0.06, x + 0.06), (0.03, 0.09),
                     (1.0, 1.03))  # fmt: skip


def window(rng, height):
    """A window with frame and bars, mostly with curtains or blinds."""
    w = rng.uniform(0.4, 0.9)
    low = rng.uniform(0.75, 1.1)
    high = min(rng.uniform(1.9, 2.2), height - 0.2)
    sky = hsv(rng.uniform(0.54, 0.62), rng.uniform(0.05, 0.55), 1.0)
    ground = hsv(rng.uniform(0.1, 0.4), rng.uniform(0.2, 0.7),
                 rng.uniform(0.2, 0.6))  # fmt: skip
    pane = material(rng, 'outside', [sky, hsv(0, 0, 1), ground],
                    low + rng.uniform(0, 0.8) * (high - low),
                    emission=rng.uniform(1.2, 2.2))  # fmt: skip
    frame = plain(rng, (0, 0.1), (0.8, 1)) if rng.random() < 0.6 else wood(rng)
    piece = Piece().add('window', pane, (-w, w), (0, 0.02), (low, high))
    bars = [-w, w - 0.05] + [-0.025] * bool(rng.random() < 0.6)
    for left in bars:
        piece.add('window', frame, (left, left + 0.05), (0, 0.05), (low, high))
    for level in (low, high - 0.05):
        piece.add('window', frame, (-w, w), (0, 0.05), (level, level + 0.05))
    dress = rng.choice(['curtain', 'blinds', 'none'], p=[0.45, 0.25, 0.3])
    cloth = plain(rng, (0, 0.8), (0.5, 1), 'folds')
    if dress == 'curtain':
        drop = rng.choice([0.05, low - 0.15])
        for side in (-1, 1):
            x = sorted((side * (w + 0.2), side * w * rng.uniform(0.55, 0.9)))
            piece.add('curtain', cloth._replace(scale=0.12), x, (0.06, 0.14),
                      (drop, high + 0.12))  # fmt: skip
    elif dress == 'blinds':
        lamella = cloth._replace(scale=0.07, turned=True)
        down = rng.uniform(low, (low + high) / 2)
        piece.add('blinds', lamella, (-w - 0.04, w + 0.04), (0.06, 0.1),
                  (down, high + 0.08))  # fmt: skip
    return piece


def picture(rng):
    """A framed picture, or a mirror."""
    w, h = rng.uniform(0.15, 0.55), rng.uniform(0.3, 0.8)
    low = rng.uniform(1.25, 1.5)
    piece = Piece()
    name = 'picture' if rng.random() < 0.8 else 'mirror'
    if name == 'mirror':
        grey = hsv(rng.uniform(0.5, 0.65), 0.08, rng.uniform(0.6, 0.85))
        sheet = material(rng, 'screen', [grey, grey * 1.25])
    else:
        colours = [hsv(rng.random(), rng.uniform(0.3, 1), rng.uniform(0.2, 1))
                   for _ in range(3)]  # fmt: skip
        sheet = material(rng, 'painting', colours, rng.uniform(0.6, 2.5))
    piece.add(name, wood(rng), (-w, w), (0, 0.03), (low, low + h))
    rim = rng.uniform(0.02, 0.06)
    return piece.add(name, sheet, (-w + rim, w - rim), (0.03, 0.034),
                     (low + rim, low + h - rim))  # fmt: skip


def whiteboard(rng):
    """A white board with a metal rim and some writing."""
    w, low = rng.uniform(0.5, 1.0), rng.uniform(0.9, 1.1)
    white = hsv(0.6, 0.02, 0.97)
    ink = hsv(rng.random(), 0.5, 0.8)
    sheet = material(rng, 'painting', [white, white, ink], 0.4)
    piece = Piece()
    piece.add('whiteboard', plain(rng, (0, 0.05), (0.5, 0.7)), (-w, w),
              (0, 0.025), (low, low + 0.9))  # fmt: skip
    return piece.add('whiteboard', sheet, (-w + 0.03, w - 0.03),
                     (0.025, 0.03), (low + 0.03, low + 0.87))  # fmt: skip


def wall_television(rng):
    """A television hung on the wall."""
    return television(rng, Piece(), 0, 0.04, rng.uniform(1.0, 1.3),
                      rng.uniform(0.4, 0.6))  # fmt: skip


def ceiling_lamp(rng, height):
    """A lamp hanging from the ceiling."""
    half, drop = rng.uniform(0.15, 0.3), rng.uniform(0.05, 0.5)
    piece = Piece()
    piece.add('lamp', plain(rng), (-0.01, 0.01), (-0.01, 0.01),
              (height - drop, height))  # fmt: skip
    return piece.add('lamp', shade_light(rng), (-half, half), (-half, half),
                     (height - drop - 0.15, height - drop))  # fmt: skip
