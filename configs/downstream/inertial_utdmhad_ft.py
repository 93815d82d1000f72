# Step 3, full fine-tuning of an inertial student. Give it by
#   --cfg-options model.backbone.init_cfg.checkpoint=STUDENT.pth
# or train from scratch with --cfg-options model.backbone.init_cfg=None
_base_ = [
    '../_base_/models/cls_series.py',
    '../_base_/datasets/utd_mhad_inertial_cls.py',
    '../_base_/cls_runtime.py',
    '../_base_/schedules/cls_finetune.py',
]
optim_wrapper = dict(optimizer=dict(lr=3e-3))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, begin=0, end=15, by_epoch=False),
    dict(type='CosineAnnealingLR', T_max=135, begin=15, end=150,
         by_epoch=False),
]
train_cfg = dict(max_iters=150, val_interval=150)
default_hooks = dict(checkpoint=dict(interval=150))
auto_scale_lr = dict(base_batch_size=32)
