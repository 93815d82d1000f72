# Shared by all configs of the mmpretrain scope.
default_scope = 'mmpretrain'
# Lets the training scripts of mmpretrain and mmsegmentation run our configs.
custom_imports = dict(imports=['mmcmcd'], allow_failed_imports=False)

default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=10),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(
        type='mmcmcd.AtomicCheckpointHook', interval=10, max_keep_ckpts=2),
    sampler_seed=dict(type='DistSamplerSeedHook'))
custom_hooks = [
    dict(type='mmcmcd.ExactResumeHook'),
    dict(type='mmcmcd.NonFiniteGuardHook'),
    dict(type='mmcmcd.StopOnSignalHook'),
    dict(type='mmcmcd.VerifyPretrainedHook'),
]

env_cfg = dict(
    cudnn_benchmark=False,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'))
vis_backends = [dict(type='LocalVisBackend')]
visualizer = dict(type='UniversalVisualizer', vis_backends=vis_backends)
log_level = 'INFO'
load_from = None
resume = False
randomness = dict(seed=0)
