from .nyu_depth_v2 import convert_nyu_depth_v2
from .sketchy import check_files, list_sketchy_pairs, write_table

__all__ = [
    'check_files',
    'convert_nyu_depth_v2',
    'list_sketchy_pairs',
    'write_table',
]
