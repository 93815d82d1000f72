# depth_nyu_tiny.py and the dense term of depth_nyu_dense.py.
_base_ = ['./depth_nyu_tiny.py']
model = dict(
    dense=dict(
        dense_cmc=dict(
            loss=dict(type='mmcmcd.CMCLoss', temperature=0.1),
            projector=dict(
                type='Conv2d', in_channels=512, out_channels=512,
                kernel_size=1),
            source_norm=dict(type='mmcmcd.Center', num_features=512))))
