# UTD-MHAD: skeleton, inertial sensor and depth video of the same clip.
# Subjects 1, 3, 5 to learn from; 7 is held out.
_load = [
    dict(
        type='mmcmcd.OnSide', sides='skeleton',
        transforms=[dict(type='mmcmcd.LoadArray', axes='TVC')]),
    dict(
        type='mmcmcd.OnSide', sides='inertial',
        transforms=[dict(type='mmcmcd.LoadArray', axes='TC')]),
    dict(
        type='mmcmcd.OnSide', sides='depth',
        transforms=[dict(type='mmcmcd.LoadArray', axes='THW')]),
]
_prepare = [
    dict(
        type='mmcmcd.OnSide', sides='skeleton',
        transforms=[
            dict(type='mmcmcd.CenterSkeleton', joint=3, num_joints=20),
            dict(type='mmcmcd.ResampleArray', length=64)]),
    dict(
        type='mmcmcd.OnSide', sides='inertial',
        transforms=[
            dict(type='mmcmcd.ResampleArray', length=64),
            dict(type='mmcmcd.NormalizeArray',
                 mean=[-0.642, -0.276, -0.079, 5.35, -3.66, -0.53],
                 std=[0.725, 0.519, 0.579, 93.8, 113.6, 114.1])]),
    dict(
        type='mmcmcd.OnSide', sides='depth',
        transforms=[
            dict(type='mmcmcd.ClampArray', low=2., high=4., scale=1e-3,
                 missing=4.),
            dict(type='mmcmcd.NormalizeArray', mean=[3.91], std=[0.31]),
            dict(type='mmcmcd.ResampleArray', length=12, mode='nearest'),
            dict(type='mmcmcd.ResizeClip', size=(30, 40))]),
    dict(type='mmcmcd.PackPairedInputs'),
]
_augment = dict(
    type='mmcmcd.OnSide', sides='inertial',
    transforms=[
        dict(type='mmcmcd.RandomChannelScale', std=0.2),
        dict(type='mmcmcd.RandomJitter', std=0.05)])
train_pipeline = [
    *_load,
    # The recordings start and end together, and have other rates.
    dict(type='mmcmcd.SharedTemporalCrop', fraction=(0.7, 1.0)),
    *_prepare[:-1],
    _augment,
    _prepare[-1],
]
test_pipeline = [*_load, *_prepare]
_data = dict(
    type='mmcmcd.UTDMHAD',
    sides=('skeleton', 'inertial', 'depth'),
    data_root='{{$MMCMCD_REALDATA:data}}/utd_mhad/')
train_dataloader = dict(
    batch_size=64,
    num_workers=0,
    drop_last=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(**_data, subjects=(1, 3, 5), pipeline=train_pipeline))
val_dataloader = dict(
    batch_size=64,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        **_data, subjects=(7, ), pipeline=test_pipeline, test_mode=True))
val_evaluator = [
    dict(type='mmcmcd.CrossModalRetrieval', lesson='inertial',
         prefix='inertial_retrieval'),
    dict(type='mmcmcd.CrossModalRetrieval', lesson='depth',
         prefix='depth_retrieval'),
]
val_cfg = dict(type='ValLoop')
test_dataloader = val_dataloader
test_evaluator = val_evaluator
test_cfg = dict(type='TestLoop')
del _load, _prepare, _augment, _data
