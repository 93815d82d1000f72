# An 8-bit copy of the 795 official training frames of NYU-Depth V2 (25.5
# levels per metre) with its own lists; crops of 128x96.
_load = [
    dict(
        type='mmcmcd.OnSide', sides='source',
        transforms=[dict(type='mmcmcd.LoadImageStrict')]),
    dict(
        type='mmcmcd.OnSide', sides='target',
        transforms=[
            dict(type='mmcmcd.LoadDepthFromFile', depth_scale=25.5,
                 expected_dtype='uint8', min_valid_fraction=0.01)]),
]
_encode = [
    dict(
        type='mmcmcd.OnSide', sides='target',
        transforms=[
            dict(type='mmcmcd.NormalizeDepth', mode='range', max_depth=10.)]),
    dict(type='mmcmcd.PackPairedInputs'),
]
train_pipeline = [
    *_load,
    dict(
        type='mmcmcd.SharedGeometry',
        transforms=[
            dict(type='RandomResizedCrop', scale=(96, 128),
                 crop_ratio_range=(0.3, 1.0)),
            dict(type='RandomFlip', prob=0.5)]),
    dict(
        type='mmcmcd.OnSide', sides='source',
        transforms=[
            dict(type='ColorJitter', brightness=0.4, contrast=0.4,
                 saturation=0.4, hue=0.1)]),
    *_encode,
]
test_pipeline = [
    *_load,
    dict(type='mmcmcd.SharedGeometry',
         transforms=[dict(type='Resize', scale=(160, 120))]),
    *_encode,
]
_root = '{{$MMCMCD_REALDATA:data}}/nyuv2/'
train_dataloader = dict(
    batch_size=64,
    num_workers=1,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='mmcmcd.NYURGBDPairs',
        data_root=_root,
        ann_file='train.txt',
        pipeline=train_pipeline))
val_dataloader = dict(
    batch_size=64,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='mmcmcd.NYURGBDPairs',
        data_root=_root,
        ann_file='val.txt',
        pipeline=test_pipeline,
        test_mode=True))
val_evaluator = dict(type='mmcmcd.CrossModalRetrieval')
val_cfg = dict(type='ValLoop')
test_dataloader = val_dataloader
test_evaluator = val_evaluator
test_cfg = dict(type='TestLoop')
# Not inherited: a user's config may use these names.
del _load, _encode, _root
