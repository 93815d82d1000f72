# Step 1 of the digits: SimCLR on images of MNIST, a quarter-width ResNet-18.
_base_ = [
    '../_base_/models/simclr_resnet50.py',
    '../_base_/datasets/digits_av_pairs.py',
    '../_base_/schedules/adamw_cosine.py',
    '../_base_/default_runtime.py',
]
view_pipeline = [
    dict(type='RandomResizedCrop', scale=32, crop_ratio_range=(0.4, 1.0)),
    dict(type='Rotate', angle=15., pad_val=0, prob=0.5),
]
train_pipeline = [
    dict(type='mmcmcd.SelectSide', side='source'),
    dict(type='mmcmcd.LoadArrayRow'),
    dict(type='MultiView', num_views=2, transforms=[view_pipeline]),
    dict(type='PackInputs'),
]
train_dataloader = dict(
    batch_size=128, dataset=dict(pipeline=train_pipeline))
val_dataloader = None
val_evaluator = None
val_cfg = None
test_dataloader = None
test_evaluator = None
test_cfg = None
model = dict(
    data_preprocessor=dict(mean=[33.], std=[79.], to_rgb=False),
    backbone=dict(
        depth=18, in_channels=1, stem_channels=16, base_channels=16),
    neck=dict(in_channels=128, hid_channels=128))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, begin=0, end=1, by_epoch=True,
         convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', T_max=9, begin=1, end=10, by_epoch=True,
         convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=10)
default_hooks = dict(checkpoint=dict(interval=10))
