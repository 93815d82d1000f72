# Step 3 of the tiny recipe: half a ResNet-18, frames of 128x96, 50 labels
# unless train_dataloader.dataset.ann_file says otherwise.
_base_ = './depth_nyu_fcn_r50.py'

_load = dict(
    type='mmcmcd.LoadDepthFromFile', depth_scale=25.5,
    expected_dtype='uint8', min_valid_fraction=0.01)
_encode = [
    dict(type='mmcmcd.NormalizeDepth', mode='range', max_depth=10.),
    dict(type='PackSegInputs'),
]
train_pipeline = [
    _load,
    dict(type='LoadAnnotations'),
    dict(
        type='RandomResize',
        scale=(128, 96),
        ratio_range=(1.0, 1.5),
        keep_ratio=True,
        interpolation='nearest'),
    dict(type='RandomCrop', crop_size=(96, 128)),
    dict(type='RandomFlip', prob=0.5),
    *_encode,
]
test_pipeline = [
    _load,
    dict(type='Resize', scale=(128, 96), interpolation='nearest'),
    dict(type='LoadAnnotations'),
    *_encode,
]
_data = dict(data_root='{{$MMCMCD_REALDATA:data}}/nyuv2/',
             data_prefix=dict(img_path='depth', seg_map_path='label'))
train_dataloader = dict(
    num_workers=1,
    dataset=dict(**_data, ann_file='few_50.txt', pipeline=train_pipeline))
val_dataloader = dict(
    num_workers=1,
    dataset=dict(**_data, ann_file='val.txt', pipeline=test_pipeline))
test_dataloader = val_dataloader
model = dict(
    data_preprocessor=dict(size=(96, 128)),
    # The student's own strides; the head concatenates three stages instead.
    backbone=dict(
        depth=18, base_channels=32, stem_channels=32,
        strides=(1, 2, 2, 2), dilations=(1, 1, 1, 1)),
    decode_head=dict(
        in_channels=[64, 128, 256],
        in_index=[1, 2, 3],
        input_transform='resize_concat',
        channels=128,
        num_convs=1,
        concat_input=False),
    auxiliary_head=None)
optim_wrapper = dict(
    type='mmcmcd.CPUAmpOptimWrapper', optimizer=dict(lr=3e-3, fused=True))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, begin=0, end=50, by_epoch=False),
    dict(type='PolyLR', power=0.9, begin=50, end=500, by_epoch=False),
]
train_cfg = dict(max_iters=500, val_interval=500)
default_hooks = dict(checkpoint=dict(interval=500))
del _data, _encode, _load
