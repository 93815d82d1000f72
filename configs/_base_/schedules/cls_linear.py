# Linear evaluation (LE): a head on a frozen backbone. The best rate depends
# on the scale of its features (published ones: 0.05 to 15 for this batch):
# try several on a held-out part of the training set.
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=0.4, momentum=0.9, weight_decay=0.))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, begin=0, end=100, by_epoch=False),
    dict(
        type='CosineAnnealingLR', T_max=4900, begin=100, end=5000,
        by_epoch=False),
]
train_cfg = dict(by_epoch=False, max_iters=5000, val_interval=1000)
auto_scale_lr = dict(base_batch_size=128)
