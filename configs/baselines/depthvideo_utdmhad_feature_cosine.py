# Regression of the teacher's direction: pairs alone, no negatives.
_base_ = '../cmcd/depthvideo_utdmhad.py'
model = dict(losses=dict(_delete_=True, feature_cosine=dict(
    type='mmcmcd.CosineLoss')))
