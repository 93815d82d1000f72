# Two views of the sketches of The Sketchy Database: no photo is seen.
view_pipeline = [
    dict(
        type='RandomResizedCrop',
        scale=224,
        crop_ratio_range=(0.4, 1.0),
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
    batch_size=128,
    num_workers=4,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='mmcmcd.SketchyImages',
        data_root='data/sketchy/',
        split='train',
        side='target',
        pipeline=train_pipeline))
