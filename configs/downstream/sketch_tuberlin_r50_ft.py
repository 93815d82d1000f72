# Step 3, full fine-tuning of a sketch student. Give it by
#   --cfg-options model.backbone.init_cfg.checkpoint=STUDENT.pth
# or train from scratch with --cfg-options model.backbone.init_cfg=None
# TU-Berlin has no photos: its student comes from the pairs of Sketchy.
_base_ = [
    '../_base_/models/cls_resnet50_sketch.py',
    '../_base_/datasets/tuberlin_cls.py',
    '../_base_/cls_runtime.py',
    '../_base_/schedules/cls_finetune.py',
]
model = dict(
    data_preprocessor=dict(num_classes=250), head=dict(num_classes=250))
default_hooks = dict(
    knn=dict(
        type='mmcmcd.KNNHook', bank_dataloader={{_base_.bank_dataloader}}))
