from .depth import (
    ClipDepth,
    DepthToDisparity,
    FillDepth,
    NormalizeDepth,
    RandomDepthJitter,
    RepeatChannels,
)
from .depth_geometry import DepthToHHA, DepthToNormals
from .formatting import PackPairedInputs
from .loading import LoadDepthFromFile, LoadImageStrict
from .paired import OnSide, SharedGeometry
from .select_side import SelectSide

__all__ = [
    'ClipDepth',
    'DepthToDisparity',
    'DepthToHHA',
    'DepthToNormals',
    'FillDepth',
    'LoadDepthFromFile',
    'LoadImageStrict',
    'NormalizeDepth',
    'OnSide',
    'PackPairedInputs',
    'RandomDepthJitter',
    'RepeatChannels',
    'SelectSide',
    'SharedGeometry',
]
