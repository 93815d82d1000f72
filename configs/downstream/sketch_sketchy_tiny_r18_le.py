# Linear evaluation of the tiny recipe: the student stays frozen.
_base_ = './sketch_sketchy_tiny_r18_ft.py'

model = dict(backbone=dict(frozen_stages=4, norm_eval=True))
optim_wrapper = dict(
    optimizer=dict(
        _delete_=True, type='SGD', lr=0.4, momentum=0.9, weight_decay=0.))
