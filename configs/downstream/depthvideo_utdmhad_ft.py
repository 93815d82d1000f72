# Step 3, full fine-tuning of a depth-video student, as that of
# inertial_utdmhad_ft.py.
_base_ = './inertial_utdmhad_ft.py'

_load = [
    dict(type='mmcmcd.SelectSide', side='depth'),
    dict(type='mmcmcd.LoadArray', axes='THW'),
    dict(type='mmcmcd.ClampArray', low=2., high=4., scale=1e-3,
         missing=4.),
    dict(type='mmcmcd.NormalizeArray', mean=[3.91], std=[0.31]),
]
train_pipeline = [
    *_load,
    dict(type='mmcmcd.RandomTimeCrop', fraction=(0.7, 1.0)),
    dict(type='mmcmcd.ResampleArray', length=12, mode='nearest'),
    dict(type='mmcmcd.RandomResizedCropClip', size=(30, 40),
         area_ratio=(0.6, 1.0)),
    dict(type='PackInputs'),
]
test_pipeline = [
    *_load,
    dict(type='mmcmcd.ResizeClip', size=(30, 40)),
    dict(type='PackInputs'),
]
_depth = dict(sides=('depth', ))
train_dataloader = dict(dataset=dict(**_depth, pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(**_depth, pipeline=test_pipeline))
test_dataloader = val_dataloader
model = dict(
    backbone=dict(
        type='mmcmcd.ClipConvNet', in_channels=1, channels=(16, 32, 128),
        strides=((1, 4, 4), 2, 2)),
    head=dict(in_channels=128))
del _load, _depth
