# Labelled sketches of TU-Berlin, loaded as those of Sketchy; fold 0 of 3 is
# for testing.
_base_ = './sketchy_cls.py'

_data = dict(type='mmcmcd.TUBerlin', data_root='data/tuberlin/')
train_dataloader = dict(dataset=_data)
val_dataloader = dict(dataset=_data)
test_dataloader = val_dataloader
# See sketchy_cls.py: default_hooks.knn.bank_dataloader is what counts.
bank_dataloader = dict(dataset=_data)
del _data
