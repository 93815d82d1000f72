# UTD-MHAD: skeleton (source) and depth video (target) of the same clip.
# Subjects and loaders are those of the inertial pairs.
_base_ = './utd_mhad_inertial_pairs.py'

_load = [
    dict(
        type='mmcmcd.OnSide', sides='source',
        transforms=[dict(type='mmcmcd.LoadArray', axes='TVC')]),
    dict(
        type='mmcmcd.OnSide', sides='target',
        transforms=[
            dict(type='mmcmcd.LoadArray', axes='THW'),
            # Millimetres; people stand at 2 to 4 m, no return is far.
            dict(type='mmcmcd.ClampArray', low=2., high=4., scale=1e-3,
                 missing=4.),
            dict(type='mmcmcd.NormalizeArray', mean=[3.91], std=[0.31])]),
]
_prepare = [
    dict(
        type='mmcmcd.OnSide', sides='source',
        transforms=[
            dict(type='mmcmcd.CenterSkeleton', joint=3, num_joints=20),
            dict(type='mmcmcd.ResampleArray', length=64)]),
    dict(
        type='mmcmcd.OnSide', sides='target',
        transforms=[
            dict(type='mmcmcd.ResampleArray', length=12, mode='nearest')]),
]
_pack = dict(type='mmcmcd.PackPairedInputs')
train_pipeline = [
    *_load,
    # The recordings start and end together, and have other rates.
    dict(type='mmcmcd.SharedTemporalCrop', fraction=(0.7, 1.0)),
    *_prepare,
    dict(
        type='mmcmcd.OnSide', sides='target',
        transforms=[
            dict(type='mmcmcd.RandomResizedCropClip', size=(30, 40),
                 area_ratio=(0.6, 1.0))]),
    _pack,
]
test_pipeline = [
    *_load,
    *_prepare,
    dict(
        type='mmcmcd.OnSide', sides='target',
        transforms=[dict(type='mmcmcd.ResizeClip', size=(30, 40))]),
    _pack,
]
_depth = dict(sides=dict(target='depth'))
train_dataloader = dict(dataset=dict(**_depth, pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(**_depth, pipeline=test_pipeline))
test_dataloader = val_dataloader
del _load, _prepare, _pack, _depth
