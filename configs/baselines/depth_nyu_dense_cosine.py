# Regression of the teacher's directions, cell by cell.
_base_ = '../cmcd/depth_nyu_dense.py'
_loss = dict(
    _delete_=True, type='mmcmcd.CosineLoss')
model = dict(dense=dict(
    dense_32=dict(loss=_loss), dense_16=dict(loss=_loss)))
del _loss
