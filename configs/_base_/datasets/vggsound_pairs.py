# Frames and sound of VGGSound's clips, as prepared by
# tools/dataset_converters/vggsound.py: five seconds, and the frame nearest to
# their middle.
train_pipeline = [
    dict(type='mmcmcd.SharedTemporalCrop', duration=5., short='repeat'),
    dict(
        type='mmcmcd.OnSide',
        sides='source',
        transforms=[
            dict(type='mmcmcd.LoadImageStrict'),
            dict(
                type='RandomResizedCrop',
                scale=224,
                crop_ratio_range=(0.4, 1.0)),
            dict(type='RandomFlip', prob=0.5),
            dict(
                type='ColorJitter',
                brightness=0.4,
                contrast=0.4,
                saturation=0.4,
                hue=0.1),
        ]),
    dict(
        type='mmcmcd.OnSide',
        sides='target',
        transforms=[
            # Else every silent draw would ban a partly silent clip for good.
            dict(
                type='mmcmcd.LoadAudio',
                sampling_rate=16000,
                pad='repeat',
                on_silent='keep'),
            dict(type='mmcmcd.RandomGain', db=6.),
        ]),
    dict(type='mmcmcd.PackPairedInputs'),
]
test_pipeline = [
    dict(
        type='mmcmcd.SharedTemporalCrop',
        duration=5.,
        random=False,
        short='repeat'),
    dict(
        type='mmcmcd.OnSide',
        sides='source',
        transforms=[
            dict(type='mmcmcd.LoadImageStrict'),
            dict(type='ResizeEdge', scale=256, edge='short'),
            dict(type='CenterCrop', crop_size=224),
        ]),
    dict(
        type='mmcmcd.OnSide',
        sides='target',
        transforms=[
            dict(
                type='mmcmcd.LoadAudio',
                sampling_rate=16000,
                pad='repeat',
                on_silent='keep')
        ]),
    dict(type='mmcmcd.PackPairedInputs'),
]
train_dataloader = dict(
    batch_size=128,
    num_workers=8,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='mmcmcd.VGGSound',
        data_root='data/vggsound/',
        split='train',
        # One damaged file does not stop a long run.
        on_unreadable='skip',
        pipeline=train_pipeline))
# Retrieval between held-out frames and sounds.
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
        pipeline=test_pipeline,
        test_mode=True))
val_evaluator = dict(type='mmcmcd.CrossModalRetrieval')
val_cfg = dict(type='ValLoop')
test_dataloader = val_dataloader
test_evaluator = val_evaluator
test_cfg = dict(type='TestLoop')
