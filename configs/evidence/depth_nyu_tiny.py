# Depth students of the tiny NYU recipe: whole images and locations.
title = 'Evidence: depth students of NYU-Depth V2, tiny recipe'
notes = (
    'NYU-Depth V2, 636 unlabelled pairs of `train`, labels out of `train`, '
    'judged on the 159 frames of `val`, which are of other scenes. Half a '
    'ResNet-18, 128x96 pixels, one channel of depth. One self-supervised '
    'teacher, which all seeds share, so that its variance is not in the '
    'intervals. mIoU over 40 classes in percent, 500 steps of fine-tuning. '
    'Settings were chosen on `val`, too: all figures are optimistic by that, '
    'those of all methods alike.')
metric = 'mIoU'
seeds = [0, 1, 2, 3, 4]
teachers = dict(simclr=dict(
    config='../pretrain/simclr_r18_nyu_tiny_rgb.py', shared_seed=0))
downstream = '../downstream/depth_nyu_tiny_fcn_r18.py'
budgets = {
    name: {'train_dataloader.dataset.ann_file': f'{file}.txt'}
    for name, file in (('20', 'few_20'), ('50', 'few_50'),
                       ('100', 'few_100'), ('all', 'train'))
}
splits = dict(tune=dict(), test=dict())
tuning = dict(seeds=[0], budgets=['50'])

_lr = 'optim_wrapper.optimizer.lr'
_rates = [{_lr: rate} for rate in (1e-3, 3e-3)]
_loss = 'model.losses.'


def _baseline(name, grid, **kwargs):
    return dict(
        config=f'../baselines/depth_nyu_tiny_{name}.py', grid=grid, **kwargs)


def _dense(name):
    return dict(
        config=f'../baselines/depth_nyu_dense_tiny_{name}.py', grid=_rates)


def _temperature(*names):
    return [
        {_loss + name: value for name in names} for value in (0.1, 0.3)
    ]


methods = {
    'scratch': None,
    'feature L2': _baseline('feature_l2', _rates),
    'feature cosine': _baseline('feature_cosine', _rates),
    'PKT': _baseline('pkt', _rates),
    'CRD': _baseline('crd', _temperature('crd.temperature')),
    'SEED': _baseline('seed', _temperature('seed.teacher_temperature')),
    'CompRess': _baseline('compress', _temperature(
        'compress.teacher_temperature', 'compress.student_temperature')),
    'dense L2': _dense('l2'),
    'dense cosine': _dense('cosine'),
    'dense PKT': _dense('pkt'),
    'CMD within': _baseline('cmd_within', _temperature(
        'cmd_within.teacher_temperature', 'cmd_within.student_temperature'),
        ours=True),
    'CMC (CLIP, LiT)': _baseline(
        'cmc', _temperature('cmc.temperature'), ours=True),
    'dense CMD within': dict(_dense('cmd'), ours=True),
    'dense CMC': dict(
        config='../cmcd/depth_nyu_dense_tiny.py', grid=_rates, ours=True),
}
