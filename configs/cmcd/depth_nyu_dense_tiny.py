# depth_nyu_tiny.py with the dense terms of depth_nyu_dense.py alone, which was
# tuned: see docs/benchmarks/nyu_depth_tiny.md.
_base_ = ['./depth_nyu_tiny.py']
_dense = dict(loss=dict(type='mmcmcd.CMCLoss', temperature=0.1))
model = dict(
    teacher=dict(out_indices=(2, 3)),
    student=dict(out_indices=(2, 3)),
    losses=None,
    student_projector=None,
    dense=dict(
        dense_32=dict(
            **_dense,
            stage=-1,
            projector=dict(
                type='Conv2d', in_channels=256, out_channels=256,
                kernel_size=1),
            source_norm=dict(type='mmcmcd.Center', num_features=256)),
        dense_16=dict(
            **_dense,
            stage=-2,
            projector=dict(
                type='Conv2d', in_channels=128, out_channels=128,
                kernel_size=1),
            source_norm=dict(type='mmcmcd.Center', num_features=128),
            # Of 48: 1,024 in a batch.
            locations_per_image=16)))
# Whole images are not compared, so that none finds its partner.
val_evaluator = [dict(type='mmcmcd.RegionRetrieval', dense='dense_32')]
test_evaluator = val_evaluator
del _dense
