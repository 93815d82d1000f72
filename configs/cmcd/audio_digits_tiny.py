# Image teacher, student of spoken digits: the path of audio_vggsound.py for a
# CPU. The pairs are drawn by class: no evidence for label-free pairs.
_base_ = [
    '../_base_/models/cmcd_resnet50.py',
    '../_base_/datasets/digits_av_pairs.py',
    '../_base_/schedules/adamw_cosine.py',
    '../_base_/distill_runtime.py',
]
_teacher = 'work_dirs/simclr_digits_tiny_image/epoch_10.pth'
_net = dict(depth=18, in_channels=1, stem_channels=16, base_channels=16)
model = dict(
    data_preprocessor=dict(
        source=dict(mean=[33.], std=[79.], to_rgb=False),
        target=dict(
            _delete_=True,
            type='mmcmcd.AudioDataPreprocessor',
            mel=dict(
                sampling_rate=8000, n_fft=256, hop_length=80, n_mels=40),
            mean=-54., std=23.)),
    teacher=dict(**_net, init_cfg=dict(checkpoint=_teacher)),
    source_norm=dict(num_features=128),
    student=_net,
    student_projector=dict(
        in_channels=128, hid_channels=128, out_channels=128))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, begin=0, end=1, by_epoch=True,
         convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', T_max=7, begin=1, end=8, by_epoch=True,
         convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=8, val_interval=8)
default_hooks = dict(
    knn=dict(
        type='mmcmcd.KNNHook', bank_dataloader={{_base_.bank_dataloader}}))
auto_scale_lr = dict(base_batch_size=64)
del _teacher, _net
