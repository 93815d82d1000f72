# A stock mmpretrain classifier on one-channel sketches. num_classes belongs
# to the data set.
model = dict(
    type='ImageClassifier',
    data_preprocessor=dict(
        type='ClsDataPreprocessor', mean=[245.], std=[40.], to_rgb=False),
    backbone=dict(
        type='ResNet',
        depth=50,
        in_channels=1,
        init_cfg=dict(
            type='Pretrained', checkpoint='STUDENT.pth',
            prefix='backbone.')),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead',
        in_channels=2048,
        loss=dict(type='CrossEntropyLoss', loss_weight=1.0),
        topk=(1, 5)))
