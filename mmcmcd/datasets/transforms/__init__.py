from .array_augmentation import (
    RandomChannelScale,
    RandomFlipClip,
    RandomJitter,
    RandomResizedCropClip,
    RandomRotation3D,
    RandomTimeMask,
    ResizeClip,
)
from .array_row import LoadArrayRow
from .arrays import ClampArray, LoadArray, NormalizeArray, ResampleArray
from .audio import (
    AddNoise,
    AudioSegment,
    LogMel,
    RandomGain,
    RandomTimeShift,
    SpecAugment,
)
from .audio_loading import LoadAudio
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
from .skeleton import CenterSkeleton
from .sketch import LoadSketch, RandomStrokeWidth, SketchFromImage
from .temporal import CenterTimeCrop, RandomTimeCrop, SharedTemporalCrop

__all__ = [
    'AddNoise',
    'AudioSegment',
    'CenterSkeleton',
    'CenterTimeCrop',
    'ClampArray',
    'ClipDepth',
    'DepthToDisparity',
    'DepthToHHA',
    'DepthToNormals',
    'FillDepth',
    'LoadArray',
    'LoadArrayRow',
    'LoadAudio',
    'LoadDepthFromFile',
    'LoadImageStrict',
    'LoadSketch',
    'LogMel',
    'NormalizeArray',
    'NormalizeDepth',
    'OnSide',
    'PackPairedInputs',
    'RandomChannelScale',
    'RandomDepthJitter',
    'RandomFlipClip',
    'RandomGain',
    'RandomJitter',
    'RandomResizedCropClip',
    'RandomRotation3D',
    'RandomStrokeWidth',
    'RandomTimeCrop',
    'RandomTimeMask',
    'RandomTimeShift',
    'RepeatChannels',
    'ResampleArray',
    'ResizeClip',
    'SelectSide',
    'SharedGeometry',
    'SharedTemporalCrop',
    'SketchFromImage',
    'SpecAugment',
]
