# The recipe of depth_nyu.py for a CPU: a ResNet-18 of half the width, crops of
# 128x96.
_base_ = [
    '../_base_/models/cmcd_resnet50.py',
    '../_base_/datasets/nyu_rgbd_pairs_tiny.py',
    '../_base_/schedules/adamw_cosine.py',
    '../_base_/distill_runtime.py',
]
_teacher = 'work_dirs/simclr_r18_nyu_tiny_rgb/epoch_40.pth'
model = dict(
    teacher=dict(
        depth=18, base_channels=32, stem_channels=32,
        init_cfg=dict(checkpoint=_teacher)),
    source_norm=dict(num_features=256),
    student=dict(depth=18, base_channels=32, stem_channels=32),
    student_projector=dict(
        in_channels=256, hid_channels=256, out_channels=256))
optim_wrapper = dict(
    type='mmcmcd.CPUAmpOptimWrapper', optimizer=dict(lr=3e-3))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, begin=0, end=5, by_epoch=True,
         convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', T_max=35, begin=5, end=40, by_epoch=True,
         convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=40)
del _teacher
