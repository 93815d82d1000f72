# A depth-video student learns from a skeleton teacher.
_base_ = [
    '../_base_/models/cmcd_series.py',
    '../_base_/datasets/utd_mhad_depth_pairs.py',
    '../_base_/schedules/adamw_cosine.py',
    '../_base_/distill_runtime.py',
]
_teacher = 'work_dirs/simclr_tcn_utdmhad_skeleton/epoch_100.pth'
model = dict(
    teacher=dict(init_cfg=dict(checkpoint=_teacher)),
    student=dict(
        type='mmcmcd.ClipConvNet', in_channels=1, channels=(16, 32, 128),
        strides=((1, 4, 4), 2, 2)))
optim_wrapper = dict(optimizer=dict(lr=3e-3))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, begin=0, end=5, by_epoch=True,
         convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', T_max=55, begin=5, end=60, by_epoch=True,
         convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=60, val_interval=20)
auto_scale_lr = dict(base_batch_size=64)
del _teacher
