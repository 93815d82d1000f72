# Two views of the RGB frames of NYU-Depth V2 for contrastive pre-training.
view_pipeline = [
    dict(
        type='RandomResizedCrop',
        scale=(240, 320),
        crop_ratio_range=(0.2, 1.0)),
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
        magnitude_range=(0.1, 2.0),
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
    batch_size=128,
    num_workers=4,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='mmcmcd.NYURGBDPairs',
        data_root='data/nyu_depth_v2/',
        ann_file='splits/train.txt',
        pipeline=train_pipeline))
