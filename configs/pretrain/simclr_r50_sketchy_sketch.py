# The control without a teacher: SimCLR on the sketches alone.
_base_ = [
    '../_base_/models/simclr_resnet50.py',
    '../_base_/datasets/sketchy_sketch_views.py',
    '../_base_/schedules/adamw_cosine.py',
    '../_base_/default_runtime.py',
]
model = dict(
    data_preprocessor=dict(mean=[245.], std=[40.], to_rgb=False),
    backbone=dict(in_channels=1))
