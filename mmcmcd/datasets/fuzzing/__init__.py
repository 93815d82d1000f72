"""Damaged files of all kinds, and all ways to read them."""

from .damage import damage
from .reading import Reader
from .valid_files import make_seeds

__all__ = ['Reader', 'damage', 'make_seeds']
