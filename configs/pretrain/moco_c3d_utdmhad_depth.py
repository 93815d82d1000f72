# Another control without a teacher: MoCo v2 with a queue, depth videos.
_base_ = './simclr_c3d_utdmhad_depth.py'

model = dict(
    type='MoCo',
    # A multiple of the batch of all processes; published: 65,536.
    queue_len=256,
    feat_dim=128,
    momentum=0.001,
    neck=dict(
        type='MoCoV2Neck', _delete_=True, in_channels=128, hid_channels=128,
        out_channels=128, with_avg_pool=True),
    head=dict(temperature=0.2))
