_base_ = './default_runtime.py'

custom_hooks = [
    dict(type='mmcmcd.ExactResumeHook'),
    dict(type='mmcmcd.NonFiniteGuardHook'),
    dict(type='mmcmcd.StopOnSignalHook'),
    # Ranks normalise with one set of statistics when they validate.
    dict(type='mmcmcd.SyncStatisticsHook'),
    dict(type='mmcmcd.VerifyPretrainedHook'),
    dict(type='mmcmcd.TeacherFrozenHook'),
    dict(type='mmcmcd.SkippedPairsHook'),
    dict(type='mmcmcd.StudentExportHook'),
]
