from .hooks import (
    KNNHook,
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
    'KNNHook',
    'ProgressHook',
    'SkippedPairsHook',
    'StudentExportHook',
    'SyncStatisticsHook',
    'TeacherFrozenHook',
    'VerifyPretrainedHook',
]
