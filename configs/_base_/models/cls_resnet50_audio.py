# A stock mmpretrain classifier on sound: its preprocessor computes log-mel
# spectrograms on the device. num_classes belongs to the data set.
model = dict(
    type='ImageClassifier',
    data_preprocessor=dict(
        type='mmcmcd.AudioDataPreprocessor',
        mel=dict(
            sampling_rate=16000, n_fft=1024, hop_length=320, n_mels=128),
        spec_augment=dict(
            freq_mask=16, time_mask=32, num_freq=2, num_time=2)),
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
