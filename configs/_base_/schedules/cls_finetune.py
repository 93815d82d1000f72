# Full fine-tuning (FT). In iterations, so that few labels get as many updates
# as many.
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=5e-4, weight_decay=0.05))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, begin=0, end=500, by_epoch=False),
    dict(
        type='CosineAnnealingLR', T_max=9500, begin=500, end=10000,
        by_epoch=False),
]
train_cfg = dict(by_epoch=False, max_iters=10000, val_interval=2000)
auto_scale_lr = dict(base_batch_size=128)
