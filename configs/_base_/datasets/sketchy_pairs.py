# Unlabelled photo-sketch pairs of The Sketchy Database, listed by
# tools/dataset_converters/sketchy.py. A sketch is drawn from its photo, but
# not pixel by pixel: a shared crop keeps the same part of the object in both.
_load = [
    dict(
        type='mmcmcd.OnSide',
        sides='source',
        transforms=[dict(type='mmcmcd.LoadImageStrict')]),
    dict(
        type='mmcmcd.OnSide',
        sides='target',
        transforms=[dict(type='mmcmcd.LoadSketch')]),
]
train_pipeline = [
    *_load,
    dict(
        type='mmcmcd.SharedGeometry',
        transforms=[
            dict(
                type='RandomResizedCrop',
                scale=224,
                crop_ratio_range=(0.4, 1.0),
                interpolation='area'),
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
    dict(type='mmcmcd.PackPairedInputs'),
]
test_pipeline = [
    *_load,
    dict(
        type='mmcmcd.SharedGeometry',
        transforms=[
            dict(type='Resize', scale=(224, 224), interpolation='area')
        ]),
    dict(type='mmcmcd.PackPairedInputs'),
]
train_dataloader = dict(
    batch_size=128,
    num_workers=4,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='mmcmcd.SketchyPairs',
        data_root='data/sketchy/',
        split='train',
        pipeline=train_pipeline))
# Retrieval between held-out photos and sketches.
val_dataloader = dict(
    batch_size=64,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='mmcmcd.SketchyPairs',
        data_root='data/sketchy/',
        split='test',
        pipeline=test_pipeline,
        test_mode=True))
val_evaluator = dict(type='mmcmcd.CrossModalRetrieval')
val_cfg = dict(type='ValLoop')
test_dataloader = val_dataloader
test_evaluator = val_evaluator
test_cfg = dict(type='TestLoop')
# Labelled sketches vote on held-out ones; no training uses a label.
# The configs copy it into their hook when they are read. Afterwards, and in
# --cfg-options, what counts is default_hooks.knn.bank_dataloader.
bank_dataloader = dict(
    batch_size=64,
    num_workers=2,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='mmcmcd.SketchyPairs',
        data_root='data/sketchy/',
        split='train',
        pipeline=test_pipeline,
        test_mode=True))
# Not inherited: a user's config may use these names.
del _load
