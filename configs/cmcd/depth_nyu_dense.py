# depth_nyu.py and dense terms: cells of the last two maps are contrasted, too.
_base_ = ['./depth_nyu.py']
_dense = dict(loss=dict(type='mmcmcd.CMCLoss', temperature=0.1))
model = dict(
    teacher=dict(out_indices=(2, 3)),
    student=dict(out_indices=(2, 3)),
    dense=dict(
        # Named after the stride: cells of 32 x 32 pixels.
        dense_32=dict(
            **_dense,
            stage=-1,
            projector=dict(
                type='Conv2d', in_channels=2048, out_channels=2048,
                kernel_size=1),
            source_norm=dict(type='mmcmcd.Center', num_features=2048)),
        dense_16=dict(
            **_dense,
            stage=-2,
            projector=dict(
                type='Conv2d', in_channels=1024, out_channels=1024,
                kernel_size=1),
            source_norm=dict(type='mmcmcd.Center', num_features=1024),
            # Of 300 in 240x320: 12,800 in a batch.
            locations_per_image=100)))
val_evaluator = [
    dict(type='mmcmcd.CrossModalRetrieval'),
    dict(type='mmcmcd.RegionRetrieval', dense='dense_32'),
]
test_evaluator = val_evaluator
del _dense
