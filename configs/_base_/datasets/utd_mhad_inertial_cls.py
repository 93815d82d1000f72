# Labelled inertial clips of UTD-MHAD, subjects 1, 3, 5 against 7; all of them
# unless train_dataloader.dataset.labels_per_class says how many.
_load = [
    dict(type='mmcmcd.SelectSide', side='inertial'),
    dict(type='mmcmcd.LoadArray', axes='TC'),
]
_prepare = [
    dict(type='mmcmcd.ResampleArray', length=64),
    dict(type='mmcmcd.NormalizeArray',
         mean=[-0.642, -0.276, -0.079, 5.35, -3.66, -0.53],
         std=[0.725, 0.519, 0.579, 93.8, 113.6, 114.1]),
    dict(type='PackInputs'),
]
train_pipeline = [
    *_load,
    dict(type='mmcmcd.RandomTimeCrop', fraction=(0.7, 1.0)),
    *_prepare,
]
test_pipeline = [*_load, *_prepare]
_data = dict(
    type='mmcmcd.UTDMHAD',
    sides=('inertial', ),
    data_root='{{$MMCMCD_REALDATA:data}}/utd_mhad/')
train_dataloader = dict(
    batch_size=32,
    num_workers=0,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(**_data, subjects=(1, 3, 5), pipeline=train_pipeline))
val_dataloader = dict(
    batch_size=64,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        **_data, subjects=(7, ), pipeline=test_pipeline, test_mode=True))
val_evaluator = dict(type='Accuracy', topk=(1, 5))
val_cfg = dict(type='ValLoop')
test_dataloader = val_dataloader
test_evaluator = val_evaluator
test_cfg = dict(type='TestLoop')
del _load, _prepare, _data
