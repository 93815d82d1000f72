# SimCLR with stock mmpretrain parts around a network for series.
model = dict(
    type='mmcmcd.ArraySimCLR',
    data_preprocessor=dict(type='SelfSupDataPreprocessor'),
    backbone=dict(type='mmcmcd.TemporalConvNet', in_channels=6),
    neck=dict(
        type='NonLinearNeck',
        in_channels=128,
        hid_channels=128,
        out_channels=64,
        num_layers=2,
        with_avg_pool=True,
        norm_cfg=dict(type='BN1d')),
    head=dict(
        type='ContrastiveHead',
        loss=dict(type='CrossEntropyLoss'),
        temperature=0.1))
