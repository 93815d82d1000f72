# The tiny recipe's control without a teacher: the sketches alone.
_base_ = './simclr_r50_sketchy_sketch.py'

view_pipeline = [
    dict(type='RandomResizedCrop', scale=64, crop_ratio_range=(0.4, 1.0),
         interpolation='area'),
    dict(type='RandomFlip', prob=0.5),
    dict(type='Rotate', angle=15., pad_val=255, prob=0.5),
]
train_pipeline = [
    dict(type='mmcmcd.LoadSketch'),
    dict(type='MultiView', num_views=2, transforms=[view_pipeline]),
    dict(type='PackInputs'),
]
train_dataloader = dict(
    batch_size=64,
    num_workers=1,
    dataset=dict(
        data_root='{{$MMCMCD_REALDATA:data}}/sketchy125/',
        pipeline=train_pipeline))
model = dict(
    backbone=dict(depth=18, stem_channels=32, base_channels=32),
    neck=dict(in_channels=256, hid_channels=256))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, begin=0, end=5, by_epoch=True,
         convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', T_max=25, begin=5, end=30, by_epoch=True,
         convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=30)
default_hooks = dict(checkpoint=dict(interval=30))
