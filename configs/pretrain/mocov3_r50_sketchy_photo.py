# Step 1: MoCo v3 on the photos of Sketchy with stock mmpretrain parts.
_base_ = [
    '../_base_/models/mocov3_resnet50.py',
    '../_base_/datasets/sketchy_photo_views.py',
    '../_base_/schedules/adamw_cosine.py',
    '../_base_/default_runtime.py',
]
