# Labelled sounds of ESC-50; fold 5 is for testing. Another one:
#   --cfg-options train_dataloader.dataset.folds="(2,3,4,5)"
#   val_dataloader.dataset.folds="(1,)" test_dataloader.dataset.folds="(1,)"
train_pipeline = [
    dict(type='mmcmcd.LoadAudio', sampling_rate=16000),
    dict(type='mmcmcd.AudioSegment', duration=5.),
    dict(type='mmcmcd.RandomTimeShift', max_shift=2.5),
    dict(type='mmcmcd.RandomGain', db=6.),
    dict(type='PackInputs'),
]
test_pipeline = [
    dict(type='mmcmcd.LoadAudio', sampling_rate=16000),
    dict(type='mmcmcd.AudioSegment', duration=5., random=False),
    dict(type='PackInputs'),
]
train_dataloader = dict(
    batch_size=64,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='mmcmcd.ESC50',
        data_root='data/esc50/',
        folds=(1, 2, 3, 4),
        pipeline=train_pipeline))
val_dataloader = dict(
    batch_size=64,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='mmcmcd.ESC50',
        data_root='data/esc50/',
        folds=(5, ),
        pipeline=test_pipeline,
        test_mode=True))
val_evaluator = dict(type='Accuracy', topk=(1, 5))
val_cfg = dict(type='ValLoop')
test_dataloader = val_dataloader
test_evaluator = val_evaluator
test_cfg = dict(type='TestLoop')
