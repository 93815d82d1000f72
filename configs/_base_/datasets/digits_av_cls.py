# Labelled spoken digits, tested on the unheard speaker nicolas; all of them
# unless train_dataloader.dataset.labels_per_class says how many.
train_pipeline = [
    dict(type='mmcmcd.SelectSide', side='target'),
    dict(type='mmcmcd.LoadAudio', sampling_rate=8000),
    dict(type='mmcmcd.AudioSegment', duration=0.8, pad='zero'),
    dict(type='mmcmcd.RandomTimeShift', max_shift=0.2),
    dict(type='mmcmcd.RandomGain', db=6.),
    dict(type='mmcmcd.AddNoise', snr_db=(10., 40.), prob=0.5),
    dict(type='PackInputs'),
]
test_pipeline = [
    dict(type='mmcmcd.SelectSide', side='target'),
    dict(type='mmcmcd.LoadAudio', sampling_rate=8000),
    dict(type='mmcmcd.AudioSegment', duration=0.8, random=False, pad='zero'),
    dict(type='PackInputs'),
]
_data = dict(
    type='mmcmcd.DigitsAV',
    sides=('target', ),
    data_root='{{$MMCMCD_REALDATA:data}}/digits_av/')
_train = ('george', 'jackson', 'lucas')
train_dataloader = dict(
    batch_size=32,
    num_workers=0,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(**_data, speakers=_train, pipeline=train_pipeline))
val_dataloader = dict(
    batch_size=64,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        **_data, speakers=('nicolas', ), pipeline=test_pipeline,
        test_mode=True))
val_evaluator = dict(type='Accuracy', topk=(1, 5))
val_cfg = dict(type='ValLoop')
test_dataloader = val_dataloader
test_evaluator = val_evaluator
test_cfg = dict(type='TestLoop')
# Labelled sounds vote on those of the unheard speaker, see mmcmcd.KNNHook.
bank_dataloader = dict(
    batch_size=64,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        **_data, speakers=_train, pipeline=test_pipeline, test_mode=True))
del _data, _train
