# Demo, step 3: a stock mmseg model learns from few labels on depth alone.
_base_ = '../downstream/depth_nyu_tiny_fcn_r18.py'

_load = [dict(type='mmcmcd.LoadDepthFromFile', depth_scale=1000.)]
_encode = [
    dict(type='mmcmcd.NormalizeDepth', max_depth=10.),
    dict(type='PackSegInputs'),
]
_data = dict(
    data_root='data/demo_rooms/',
    data_prefix=dict(img_path='depth', seg_map_path='label40'))
train_dataloader = dict(
    num_workers=1,
    dataset=dict(
        **_data,
        ann_file='splits/few_20_0.txt',
        pipeline=[
            *_load,
            dict(type='LoadAnnotations'),
            dict(type='RandomCrop', crop_size=(96, 128)),
            dict(type='RandomFlip', prob=0.5),
            *_encode,
        ]))
val_dataloader = dict(
    num_workers=1,
    dataset=dict(
        **_data,
        ann_file='splits/val.txt',
        pipeline=[*_load, dict(type='LoadAnnotations'), *_encode]))
test_dataloader = val_dataloader
model = dict(
    backbone=dict(stem_channels=32, base_channels=32),
    data_preprocessor=dict(size=(96, 128)),
    decode_head=dict(in_channels=[64, 128, 256], channels=64))
optim_wrapper = dict(type='OptimWrapper')
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, begin=0, end=20, by_epoch=False),
    dict(type='PolyLR', power=0.9, begin=20, end=200, by_epoch=False),
]
train_cfg = dict(max_iters=200, val_interval=200)
default_hooks = dict(checkpoint=dict(interval=200))
