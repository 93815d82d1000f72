# depth_nyu_dense.py with DINOv2 (ViT-S/14 of mmpretrain's zoo) as the teacher:
# its patch tokens are the locations.
_base_ = ['./depth_nyu_dense.py']
_teacher = ('https://mmassets.onedl.ai/mmpretrain/v1.0/dinov2/'
            'vit-small-p14_dinov2-pre_3rdparty_20230426-5641ca5a.pth')
model = dict(
    teacher=dict(
        _delete_=True,
        type='VisionTransformer',
        arch='dinov2-small',
        img_size=518,
        patch_size=14,
        layer_scale_init_value=1e-5,
        out_type='featmap',
        init_cfg=dict(
            type='Pretrained', checkpoint=_teacher, prefix='backbone.')),
    source_norm=dict(num_features=384),
    student_projector=dict(out_channels=384),
    dense=dict(
        dense_32=dict(
            projector=dict(out_channels=384),
            source_norm=dict(num_features=384),
            grid='student'),
        dense_16=dict(
            teacher_stage=-1,
            projector=dict(out_channels=384),
            source_norm=dict(num_features=384),
            grid='student')))
# 15 x 20 whole patches of the view that the student sees in 240x320: a ViT
# would pad what is left of another, and its map would show more than the view.
_patches = dict(
    type='mmcmcd.OnSide',
    sides='source',
    transforms=[dict(type='Resize', scale=(280, 210), interpolation='area')])
_train, _test = _base_.train_pipeline, _base_.test_pipeline
train_dataloader = dict(
    dataset=dict(pipeline=[*_train[:-1], _patches, _train[-1]]))
val_dataloader = dict(
    dataset=dict(pipeline=[*_test[:-1], _patches, _test[-1]]))
test_dataloader = val_dataloader
del _teacher, _patches, _train, _test
