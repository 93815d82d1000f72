# Step 3: few labels on the target with stock mmseg parts. Give the student by
#   --cfg-options model.backbone.init_cfg.checkpoint=STUDENT.pth
# or train from scratch with --cfg-options model.backbone.init_cfg=None
_base_ = [
    '../_base_/models/seg_fcn_resnet50.py',
    '../_base_/datasets/nyu_depth_seg.py',
    '../_base_/schedules/seg_adamw_poly.py',
    '../_base_/seg_runtime.py',
]
