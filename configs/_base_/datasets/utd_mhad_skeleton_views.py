# Two views of the skeletons of UTD-MHAD, subjects 1, 3, 5.
view_pipeline = [
    dict(type='mmcmcd.RandomTimeCrop', fraction=(0.5, 1.0)),
    dict(type='mmcmcd.ResampleArray', length=64),
    dict(type='mmcmcd.RandomRotation3D', max_angle=30.),
    dict(type='mmcmcd.RandomJitter', std=0.01),
]
train_pipeline = [
    dict(type='mmcmcd.SelectSide', side='skeleton'),
    dict(type='mmcmcd.LoadArray', axes='TVC'),
    dict(type='mmcmcd.CenterSkeleton', joint=3, num_joints=20),
    dict(type='MultiView', num_views=2, transforms=[view_pipeline]),
    dict(type='PackInputs'),
]
train_dataloader = dict(
    batch_size=64,
    num_workers=0,
    drop_last=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='mmcmcd.UTDMHAD',
        sides=('skeleton', ),
        subjects=(1, 3, 5),
        data_root='{{$MMCMCD_REALDATA:data}}/utd_mhad/',
        pipeline=train_pipeline))
