# The recipe of depth_nyu.py for a CPU: ResNet-18, crops of 128x96.
_base_ = [
    '../_base_/models/cmcd_resnet50.py',
    '../_base_/datasets/nyu_rgbd_pairs_tiny.py',
    '../_base_/schedules/adamw_cosine.py',
    '../_base_/distill_runtime.py',
]
_teacher = 'work_dirs/simclr_r18_nyu_tiny_rgb/epoch_50.pth'
model = dict(
    teacher=dict(depth=18, init_cfg=dict(checkpoint=_teacher)),
    source_norm=dict(num_features=512),
    student=dict(depth=18),
    student_projector=dict(
        in_channels=512, hid_channels=512, out_channels=512))
optim_wrapper = dict(type='mmcmcd.CPUAmpOptimWrapper')
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, begin=0, end=5, by_epoch=True,
         convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', T_max=55, begin=5, end=60, by_epoch=True,
         convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=60)
del _teacher
