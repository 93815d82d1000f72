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
from .sketch import LoadSketch, RandomStrokeWidth, SketchFromImage

__all__ = [
    'ClipDepth',
    'DepthToDisparity',
    'DepthToHHA',
    'DepthToNormals',
    'FillDepth',
    'LoadDepthFromFile',
    'LoadImageStrict',
    'LoadSketch',
    'NormalizeDepth',
    'OnSide',
    'PackPairedInputs',
    'RandomDepthJitter',
    'RandomStrokeWidth',
    'RepeatChannels',
    'SelectSide',
    'SharedGeometry',
    'SketchFromImage',
]
