_base_ = './default_runtime.py'

custom_hooks = [
    dict(type='mmcmcd.VerifyPretrainedHook'),
    dict(type='mmcmcd.TeacherFrozenHook'),
    dict(type='mmcmcd.SkippedPairsHook'),
    dict(type='mmcmcd.StudentExportHook'),
]
