# Step 1: SimCLR on the source modality with stock mmpretrain parts.
_base_ = [
    '../_base_/models/simclr_resnet50.py',
    '../_base_/datasets/nyu_rgb_views.py',
    '../_base_/schedules/adamw_cosine.py',
    '../_base_/default_runtime.py',
]
