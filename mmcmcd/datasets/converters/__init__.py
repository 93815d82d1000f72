from .nyu_depth_v2 import convert_nyu_depth_v2
from .sketchy import check_files, list_sketchy_pairs, write_table
from .utd_mhad import convert_utd_mhad
from .vggsound import (
    ClipSettings,
    ConversionSummary,
    check_layout,
    convert_vggsound,
)

__all__ = [
    'ClipSettings',
    'ConversionSummary',
    'check_files',
    'check_layout',
    'convert_nyu_depth_v2',
    'convert_utd_mhad',
    'convert_vggsound',
    'list_sketchy_pairs',
    'write_table',
]
