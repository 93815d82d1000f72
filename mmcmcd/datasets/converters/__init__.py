from .nyu_depth_v2 import convert_nyu_depth_v2

__all__ = ['convert_nyu_depth_v2']
