# The recipe of sketch_sketchy.py for a CPU: half-width ResNet-18 at 64x64.
_base_ = [
    '../_base_/models/cmcd_resnet50.py',
    '../_base_/datasets/sketchy_pairs_tiny.py',
    '../_base_/schedules/adamw_cosine.py',
    '../_base_/distill_runtime.py',
]
_teacher = 'work_dirs/simclr_r18_sketchy_tiny_photo/epoch_50.pth'
_net = dict(depth=18, stem_channels=32, base_channels=32)
model = dict(
    data_preprocessor=dict(target=dict(mean=[245.], std=[40.])),
    teacher=dict(**_net, init_cfg=dict(checkpoint=_teacher)),
    source_norm=dict(num_features=256),
    student=_net,
    student_projector=dict(
        in_channels=256, hid_channels=256, out_channels=256))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, begin=0, end=5, by_epoch=True,
         convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', T_max=25, begin=5, end=30, by_epoch=True,
         convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=30)
default_hooks = dict(
    knn=dict(
        type='mmcmcd.KNNHook', bank_dataloader={{_base_.bank_dataloader}}))
del _teacher, _net
