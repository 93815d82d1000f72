# Step 1 with labels: a skeleton classifier whose backbone can teach. Trained
# on the labels of subjects 1, 3, 5.
_base_ = '../downstream/inertial_utdmhad_ft.py'

_load = [
    dict(type='mmcmcd.SelectSide', side='skeleton'),
    dict(type='mmcmcd.LoadArray', axes='TVC'),
    dict(type='mmcmcd.CenterSkeleton', joint=3, num_joints=20),
]
train_pipeline = [
    *_load,
    dict(type='mmcmcd.RandomTimeCrop', fraction=(0.5, 1.0)),
    dict(type='mmcmcd.ResampleArray', length=64),
    dict(type='mmcmcd.RandomRotation3D', max_angle=30.),
    dict(type='mmcmcd.RandomJitter', std=0.01),
    dict(type='PackInputs'),
]
test_pipeline = [
    *_load,
    dict(type='mmcmcd.ResampleArray', length=64),
    dict(type='PackInputs'),
]
_skeleton = dict(sides=('skeleton', ))
train_dataloader = dict(dataset=dict(**_skeleton, pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(**_skeleton, pipeline=test_pipeline))
test_dataloader = val_dataloader
model = dict(backbone=dict(in_channels=60, init_cfg=None))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, begin=0, end=30, by_epoch=False),
    dict(type='CosineAnnealingLR', T_max=270, begin=30, end=300,
         by_epoch=False),
]
train_cfg = dict(max_iters=300, val_interval=300)
default_hooks = dict(checkpoint=dict(interval=300))
del _load, _skeleton
