# The recipe of depth_nyu.py for a CPU: ResNet-18 on crops of 128x96 from an
# 8-bit copy of the 795 official training frames (25.5 levels per metre).
_base_ = './depth_nyu.py'

_load = [
    dict(
        type='mmcmcd.OnSide', sides='source',
        transforms=[dict(type='mmcmcd.LoadImageStrict')]),
    dict(
        type='mmcmcd.OnSide', sides='target',
        transforms=[
            dict(type='mmcmcd.LoadDepthFromFile', depth_scale=25.5,
                 expected_dtype='uint8')]),
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
    batch_size=64, num_workers=1,
    dataset=dict(
        data_root=_root, ann_file='train.txt', pipeline=train_pipeline))
val_dataloader = dict(
    num_workers=1,
    dataset=dict(data_root=_root, ann_file='val.txt', pipeline=test_pipeline))
test_dataloader = val_dataloader
_teacher = 'work_dirs/simclr_r18_nyu_tiny_rgb/epoch_50.pth'
model = dict(
    teacher=dict(depth=18, init_cfg=dict(checkpoint=_teacher)),
    student=dict(depth=18),
    student_projector=dict(
        in_channels=512, hid_channels=512, out_channels=512))
optim_wrapper = dict(type='mmcmcd.CPUAmpOptimWrapper')
