# The control of the digits without a teacher: SimCLR on the sounds alone, the
# same number of steps as distillation.
_base_ = './simclr_digits_tiny_image.py'

view_pipeline = [
    dict(type='mmcmcd.AudioSegment', duration=0.8, pad='zero'),
    dict(type='mmcmcd.RandomTimeShift', max_shift=0.2),
    dict(type='mmcmcd.RandomGain', db=6.),
    dict(type='mmcmcd.AddNoise', snr_db=(5., 40.)),
]
train_pipeline = [
    dict(type='mmcmcd.SelectSide', side='target'),
    dict(type='mmcmcd.LoadAudio', sampling_rate=8000),
    dict(type='MultiView', num_views=2, transforms=[view_pipeline]),
    dict(type='PackInputs'),
]
train_dataloader = dict(
    batch_size=64, dataset=dict(images_per_clip=1, pipeline=train_pipeline))
model = dict(
    data_preprocessor=dict(
        _delete_=True,
        type='mmcmcd.AudioDataPreprocessor',
        mel=dict(sampling_rate=8000, n_fft=256, hop_length=80, n_mels=40),
        mean=-54., std=23.,
        spec_augment=dict(freq_mask=8, time_mask=16)))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, begin=0, end=4, by_epoch=True,
         convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', T_max=36, begin=4, end=40, by_epoch=True,
         convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=40)
default_hooks = dict(checkpoint=dict(interval=40))
