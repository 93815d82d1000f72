# Step 1 of the tiny recipe: a ResNet-18 of half the width, crops of 128x96; a
# CPU is enough.
_base_ = './simclr_r50_nyu_rgb.py'

view_pipeline = [
    dict(type='RandomResizedCrop', scale=(96, 128), crop_ratio_range=(.2, 1)),
    dict(type='RandomFlip', prob=0.5),
    dict(
        type='RandomApply',
        transforms=[
            dict(
                type='ColorJitter',
                brightness=0.6,
                contrast=0.6,
                saturation=0.6,
                hue=0.15)
        ],
        prob=0.8),
    dict(
        type='RandomGrayscale',
        prob=0.2,
        keep_channels=True,
        channel_weights=(0.114, 0.587, 0.2989)),
    dict(
        type='GaussianBlur',
        magnitude_range=(0.1, 1.5),
        magnitude_std='inf',
        prob=0.5),
]
train_pipeline = [
    dict(type='mmcmcd.SelectSide', side='source'),
    dict(type='mmcmcd.LoadImageStrict'),
    dict(type='MultiView', num_views=2, transforms=[view_pipeline]),
    dict(type='PackInputs'),
]
train_dataloader = dict(
    batch_size=64,
    num_workers=1,
    dataset=dict(
        data_root='{{$MMCMCD_REALDATA:data}}/nyuv2/',
        ann_file='train.txt',
        pipeline=train_pipeline))
model = dict(
    backbone=dict(depth=18, base_channels=32, stem_channels=32),
    neck=dict(in_channels=256, hid_channels=256))
optim_wrapper = dict(
    type='mmcmcd.CPUAmpOptimWrapper', optimizer=dict(lr=3e-3))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, begin=0, end=5, by_epoch=True,
         convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', T_max=35, begin=5, end=40, by_epoch=True,
         convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=40)
default_hooks = dict(checkpoint=dict(interval=40))
