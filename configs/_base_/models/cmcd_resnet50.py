# Step 2: a frozen RGB teacher, a one-channel student, CMD + CMC. Mean and std
# of the target are those of depth over ten metres.
_teacher = ('https://mmassets.onedl.ai/mmselfsup/1.x/mocov3/'
            'mocov3_resnet50_8xb512-amp-coslr-800e_in1k/'
            'mocov3_resnet50_8xb512-amp-coslr-800e_in1k_20220927-e043f51a.pth')
model = dict(
    type='mmcmcd.CrossModalDistiller',
    data_preprocessor=dict(
        type='mmcmcd.PairedDataPreprocessor',
        source=dict(
            mean=[123.675, 116.28, 103.53],
            std=[58.395, 57.12, 57.375],
            to_rgb=True),
        target=dict(mean=[0.28], std=[0.15])),
    teacher=dict(
        type='ResNet',
        depth=50,
        init_cfg=dict(
            type='Pretrained', checkpoint=_teacher, prefix='backbone.')),
    # Pooled features after ReLU: without their mean, cosines tell apart.
    source_norm=dict(type='BN1d', num_features=2048, affine=False),
    student=dict(type='ResNet', depth=50, in_channels=1),
    # As wide as the teacher's embedding, because CMC compares the two.
    student_projector=dict(
        type='NonLinearNeck',
        in_channels=2048,
        hid_channels=2048,
        out_channels=2048,
        num_layers=2,
        with_avg_pool=True,
        norm_cfg=dict(type='BN1d')),
    losses=dict(
        cmcd=dict(
            type='mmcmcd.CMCDLoss',
            cmd=dict(
                form='within',
                teacher_temperature=0.1,
                student_temperature=0.2),
            cmc=dict(temperature=0.07))))
# Not inherited: a user's config may use these names.
del _teacher
