# The control without a teacher: MoCo v3 on the sketches alone.
_base_ = [
    '../_base_/models/mocov3_resnet50.py',
    '../_base_/datasets/sketchy_sketch_views.py',
    '../_base_/schedules/adamw_cosine.py',
    '../_base_/default_runtime.py',
]
model = dict(
    data_preprocessor=dict(mean=[245.], std=[40.], to_rgb=False),
    backbone=dict(in_channels=1))
