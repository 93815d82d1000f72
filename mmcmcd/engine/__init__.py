from .hooks import (
    AtomicCheckpointHook,
    ExactResumeHook,
    KNNHook,
    ModalityGapHook,
    NonFiniteGuardHook,
    ProgressHook,
    SkippedPairsHook,
    StopOnSignalHook,
    StudentExportHook,
    SyncStatisticsHook,
    TeacherFrozenHook,
    TrainingStopped,
    VerifyPretrainedHook,
)
from .loops import ResumableEpochLoop
from .optim_wrappers import CPUAmpOptimWrapper

__all__ = [
    'AtomicCheckpointHook',
    'CPUAmpOptimWrapper',
    'ExactResumeHook',
    'KNNHook',
    'ModalityGapHook',
    'NonFiniteGuardHook',
    'ProgressHook',
    'ResumableEpochLoop',
    'SkippedPairsHook',
    'StopOnSignalHook',
    'StudentExportHook',
    'SyncStatisticsHook',
    'TeacherFrozenHook',
    'TrainingStopped',
    'VerifyPretrainedHook',
]
