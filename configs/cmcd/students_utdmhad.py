# One skeleton teacher, two students in one run: inertial and depth video.
_base_ = [
    '../_base_/models/cmcd_series_multi.py',
    '../_base_/datasets/utd_mhad_triples.py',
    '../_base_/schedules/adamw_cosine.py',
    '../_base_/distill_runtime.py',
]
_teacher = 'work_dirs/simclr_tcn_utdmhad_skeleton/epoch_100.pth'
model = dict(
    teachers=dict(
        skeleton=dict(backbone=dict(init_cfg=dict(checkpoint=_teacher)))))
optim_wrapper = dict(optimizer=dict(lr=3e-3))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, begin=0, end=5, by_epoch=True,
         convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', T_max=55, begin=5, end=60, by_epoch=True,
         convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=60, val_interval=20)
auto_scale_lr = dict(base_batch_size=64)
del _teacher
