# Demo, step 1: the teacher learns from RGB alone.
_base_ = '../pretrain/simclr_r18_nyu_tiny_rgb.py'

_root = 'data/demo_rooms/'
train_dataloader = dict(
    batch_size=64,
    num_workers=1,
    dataset=dict(data_root=_root, ann_file='splits/train.txt'))
model = dict(
    backbone=dict(stem_channels=32, base_channels=32),
    neck=dict(in_channels=256, hid_channels=256))
optim_wrapper = dict(type='OptimWrapper')
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, begin=0, end=3, by_epoch=True,
         convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', T_max=27, begin=3, end=30, by_epoch=True,
         convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=30)
default_hooks = dict(checkpoint=dict(interval=30))
