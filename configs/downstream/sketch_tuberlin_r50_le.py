# Step 3, linear evaluation: the student is frozen and stays in eval mode.
# TU-Berlin has no photos: its student comes from the pairs of Sketchy.
_base_ = [
    '../_base_/models/cls_resnet50_sketch.py',
    '../_base_/datasets/tuberlin_cls.py',
    '../_base_/cls_runtime.py',
    '../_base_/schedules/cls_linear.py',
]
model = dict(
    data_preprocessor=dict(num_classes=250),
    backbone=dict(frozen_stages=4, norm_eval=True),
    head=dict(num_classes=250))
default_hooks = dict(
    knn=dict(
        type='mmcmcd.KNNHook', bank_dataloader={{_base_.bank_dataloader}}))
