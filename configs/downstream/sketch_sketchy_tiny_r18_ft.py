# Step 3 of the tiny recipe: half-width ResNet-18 at 64x64, all labels unless
# train_dataloader.dataset.labels_per_class says otherwise.
_base_ = './sketch_sketchy_r50_ft.py'

train_pipeline = [
    dict(type='mmcmcd.LoadSketch'),
    dict(type='RandomResizedCrop', scale=64, crop_ratio_range=(0.5, 1.0),
         interpolation='area'),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackInputs'),
]
test_pipeline = [
    dict(type='mmcmcd.LoadSketch'),
    dict(type='Resize', scale=(64, 64), interpolation='area'),
    dict(type='PackInputs'),
]
_root = '{{$MMCMCD_REALDATA:data}}/sketchy125/'
_test = dict(data_root=_root, pipeline=test_pipeline)
train_dataloader = dict(
    batch_size=32,
    num_workers=1,
    dataset=dict(data_root=_root, pipeline=train_pipeline))
val_dataloader = dict(num_workers=1, dataset=_test)
test_dataloader = val_dataloader
default_hooks = dict(
    knn=dict(bank_dataloader=dict(num_workers=1, dataset=_test)),
    checkpoint=dict(interval=400))
model = dict(
    data_preprocessor=dict(num_classes=75),
    backbone=dict(depth=18, stem_channels=32, base_channels=32),
    head=dict(num_classes=75, in_channels=256))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, begin=0, end=50, by_epoch=False),
    dict(type='CosineAnnealingLR', T_max=350, begin=50, end=400,
         by_epoch=False),
]
train_cfg = dict(max_iters=400, val_interval=400)
auto_scale_lr = dict(base_batch_size=32)
del _root, _test
