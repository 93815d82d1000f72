from .hooks import (
    ProgressHook,
    SkippedPairsHook,
    StudentExportHook,
    TeacherFrozenHook,
    VerifyPretrainedHook,
)
from .optim_wrappers import CPUAmpOptimWrapper

__all__ = [
    'CPUAmpOptimWrapper',
    'ProgressHook',
    'SkippedPairsHook',
    'StudentExportHook',
    'TeacherFrozenHook',
    'VerifyPretrainedHook',
]
