_base_ = './default_runtime.py'

custom_hooks = [
    # Ranks normalise with one set of statistics when they validate.
    dict(type='mmcmcd.SyncStatisticsHook'),
    dict(type='mmcmcd.VerifyPretrainedHook'),
    dict(type='mmcmcd.TeacherFrozenHook'),
    dict(type='mmcmcd.SkippedPairsHook'),
    dict(type='mmcmcd.StudentExportHook'),
]
