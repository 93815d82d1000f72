# Step 3, linear evaluation: the student is frozen and stays in eval mode.
_base_ = [
    '../_base_/models/cls_resnet50_audio.py',
    '../_base_/datasets/vggsound_cls.py',
    '../_base_/cls_runtime.py',
    '../_base_/schedules/cls_linear.py',
]
model = dict(
    data_preprocessor=dict(num_classes=309),
    backbone=dict(frozen_stages=4, norm_eval=True),
    head=dict(num_classes=309))
