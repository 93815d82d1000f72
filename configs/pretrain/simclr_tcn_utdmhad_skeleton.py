# Step 1 on skeletons: SimCLR, no labels.
_base_ = [
    '../_base_/models/simclr_series.py',
    '../_base_/datasets/utd_mhad_skeleton_views.py',
    '../_base_/schedules/adamw_cosine.py',
    '../_base_/default_runtime.py',
]
model = dict(backbone=dict(in_channels=60))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, begin=0, end=5, by_epoch=True,
         convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', T_max=95, begin=5, end=100, by_epoch=True,
         convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=100)
default_hooks = dict(checkpoint=dict(interval=100))
auto_scale_lr = dict(base_batch_size=64)
