from .atomic_checkpoint_hook import AtomicCheckpointHook
from .exact_resume_hook import ExactResumeHook
from .knn_hook import KNNHook
from .modality_gap_hook import ModalityGapHook
from .non_finite_guard_hook import NonFiniteGuardHook
from .progress_hook import ProgressHook
from .skipped_pairs_hook import SkippedPairsHook
from .stop_on_signal_hook import StopOnSignalHook, TrainingStopped
from .student_export_hook import StudentExportHook
from .sync_statistics_hook import SyncStatisticsHook
from .teacher_frozen_hook import TeacherFrozenHook
from .verify_pretrained_hook import VerifyPretrainedHook

__all__ = [
    'AtomicCheckpointHook',
    'ExactResumeHook',
    'KNNHook',
    'ModalityGapHook',
    'NonFiniteGuardHook',
    'ProgressHook',
    'SkippedPairsHook',
    'StopOnSignalHook',
    'StudentExportHook',
    'SyncStatisticsHook',
    'TeacherFrozenHook',
    'TrainingStopped',
    'VerifyPretrainedHook',
]
