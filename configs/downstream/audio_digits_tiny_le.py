# Linear evaluation on spoken digits: the student stays frozen.
_base_ = './audio_digits_tiny_ft.py'

model = dict(
    data_preprocessor=dict(spec_augment=None),
    backbone=dict(frozen_stages=4, norm_eval=True))
optim_wrapper = dict(
    optimizer=dict(
        _delete_=True, type='SGD', lr=0.4, momentum=0.9, weight_decay=0.))
