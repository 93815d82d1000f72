from .knn_hook import KNNHook
from .progress_hook import ProgressHook
from .skipped_pairs_hook import SkippedPairsHook
from .student_export_hook import StudentExportHook
from .sync_statistics_hook import SyncStatisticsHook
from .teacher_frozen_hook import TeacherFrozenHook
from .verify_pretrained_hook import VerifyPretrainedHook

__all__ = [
    'KNNHook',
    'ProgressHook',
    'SkippedPairsHook',
    'StudentExportHook',
    'SyncStatisticsHook',
    'TeacherFrozenHook',
    'VerifyPretrainedHook',
]
