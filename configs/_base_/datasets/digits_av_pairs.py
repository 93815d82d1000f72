# Images of MNIST and spoken digits, PAIRED BY CLASS, that is with labels; the
# speaker nicolas, and the images dealt to him, are held out.
train_pipeline = [
    dict(
        type='mmcmcd.OnSide', sides='source',
        transforms=[
            dict(type='mmcmcd.LoadArrayRow'),
            dict(type='RandomResizedCrop', scale=32,
                 crop_ratio_range=(0.6, 1.0))]),
    dict(
        type='mmcmcd.OnSide', sides='target',
        transforms=[
            dict(type='mmcmcd.LoadAudio', sampling_rate=8000),
            dict(type='mmcmcd.AudioSegment', duration=0.8, pad='zero'),
            dict(type='mmcmcd.RandomTimeShift', max_shift=0.2),
            dict(type='mmcmcd.RandomGain', db=6.),
            dict(type='mmcmcd.AddNoise', snr_db=(10., 40.))]),
    dict(type='mmcmcd.PackPairedInputs'),
]
test_pipeline = [
    dict(
        type='mmcmcd.OnSide', sides='source',
        transforms=[
            dict(type='mmcmcd.LoadArrayRow'),
            dict(type='Resize', scale=(32, 32))]),
    dict(
        type='mmcmcd.OnSide', sides='target',
        transforms=[
            dict(type='mmcmcd.LoadAudio', sampling_rate=8000),
            dict(type='mmcmcd.AudioSegment', duration=0.8, random=False,
                 pad='zero')]),
    dict(type='mmcmcd.PackPairedInputs'),
]
_data = dict(
    type='mmcmcd.DigitsAV',
    data_root='{{$MMCMCD_REALDATA:data}}/digits_av/')
_train = ('george', 'jackson', 'lucas')
train_dataloader = dict(
    batch_size=64,
    num_workers=0,
    drop_last=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        **_data, speakers=_train, images_per_clip=5, pipeline=train_pipeline))
val_dataloader = dict(
    batch_size=64,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        **_data, speakers=('nicolas', ), pipeline=test_pipeline,
        test_mode=True))
val_evaluator = dict(type='mmcmcd.CrossModalRetrieval')
val_cfg = dict(type='ValLoop')
test_dataloader = val_dataloader
test_evaluator = val_evaluator
test_cfg = dict(type='TestLoop')
# Labelled sounds vote on those of the unheard speaker.
bank_dataloader = dict(
    batch_size=64,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        **_data, speakers=_train, pipeline=test_pipeline, test_mode=True))
del _data, _train
