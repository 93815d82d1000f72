"""Checkpoints are data: read without running what they hold."""

from .config_text import parse_config_text
from .reading import UnsafeCheckpointError, read_file
from .schemes import register_schemes
from .trust import TRUSTED_VARIABLE, is_trusted, trust

__all__ = [
    'TRUSTED_VARIABLE',
    'UnsafeCheckpointError',
    'is_trusted',
    'parse_config_text',
    'read_file',
    'register_schemes',
    'trust',
]
