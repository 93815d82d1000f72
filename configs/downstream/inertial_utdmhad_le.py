# Step 3, linear evaluation: the student is frozen and stays in eval mode.
_base_ = [
    '../_base_/models/cls_series.py',
    '../_base_/datasets/utd_mhad_inertial_cls.py',
    '../_base_/cls_runtime.py',
    '../_base_/schedules/cls_linear.py',
]
model = dict(backbone=dict(frozen_stages=3))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, begin=0, end=30, by_epoch=False),
    dict(type='CosineAnnealingLR', T_max=270, begin=30, end=300,
         by_epoch=False),
]
train_cfg = dict(max_iters=300, val_interval=300)
default_hooks = dict(checkpoint=dict(interval=300))
auto_scale_lr = dict(base_batch_size=32)
