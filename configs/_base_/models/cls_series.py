# A stock mmpretrain classifier of six-channel series; the data set normalises
# them.
model = dict(
    type='ImageClassifier',
    data_preprocessor=dict(type='ClsDataPreprocessor', num_classes=27),
    backbone=dict(
        type='mmcmcd.TemporalConvNet',
        in_channels=6,
        init_cfg=dict(
            type='Pretrained', checkpoint='STUDENT.pth',
            prefix='backbone.')),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead',
        num_classes=27,
        in_channels=128,
        loss=dict(type='CrossEntropyLoss', loss_weight=1.0),
        topk=(1, 5)))
