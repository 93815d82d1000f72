# depth_nyu.py and a dense term: cells of the last maps are contrasted, too.
_base_ = ['./depth_nyu.py']
model = dict(
    dense=dict(
        dense_cmc=dict(
            loss=dict(type='mmcmcd.CMCLoss', temperature=0.1),
            projector=dict(
                type='Conv2d',
                in_channels=2048,
                out_channels=2048,
                kernel_size=1),
            source_norm=dict(type='mmcmcd.Center', num_features=2048))))
