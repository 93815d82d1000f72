# The main job: a depth student learns from an RGB teacher on NYU-Depth V2.
_base_ = [
    '../_base_/models/cmcd_resnet50.py',
    '../_base_/datasets/nyu_rgbd_pairs.py',
    '../_base_/schedules/adamw_cosine.py',
    '../_base_/distill_runtime.py',
]
