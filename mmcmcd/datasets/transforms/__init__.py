from .depth import (
    ClipDepth,
    DepthToDisparity,
    DepthToHHA,
    DepthToNormals,
    FillDepth,
    NormalizeDepth,
    RandomDepthJitter,
    RepeatChannels,
)
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
