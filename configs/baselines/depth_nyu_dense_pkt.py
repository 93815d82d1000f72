# PKT, cell by cell (Passalis and Tefas, ECCV 2018).
_base_ = '../cmcd/depth_nyu_dense.py'
_loss = dict(
    _delete_=True, type='mmcmcd.PKTLoss', loss_weight=30000.)
model = dict(dense=dict(
    dense_32=dict(loss=_loss), dense_16=dict(loss=_loss)))
del _loss
