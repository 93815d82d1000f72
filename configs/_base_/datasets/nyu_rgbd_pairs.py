# Unlabelled RGB-depth pairs of NYU-Depth V2, as prepared by
# tools/dataset_converters/nyu_depth_v2.py.
_load = [
    dict(
        type='mmcmcd.OnSide',
        sides='source',
        transforms=[dict(type='mmcmcd.LoadImageStrict')]),
    dict(
        type='mmcmcd.OnSide',
        sides='target',
        transforms=[
            dict(
                type='mmcmcd.LoadDepthFromFile',
                depth_scale=1000.,
                expected_dtype='uint16',
                min_valid_fraction=0.01)
        ]),
]
_encode = [
    dict(
        type='mmcmcd.OnSide',
        sides='target',
        transforms=[
            dict(type='mmcmcd.NormalizeDepth', mode='range', max_depth=10.)
        ]),
    dict(type='mmcmcd.PackPairedInputs'),
]
train_pipeline = [
    *_load,
    dict(
        type='mmcmcd.SharedGeometry',
        transforms=[
            dict(
                type='RandomResizedCrop',
                scale=(240, 320),
                crop_ratio_range=(0.3, 1.0)),
            dict(type='RandomFlip', prob=0.5),
        ]),
    dict(
        type='mmcmcd.OnSide',
        sides='source',
        transforms=[
            dict(
                type='ColorJitter',
                brightness=0.4,
                contrast=0.4,
                saturation=0.4,
                hue=0.1)
        ]),
    *_encode,
]
test_pipeline = [
    *_load,
    dict(
        type='mmcmcd.SharedGeometry',
        transforms=[dict(type='Resize', scale=(320, 240))]),
    *_encode,
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
# Label-free validation: retrieval between the sides of held-out pairs.
val_dataloader = dict(
    batch_size=64,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='mmcmcd.NYURGBDPairs',
        data_root='data/nyu_depth_v2/',
        ann_file='splits/test.txt',
        pipeline=test_pipeline,
        test_mode=True))
val_evaluator = dict(type='mmcmcd.CrossModalRetrieval')
val_cfg = dict(type='ValLoop')
test_dataloader = val_dataloader
test_evaluator = val_evaluator
test_cfg = dict(type='TestLoop')
# Not inherited: a user's config may use these names.
del _load, _encode
