# Labelled sketches of The Sketchy Database; all of them unless
# train_dataloader.dataset.labels_per_class says how many.
train_pipeline = [
    dict(type='mmcmcd.LoadSketch'),
    dict(
        type='RandomResizedCrop',
        scale=224,
        crop_ratio_range=(0.5, 1.0),
        interpolation='area'),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackInputs'),
]
test_pipeline = [
    dict(type='mmcmcd.LoadSketch'),
    dict(type='Resize', scale=(224, 224), interpolation='area'),
    dict(type='PackInputs'),
]
train_dataloader = dict(
    batch_size=128,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='mmcmcd.SketchyImages',
        data_root='data/sketchy/',
        split='train',
        pipeline=train_pipeline))
val_dataloader = dict(
    batch_size=128,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='mmcmcd.SketchyImages',
        data_root='data/sketchy/',
        split='test',
        pipeline=test_pipeline,
        test_mode=True))
val_evaluator = dict(type='Accuracy', topk=(1, 5))
val_cfg = dict(type='ValLoop')
test_dataloader = val_dataloader
test_evaluator = val_evaluator
test_cfg = dict(type='TestLoop')
# Labelled sketches vote on held-out ones, see mmcmcd.KNNHook.
# The configs copy it into their hook when they are read. Afterwards, and in
# --cfg-options, what counts is default_hooks.knn.bank_dataloader.
bank_dataloader = dict(
    batch_size=128,
    num_workers=2,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='mmcmcd.SketchyImages',
        data_root='data/sketchy/',
        split='train',
        pipeline=test_pipeline,
        test_mode=True))
