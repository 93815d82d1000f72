from .hooks import (
    ProgressHook,
    SkippedPairsHook,
    StudentExportHook,
    SyncStatisticsHook,
    TeacherFrozenHook,
    VerifyPretrainedHook,
)
from .optim_wrappers import CPUAmpOptimWrapper

__all__ = [
    'CPUAmpOptimWrapper',
    'ProgressHook',
    'SkippedPairsHook',
    'StudentExportHook',
    'SyncStatisticsHook',
    'TeacherFrozenHook',
    'VerifyPretrainedHook',
]
