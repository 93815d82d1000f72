# Step 3, full fine-tuning of a student of sound. Give it by
#   --cfg-options model.backbone.init_cfg.checkpoint=STUDENT.pth
# or train from scratch with --cfg-options model.backbone.init_cfg=None
_base_ = [
    '../_base_/models/cls_resnet50_audio.py',
    '../_base_/datasets/vggsound_cls.py',
    '../_base_/cls_runtime.py',
    '../_base_/schedules/cls_finetune.py',
]
model = dict(
    data_preprocessor=dict(num_classes=309), head=dict(num_classes=309))
