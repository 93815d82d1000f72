# Step 1 of the tiny recipe: half-width ResNet-18 at 64x64 on a CPU.
_base_ = './simclr_r50_sketchy_photo.py'

view_pipeline = [
    dict(type='RandomResizedCrop', scale=64, crop_ratio_range=(0.2, 1.0)),
    dict(type='RandomFlip', prob=0.5),
    dict(
        type='RandomApply',
        transforms=[
            dict(type='ColorJitter', brightness=0.6, contrast=0.6,
                 saturation=0.6, hue=0.15)
        ],
        prob=0.8),
    dict(type='RandomGrayscale', prob=0.2, keep_channels=True,
         channel_weights=(0.114, 0.587, 0.2989)),
]
train_pipeline = [
    dict(type='mmcmcd.LoadImageStrict'),
    dict(type='MultiView', num_views=2, transforms=[view_pipeline]),
    dict(type='PackInputs'),
]
_root = '{{$MMCMCD_REALDATA:data}}'
# The sample has 272 photos to learn from, so frames of NYU-Depth V2, as
# unlabelled as they are, join them.
train_dataloader = dict(
    batch_size=64,
    num_workers=1,
    dataset=dict(
        _delete_=True,
        type='mmengine.ConcatDataset',
        ignore_keys=['classes', 'dataset_type'],
        datasets=[
            dict(
                type='RepeatDataset',
                times=2,
                lazy_init=True,
                dataset=dict(
                    type='mmcmcd.SketchyImages',
                    data_root=_root + '/sketchy125/',
                    split='train',
                    side='source',
                    lazy_init=True,
                    pipeline=train_pipeline)),
            dict(
                type='CustomDataset',
                data_root=_root + '/nyuv2/rgb',
                with_label=False,
                lazy_init=True,
                pipeline=train_pipeline),
        ]))
model = dict(
    backbone=dict(depth=18, stem_channels=32, base_channels=32),
    neck=dict(in_channels=256, hid_channels=256))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, begin=0, end=5, by_epoch=True,
         convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', T_max=45, begin=5, end=50, by_epoch=True,
         convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=50)
default_hooks = dict(checkpoint=dict(interval=50))
del _root
