# Inertial students of UTD-MHAD: every method, two teachers, ten seeds.
title = 'Evidence: inertial students of UTD-MHAD'
# Stand for {pair} etc. in paths.
names = dict(pair='inertial_utdmhad', network='tcn', target='inertial')
notes = (
    'UTD-MHAD: 27 actions, 431 recordings of four people. Teacher: skeletons. '
    'Student: an inertial sensor. Subjects 1, 3 and 5 are the 323 unlabelled '
    'pairs and the labels that are drawn; 7 is the test. Settings were chosen '
    'with subjects 1 and 3 to learn from, judged on 5 (rates, steps and '
    'projector by hand, for all alike: see [UTD-MHAD](utd_mhad.md)). Top-1 '
    'in percent, fine-tuning of all weights, 150 steps; chance is 3.7. The '
    'supervised teacher has seen the labels of the recordings that the '
    'student learns from: with it labels are spared for the student, not '
    'altogether.')
metric = 'accuracy/top1'
student_metrics = (
    'retrieval/target2source_mAP', 'gap_mmd', 'gap_tv_similarity', 'gap_cka')
student_hooks = (dict(type='mmcmcd.ModalityGapHook'), )
seeds = list(range(10))
teachers = dict(
    simclr=dict(config='../pretrain/simclr_tcn_utdmhad_skeleton.py'),
    supervised=dict(config='../pretrain/supervised_tcn_utdmhad_skeleton.py'))
downstream = '../downstream/{pair}_ft.py'
_train = 'train_dataloader.dataset'
budgets = {
    str(n): {f'{_train}.labels_per_class': n, f'{_train}.draw': '{seed}'}
    for n in (1, 2, 5)
}
_subjects = {
    split: {f'{_train}.subjects': learnt,
            'val_dataloader.dataset.subjects': judged}
    for split, learnt, judged in (
        ('tune', (1, 3), (5, )), ('test', (1, 3, 5), (7, )))
}
splits = {
    split: dict(teacher=subjects, student=subjects, score=subjects)
    for split, subjects in _subjects.items()
}
tuning = dict(seeds=[0, 1], budgets=['2'], teachers=['supervised'])

# Four settings for every method.
_lr = 'optim_wrapper.optimizer.lr'
_rates = [{_lr: rate} for rate in (3e-4, 1e-3, 3e-3, 1e-2)]


def _by_rate(key, *values):
    return [{key: v, _lr: rate} for v in values for rate in (1e-3, 3e-3)]


def _cmd(name):
    key = f'model.losses.{name}'
    return [
        {f'{key}.teacher_temperature': t, f'{key}.student_temperature': s}
        for t, s in ((0.1, 0.2), (0.2, 0.2), (0.4, 0.4), (0.8, 0.8))
    ]


def _one(key, *values):
    return [{f'model.losses.{key}': value} for value in values]


def _baseline(name, grid, **kwargs):
    return dict(
        config=f'../baselines/{{pair}}_{name}.py', grid=grid, **kwargs)


_loss = 'model.losses.'
methods = {
    'scratch': None,
    'SimCLR on the target': dict(
        config='../pretrain/simclr_{network}_utdmhad_{target}.py',
        teacher=False,
        grid=_by_rate('model.head.temperature', 0.1, 0.3)),
    'MoCo on the target': dict(
        config='../pretrain/moco_{network}_utdmhad_{target}.py', teacher=False,
        grid=_by_rate('model.head.temperature', 0.1, 0.2)),
    'feature L2': _baseline(
        'feature_l2', _by_rate(_loss + 'feature_l2.normalize', False, True)),
    'feature cosine': _baseline('feature_cosine', _rates),
    'SOCKET': _baseline(
        'socket', _by_rate(_loss + 'socket.bn_weight', 0, 0.5)),
    'RKD': _baseline('rkd', _rates),
    'PKT': _baseline('pkt', _rates),
    'CRD': _baseline('crd', _by_rate(_loss + 'crd.temperature', 0.07, 0.4)),
    'SEED': _baseline(
        'seed', _one('seed.teacher_temperature', 0.01, 0.1, 0.2, 0.4)),
    'CompRess': _baseline('compress', [
        {_loss + 'compress.teacher_temperature': t,
         _loss + 'compress.student_temperature': t}
        for t in (0.04, 0.1, 0.2, 0.4)
    ]),
    'CrossCLR': _baseline(
        'crossclr', _one('crossclr.temperature', 0.03, 0.1, 0.2, 0.4)),
    'CMD within': _baseline('cmd_within', _cmd('cmd_within'), ours=True),
    'CMD cross': _baseline('cmd_cross', _cmd('cmd_cross'), ours=True),
    'CMC (CLIP, LiT)': _baseline(
        'cmc', _one('cmc.temperature', 0.1, 0.2, 0.4, 0.8), ours=True),
    'CMD + CMC': dict(
        config='../cmcd/{pair}.py', ours=True, grid=[
            {_loss + 'cmcd.cmd.teacher_temperature': t,
             _loss + 'cmcd.cmd.student_temperature': t,
             _loss + 'cmcd.cmc.temperature': c}
            for t in (0.2, 0.4) for c in (0.2, 0.4)
        ]),
    'CMD cross + L2': dict(
        config='../cmcd/{pair}.py', ours=True, grid=[
            {'model.losses': dict(
                _delete_=True,
                cmd=dict(type='mmcmcd.CMDLoss', form='cross',
                         teacher_temperature=t, student_temperature=t),
                l2=dict(type='mmcmcd.FeatureL2Loss', loss_weight=w))}
            for t in (0.2, 0.4) for w in (1., 5.)
        ]),
    'blend (ALBEF)': _baseline('cmcd_blend', [
        {_loss + 'cmcd_blend.alpha': alpha,
         _loss + 'cmcd_blend.temperature': t,
         _loss + 'cmcd_blend.teacher_temperature': t}
        for alpha in (0.4, 0.8) for t in (0.2, 0.4)
    ], ours=True),
}

# One thing at a time, with subjects 1 and 3 (215 pairs) to learn from.
_pairs = 215


def _sweep(values, stage='student', method='CMC (CLIP, LiT)'):
    return dict(
        method=method, teacher='supervised', budget='2', seeds=[0, 1, 2],
        values={str(name): {stage: options}
                for name, options in values.items()})


def _every(step):
    return {f'{_train}.indices': list(range(0, _pairs, step))}


sweeps = {
    'temperature': _sweep({
        t: {_loss + 'cmc.temperature': t}
        for t in (0.05, 0.1, 0.2, 0.4, 0.8, 1.6)}),
    'queue': _sweep({
        size: {'model.queue': size and dict(
            type='mmcmcd.FeatureQueue', size=size,
            teacher_dim=128, student_dim=128)}
        for size in (None, 64, 128)}),
    'batch': _sweep({
        b: {'train_dataloader.batch_size': b} for b in (16, 32, 64, 128)}),
    'pairs m': _sweep({72: _every(3), 108: _every(2), 215: _every(1)}),
    'source samples M': _sweep(
        {72: _every(3), 108: _every(2), 215: _every(1)}, 'teacher'),
    'labels n a class': _sweep(
        {n: {f'{_train}.labels_per_class': n} for n in (1, 2, 4, 6)},
        'score'),
}
