# Regression of the teacher's map, cell by cell (Gupta et al., CVPR 2016).
_base_ = '../cmcd/depth_nyu_dense_tiny.py'
_loss = dict(
    _delete_=True, type='mmcmcd.FeatureL2Loss')
model = dict(dense=dict(
    dense_32=dict(loss=_loss), dense_16=dict(loss=_loss)))
del _loss
