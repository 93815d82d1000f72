"""Procedural indoor scenes: colour, depth and labels without a download."""

from .render import VIEWS_PER_ROOM, render_room
from .write import write_rooms

__all__ = ['VIEWS_PER_ROOM', 'render_room', 'write_rooms']
