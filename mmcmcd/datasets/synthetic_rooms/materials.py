"""Procedural textures: the colour of a surface point by its material."""

from functools import cache
from typing import NamedTuple

import numpy as np

_NOISE_SIZE = 512


class Material(NamedTuple):
    """What a part is made of.

    Attributes:
        kind: One of the functions of this module, without the underscore.
        colours: (3, 3) float32 sRGB in 0..1: main, second, detail.
        scale: Size of the pattern in metres.
        offset: (2,) shift of the pattern, so that no two pieces look alike.
        turned: Whether the pattern runs upright instead of level.
        emission: Light given off, as a multiple of the colour.
    """

    kind: str
    colours: np.ndarray
    scale: float = 1.0
    offset: tuple = (0.0, 0.0)
    turned: bool = False
    emission: float = 0.0


@cache
def _tables():
    """A tileable fractal noise picture and a table of random numbers."""
    rng = np.random.default_rng(20)
    grid = np.arange(_NOISE_SIZE)
    noise = np.zeros((_NOISE_SIZE, _NOISE_SIZE), np.float32)
    for power in range(6):
        octave, weight = 4 << power, 0.55**power
        lattice = rng.random((octave, octave), dtype=np.float32)
        position = grid * octave / _NOISE_SIZE
        cell = position.astype(int)
        part = position - cell
        part = (part * part * (3 - 2 * part)).astype(np.float32)
        after = (cell + 1) % octave
        rows = lattice[cell] * (1 - part[:, None])
        rows += lattice[after] * part[:, None]
        value = rows[:, cell] * (1 - part) + rows[:, after] * part
        noise += np.float32(weight) * value
    noise = (noise - noise.mean()) / (2 * noise.std())
    return noise, rng.random((4096, 3), dtype=np.float32)


def noise(u, v):
    """Fractal value noise, mean 0 and standard deviation 0.5, period 1."""
    table, _ = _tables()
    mask = _NOISE_SIZE - 1
    u = (u * _NOISE_SIZE).astype(np.int64) & mask
    v = (v * _NOISE_SIZE).astype(np.int64) & mask
    return table[u, v]


def _hash(i, j=0):
    """(N, 3) random numbers in 0..1 for whole numbers."""
    _, table = _tables()
    i, j = np.asarray(i).astype(np.int64), np.asarray(j).astype(np.int64)
    return table[(i * 1621 + j * 2749 + (i * j & 63) * 37) & 4095]


def _mix(one, two, weight):
    return one + (two - one) * np.clip(weight, 0, 1)[:, None]


def _plain(mat, u, v):
    return mat.colours[0] * (1 + 0.06 * noise(u / 2, v / 2))[:, None]


def _wood(mat, u, v):
    rings = v / mat.scale + 1.5 * noise(u / 8, v / 3)
    grain = 0.4 + 0.3 * np.sin(2 * np.pi * rings) + 0.5 * noise(u / 5, v)
    return _mix(mat.colours[0], mat.colours[1], grain)


def _planks(mat, u, v):
    row = np.floor(v / mat.scale)
    along = u / (7 * mat.scale) + _hash(row)[:, 0]
    tone = 0.75 + 0.5 * _hash(row, np.floor(along))[:, 1]
    seam = (v / mat.scale - row < 0.06) | (along % 1 < 0.015)
    tone = np.where(seam, 0.65, tone)
    return _wood(mat._replace(scale=0.05), u, v) * tone[:, None]


def _tiles(mat, u, v):
    a, b = u / mat.scale, v / mat.scale
    i, j = np.floor(a), np.floor(b)
    second = np.where(mat.turned, (i + j) % 2, 0.3 * _hash(i, j)[:, 0])
    colour = _mix(mat.colours[0], mat.colours[1], second)
    grout = (a - i < 0.05) | (b - j < 0.05)
    colour[grout] = mat.colours[2]
    return colour * (1 + 0.05 * noise(u, v))[:, None]


def _carpet(mat, u, v):
    weight = 0.5 + 0.5 * noise(u / mat.scale, v / mat.scale)
    speckle = 1 + 0.18 * noise(u * 1.7, v * 1.7)
    return _mix(mat.colours[0], mat.colours[1], weight) * speckle[:, None]


def _stripes(mat, u, v):
    wave = np.sin(2 * np.pi * u / mat.scale)
    weave = 1 + 0.1 * noise(u * 1.3, v * 1.3)
    return _mix(*mat.colours[:2], 0.5 + 2 * wave) * weave[:, None]


def _checks(mat, u, v):
    warp = (u / mat.scale) % 1 < 0.4
    weft = (v / mat.scale) % 1 < 0.4
    colour = _mix(*mat.colours[:2], 0.5 * warp + 0.5 * weft)
    return colour * (1 + 0.1 * noise(u * 1.3, v * 1.3))[:, None]


def _dots(mat, u, v):
    a, b = u / mat.scale % 1 - 0.5, v / mat.scale % 1 - 0.5
    inside = a * a + b * b < 0.09
    colour = _mix(*mat.colours[:2], inside)
    return colour * (1 + 0.1 * noise(u * 1.3, v * 1.3))[:, None]


def _folds(mat, u, v):
    """Curtains and blinds: a shaded wave."""
    wave = np.sin(2 * np.pi * (u / mat.scale + 0.3 * noise(u / 3, v / 9)))
    return mat.colours[0] * (0.78 + 0.22 * wave)[:, None]


def _books(mat, u, v):
    """Upright spines of changing colour, two bands on each."""
    width = mat.scale * (0.8 + 0.5 * _hash(np.floor(u / 0.31))[:, 0])
    column = np.floor(u / width)
    spine = _hash(column, 7)
    # Half the books keep to the shelf's own colours: sets and series.
    colour = np.where(
        spine[:, :1] < 0.5,
        mat.colours[(spine[:, 1] * 3).astype(int)],
        _hash(column, 11) * 0.85 + 0.05,
    )
    band = np.abs((v * 3.3 + spine[:, 2]) % 1 - 0.5) < 0.07
    seam = u / width - column < 0.12
    return colour * (1 + 0.5 * band - 0.6 * seam)[:, None]


def _panels(mat, u, v):
    """Fronts of drawers and doors: dark joints and small knobs."""
    wide, high = (1, 2.2) if mat.turned else (1.8, 1)
    wide, high = wide * mat.scale, high * mat.scale
    # Metres from the middle of each front, whatever its size.
    a = np.abs(u - (np.floor(u / wide) + 0.5) * wide)
    b = np.abs(v - (np.floor(v / high) + 0.5) * high)
    joint = (a > wide / 2 - 0.012) | (b > high / 2 - 0.012)
    knob = (a < 0.05) & (b < 0.02)
    grain = mat._replace(scale=0.1)
    colour = _wood(grain, v, u) if mat.turned else _wood(grain, u, v)
    colour[joint] *= 0.6
    colour[knob] = mat.colours[2]
    return colour


def _outside(mat, u, v):
    """What a window shows: sky with clouds over trees or roofs."""
    height = v + 0.35 * noise(u / 3, v / 9)
    sky = _mix(mat.colours[0], mat.colours[1], 0.5 + noise(u / 4, v / 2))
    ground = mat.colours[2] * (0.8 + 0.5 * noise(u, v))[:, None]
    return np.where((height > mat.scale)[:, None], sky, ground)


def _painting(mat, u, v):
    level = noise(u / mat.scale, v / mat.scale)
    colour = _mix(*mat.colours[:2], 2 * level + 0.5)
    third = noise(v / mat.scale + 0.37, u / mat.scale) > 0.35
    colour[third] = mat.colours[2]
    return colour


def _wainscot(mat, u, v):
    colour = np.where((v < mat.scale)[:, None], *mat.colours[[1, 0]])
    colour[np.abs(v - mat.scale) < 0.03] = mat.colours[2]
    return colour * (1 + 0.06 * noise(u / 2, v / 2))[:, None]


def _screen(mat, u, v):
    gleam = 0.5 + 0.9 * np.sin(1.3 * (u + v) / mat.scale + noise(u / 5, v / 5))
    return _mix(mat.colours[0], mat.colours[1], gleam)


KINDS = {
    function.__name__[1:]: function
    for function in (
        _plain, _wood, _planks, _tiles, _carpet, _stripes, _checks, _dots,
        _folds, _books, _panels, _outside, _painting, _wainscot, _screen,
    )
}  # fmt: skip
# Patterns whose place on the piece has a meaning are not shifted about.
_FIXED = ('wainscot', 'panels', 'outside')


def albedo(material, local, axis):
    """Colour of points on parts of one material.

    Args:
        material (Material): Their material.
        local (np.ndarray): (3, N) coordinates in the frame of the piece.
        axis (np.ndarray): (N,) axis along which the face looks.

    Returns:
        np.ndarray: (N, 3) float32 sRGB in 0..1.
    """
    x, y, z = local
    u, v = np.where(axis == 0, y, x), np.where(axis == 2, y, z)
    if material.turned and material.kind not in ('panels', 'tiles'):
        u, v = v, u
    if material.kind not in _FIXED:
        u, v = u + material.offset[0], v + material.offset[1]
    colour = KINDS[material.kind](material, u, v)
    return np.clip(colour, 0, 1, dtype=np.float32)
