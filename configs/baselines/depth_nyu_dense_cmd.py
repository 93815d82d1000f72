# CMD within each modality, cell by cell.
_base_ = '../cmcd/depth_nyu_dense.py'
_loss = dict(
    _delete_=True, type='mmcmcd.CMDLoss', form='within',
    teacher_temperature=0.1, student_temperature=0.2)
model = dict(dense=dict(
    dense_32=dict(loss=_loss), dense_16=dict(loss=_loss)))
del _loss
