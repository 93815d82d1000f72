# Demo, step 2: the main recipe with a small network, small frames and our
# own data. Everything else is inherited.
_base_ = '../cmcd/depth_nyu.py'

_crop = dict(
    type='RandomResizedCrop', scale=(96, 128), crop_ratio_range=(0.3, 1.0))
_flip = dict(type='RandomFlip', prob=0.5)
_load_rgb = dict(
    type='mmcmcd.OnSide', sides='source',
    transforms=[dict(type='mmcmcd.LoadImageStrict')])
_load_depth = dict(
    type='mmcmcd.OnSide', sides='target',
    transforms=[dict(type='mmcmcd.LoadDepthFromFile', depth_scale=1000.)])
_jitter = dict(
    type='mmcmcd.OnSide', sides='source',
    transforms=[
        dict(type='ColorJitter', brightness=.4, contrast=.4, saturation=.4)])
_normalize = dict(
    type='mmcmcd.OnSide', sides='target',
    transforms=[dict(type='mmcmcd.NormalizeDepth', max_depth=10.)])
_pack = dict(type='mmcmcd.PackPairedInputs')

_data = dict(data_root='data/demo_rooms/')
train_dataloader = dict(
    batch_size=64,
    num_workers=1,
    dataset=dict(
        **_data,
        pipeline=[
            _load_rgb, _load_depth,
            dict(type='mmcmcd.SharedGeometry', transforms=[_crop, _flip]),
            _jitter, _normalize, _pack]))
val_dataloader = dict(
    num_workers=1,
    dataset=dict(
        **_data,
        ann_file='splits/val.txt',
        pipeline=[_load_rgb, _load_depth, _normalize, _pack]))
test_dataloader = val_dataloader
model = dict(
    teacher=dict(
        depth=18, stem_channels=32, base_channels=32,
        init_cfg=dict(checkpoint='work_dirs/demo/teacher/epoch_30.pth')),
    source_norm=dict(num_features=256),
    student=dict(depth=18, stem_channels=32, base_channels=32),
    student_projector=dict(
        in_channels=256, hid_channels=256, out_channels=256))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, begin=0, end=3, by_epoch=True,
         convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', T_max=27, begin=3, end=30, by_epoch=True,
         convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=30, val_interval=10)
default_hooks = dict(checkpoint=dict(interval=30))
