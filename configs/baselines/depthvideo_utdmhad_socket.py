# SOCKET (Ahmed et al., ECCV 2022), its terms without labels.
_base_ = '../cmcd/depthvideo_utdmhad.py'
model = dict(losses=dict(_delete_=True, socket=dict(
    type='mmcmcd.SOCKETLoss')))
