# A classifier of photos on the tiny recipe's frozen teacher.
_base_ = './photo_sketchy_r50_le.py'

train_pipeline = [
    dict(type='mmcmcd.LoadImageStrict'),
    dict(type='RandomResizedCrop', scale=64, crop_ratio_range=(0.5, 1.0)),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackInputs'),
]
test_pipeline = [
    dict(type='mmcmcd.LoadImageStrict'),
    dict(type='Resize', scale=(64, 64), interpolation='area'),
    dict(type='PackInputs'),
]
_root = '{{$MMCMCD_REALDATA:data}}/sketchy125/'
_teacher = 'work_dirs/simclr_r18_sketchy_tiny_photo/epoch_50.pth'
train_dataloader = dict(
    batch_size=64,
    num_workers=1,
    dataset=dict(data_root=_root, pipeline=train_pipeline))
val_dataloader = dict(
    num_workers=1, dataset=dict(data_root=_root, pipeline=test_pipeline))
test_dataloader = val_dataloader
model = dict(
    data_preprocessor=dict(num_classes=75),
    backbone=dict(
        depth=18, stem_channels=32, base_channels=32,
        init_cfg=dict(checkpoint=_teacher)),
    head=dict(num_classes=75, in_channels=256))
auto_scale_lr = dict(base_batch_size=64)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, begin=0, end=50, by_epoch=False),
    dict(type='CosineAnnealingLR', T_max=450, begin=50, end=500,
         by_epoch=False),
]
train_cfg = dict(max_iters=500, val_interval=500)
default_hooks = dict(checkpoint=dict(interval=500))
del _root, _teacher
