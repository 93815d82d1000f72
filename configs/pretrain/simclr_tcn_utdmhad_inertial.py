# The control without a teacher: SimCLR on the inertial clips alone.
_base_ = './simclr_tcn_utdmhad_skeleton.py'

view_pipeline = [
    dict(type='mmcmcd.RandomTimeCrop', fraction=(0.5, 1.0)),
    dict(type='mmcmcd.ResampleArray', length=64),
    dict(type='mmcmcd.NormalizeArray',
         mean=[-0.642, -0.276, -0.079, 5.35, -3.66, -0.53],
         std=[0.725, 0.519, 0.579, 93.8, 113.6, 114.1]),
    dict(type='mmcmcd.RandomChannelScale', std=0.2),
    dict(type='mmcmcd.RandomJitter', std=0.05),
]
train_pipeline = [
    dict(type='mmcmcd.SelectSide', side='inertial'),
    dict(type='mmcmcd.LoadArray', axes='TC'),
    dict(type='MultiView', num_views=2, transforms=[view_pipeline]),
    dict(type='PackInputs'),
]
train_dataloader = dict(
    dataset=dict(sides=('inertial', ), pipeline=train_pipeline))
model = dict(backbone=dict(in_channels=6))
