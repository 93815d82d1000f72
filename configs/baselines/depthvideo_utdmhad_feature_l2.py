# Regression of the teacher's embedding (Gupta et al., CVPR 2016).
_base_ = '../cmcd/depthvideo_utdmhad.py'
model = dict(losses=dict(_delete_=True, feature_l2=dict(
    type='mmcmcd.FeatureL2Loss')))
