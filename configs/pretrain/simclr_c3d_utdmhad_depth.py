# The control without a teacher: SimCLR on the depth videos alone.
_base_ = './simclr_tcn_utdmhad_skeleton.py'

view_pipeline = [
    dict(type='mmcmcd.RandomTimeCrop', fraction=(0.5, 1.0)),
    dict(type='mmcmcd.ResampleArray', length=12, mode='nearest'),
    dict(type='mmcmcd.RandomResizedCropClip', size=(30, 40),
         area_ratio=(0.4, 1.0)),
]
train_pipeline = [
    dict(type='mmcmcd.SelectSide', side='depth'),
    dict(type='mmcmcd.LoadArray', axes='THW'),
    dict(type='mmcmcd.ClampArray', low=2., high=4., scale=1e-3,
         missing=4.),
    dict(type='mmcmcd.NormalizeArray', mean=[3.91], std=[0.31]),
    dict(type='MultiView', num_views=2, transforms=[view_pipeline]),
    dict(type='PackInputs'),
]
train_dataloader = dict(
    dataset=dict(sides=('depth', ), pipeline=train_pipeline))
model = dict(
    backbone=dict(
        type='mmcmcd.ClipConvNet', in_channels=1, channels=(16, 32, 128),
        strides=((1, 4, 4), 2, 2)))
