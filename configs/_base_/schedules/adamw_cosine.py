# AdamW, 10 epochs of linear warm-up, cosine decay. Override `max_epochs` of
# `train_cfg` together with `T_max` and `end` of the cosine.
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05))
param_scheduler = [
    dict(
        type='LinearLR', start_factor=0.01, begin=0, end=10, by_epoch=True,
        convert_to_iter_based=True),
    dict(
        type='CosineAnnealingLR', T_max=190, begin=10, end=200,
        by_epoch=True, convert_to_iter_based=True),
]
train_cfg = dict(
    type='mmcmcd.ResumableEpochLoop', max_epochs=200, val_interval=10)
# For --auto-scale-lr: the batch that the learning rate was set for.
auto_scale_lr = dict(base_batch_size=128)
