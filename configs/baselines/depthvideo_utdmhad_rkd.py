# RKD (Park et al., CVPR 2019), the weights of RepDistiller.
_base_ = '../cmcd/depthvideo_utdmhad.py'
model = dict(losses=dict(_delete_=True, rkd=dict(
    type='mmcmcd.RKDLoss')))
