# Labelled sounds of VGGSound: five seconds in training, ten in the test; all
# of them unless train_dataloader.dataset.labels_per_class says how many.
train_pipeline = [
    dict(type='mmcmcd.SelectSide', side='target'),
    dict(type='mmcmcd.LoadAudio', sampling_rate=16000, on_silent='keep'),
    dict(type='mmcmcd.AudioSegment', duration=5.),
    dict(type='mmcmcd.RandomGain', db=6.),
    dict(type='PackInputs'),
]
test_pipeline = [
    dict(type='mmcmcd.SelectSide', side='target'),
    dict(type='mmcmcd.LoadAudio', sampling_rate=16000, on_silent='keep'),
    dict(type='mmcmcd.AudioSegment', duration=10., random=False),
    dict(type='PackInputs'),
]
train_dataloader = dict(
    batch_size=128,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='mmcmcd.VGGSound',
        data_root='data/vggsound/',
        split='train',
        sides=('target', ),
        pipeline=train_pipeline))
val_dataloader = dict(
    batch_size=64,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='mmcmcd.VGGSound',
        data_root='data/vggsound/',
        split='test',
        sides=('target', ),
        pipeline=test_pipeline,
        test_mode=True))
val_evaluator = dict(type='Accuracy', topk=(1, 5))
val_cfg = dict(type='ValLoop')
test_dataloader = val_dataloader
test_evaluator = val_evaluator
test_cfg = dict(type='TestLoop')
