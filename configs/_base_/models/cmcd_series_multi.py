# Step 2 with several students: a frozen teacher of 20 joints (60 channels),
# one student of 6 inertial channels and one of depth video.
_lesson = dict(
    teacher='skeleton',
    # As wide as the teacher's embedding, because CMC compares the two.
    projector=dict(
        type='LinearNeck', in_channels=128, out_channels=128, gap_dim=2),
    losses=dict(
        cmcd=dict(
            type='mmcmcd.CMCDLoss',
            cmd=dict(
                form='within',
                teacher_temperature=0.1,
                student_temperature=0.2),
            cmc=dict(temperature=0.07))))
model = dict(
    type='mmcmcd.MultiModalDistiller',
    data_preprocessor=dict(
        type='mmcmcd.PairedDataPreprocessor',
        skeleton=dict(), inertial=dict(), depth=dict()),
    teachers=dict(
        skeleton=dict(
            backbone=dict(
                type='mmcmcd.TemporalConvNet',
                in_channels=60,
                init_cfg=dict(
                    type='Pretrained', checkpoint='TEACHER.pth',
                    prefix='backbone.')),
            norm=dict(type='BN1d', num_features=128, affine=False))),
    students=dict(
        inertial=dict(type='mmcmcd.TemporalConvNet', in_channels=6),
        depth=dict(
            type='mmcmcd.ClipConvNet', in_channels=1,
            channels=(16, 32, 128), strides=((1, 4, 4), 2, 2))),
    lessons=dict(
        inertial=dict(**_lesson, student='inertial'),
        depth=dict(**_lesson, student='depth')))
del _lesson
