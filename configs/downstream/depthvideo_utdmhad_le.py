# Step 3, linear evaluation: the student is frozen and stays in eval mode.
_base_ = './depthvideo_utdmhad_ft.py'

model = dict(backbone=dict(frozen_stages=3))
optim_wrapper = dict(
    optimizer=dict(
        _delete_=True, type='SGD', lr=0.4, momentum=0.9, weight_decay=0.))
