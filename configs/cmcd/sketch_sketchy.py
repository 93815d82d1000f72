# A sketch student learns from a photo teacher on The Sketchy Database.
_base_ = [
    '../_base_/models/cmcd_resnet50.py',
    '../_base_/datasets/sketchy_pairs.py',
    '../_base_/schedules/adamw_cosine.py',
    '../_base_/distill_runtime.py',
]
# Grey levels of sketches: nearly all paper.
model = dict(
    data_preprocessor=dict(target=dict(mean=[245.], std=[40.])))
default_hooks = dict(
    knn=dict(
        type='mmcmcd.KNNHook', bank_dataloader={{_base_.bank_dataloader}}))
