# Classification in mmpretrain's scope, counted in iterations.
_base_ = './default_runtime.py'

default_hooks = dict(
    logger=dict(interval=50),
    checkpoint=dict(by_epoch=False, interval=1000))
log_processor = dict(by_epoch=False)
