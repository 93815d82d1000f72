# Step 2 on series: a frozen teacher of 20 joints (60 channels), a student of
# 6 inertial channels, CMD + CMC. The data sets normalise by channel.
model = dict(
    type='mmcmcd.CrossModalDistiller',
    data_preprocessor=dict(
        type='mmcmcd.PairedDataPreprocessor', source=dict(), target=dict()),
    teacher=dict(
        type='mmcmcd.TemporalConvNet',
        in_channels=60,
        init_cfg=dict(
            type='Pretrained', checkpoint='TEACHER.pth',
            prefix='backbone.')),
    # Pooled features after ReLU: without their mean, cosines tell apart.
    source_norm=dict(type='BN1d', num_features=128, affine=False),
    student=dict(type='mmcmcd.TemporalConvNet', in_channels=6),
    # As wide as the teacher's embedding, because CMC compares the two.
    student_projector=dict(
        type='LinearNeck', in_channels=128, out_channels=128, gap_dim=2),
    losses=dict(
        cmcd=dict(
            type='mmcmcd.CMCDLoss',
            cmd=dict(
                form='within',
                teacher_temperature=0.1,
                student_temperature=0.2),
            cmc=dict(temperature=0.07))))
