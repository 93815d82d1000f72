# Segmentation of NYU-Depth V2 from depth alone, 40 classes.
_load = [
    dict(
        type='mmcmcd.LoadDepthFromFile',
        depth_scale=1000.,
        expected_dtype='uint16',
        min_valid_fraction=0.01),
]
_encode = [
    dict(type='mmcmcd.NormalizeDepth', mode='range', max_depth=10.),
    dict(type='PackSegInputs'),
]
# Depth is resized with nearest: interpolation would invent surfaces.
train_pipeline = [
    *_load,
    dict(type='LoadAnnotations'),
    dict(
        type='RandomResize',
        scale=(640, 480),
        ratio_range=(0.75, 1.5),
        keep_ratio=True,
        interpolation='nearest'),
    dict(type='RandomCrop', crop_size=(480, 640), cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    *_encode,
]
test_pipeline = [
    *_load,
    dict(type='LoadAnnotations'),
    *_encode,
]
train_dataloader = dict(
    batch_size=8,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type='mmcmcd.NYUDepthSegDataset',
        data_root='data/nyu_depth_v2/',
        ann_file='splits/train.txt',
        pipeline=train_pipeline))
val_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='mmcmcd.NYUDepthSegDataset',
        data_root='data/nyu_depth_v2/',
        ann_file='splits/test.txt',
        pipeline=test_pipeline,
        test_mode=True))
test_dataloader = val_dataloader
val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator
# Not inherited: a user's config may use these names.
del _load, _encode
