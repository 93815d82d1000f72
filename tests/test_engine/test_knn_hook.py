import re
import socket

import numpy as np
import pytest
import torch
from conftest import REPO, run_command
from mmengine.config import Config
from mmengine.runner import Runner
from mmpretrain.structures import DataSample
from sklearn.neighbors import KNeighborsClassifier

from mmcmcd.engine import KNNHook
from mmcmcd.errors import ConfigError, DatasetError

CLASSES = ('a', 'b', 'c')


class Images(torch.utils.data.Dataset):
    """Noisy images, whose mean tells their class a little."""

    def __init__(self, size, seed, labelled=True, classes=CLASSES):
        rng = torch.Generator().manual_seed(seed)
        self.labels = torch.randint(0, 3, (size,), generator=rng)
        noise = torch.randn(size, 3, 16, 16, generator=rng)
        self.images = noise + 0.15 * self.labels[:, None, None, None]
        self.labelled = labelled
        self.metainfo = dict(classes=classes)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        sample = DataSample(metainfo=dict(img_path=f'{index}.png'))
        if self.labelled:
            sample.set_gt_label(self.labels[index])
        return dict(inputs=self.images[index], data_samples=sample)


def loader(dataset, **kwargs):
    return dict(batch_size=4, num_workers=0, dataset=dataset, **kwargs)


def knn(bank, **kwargs):
    return dict(type='mmcmcd.KNNHook', bank_dataloader=loader(bank), **kwargs)


def classifier_runner(work_dir, hook, val=None, save_best=None, **kwargs):
    """A stock mmpretrain classifier that trains for two short epochs."""
    val = Images(15, seed=1) if val is None else val
    held_out = loader(
        val,
        sampler=dict(type='DefaultSampler', shuffle=False),
        collate_fn=dict(type='default_collate'),
    )
    torch.manual_seed(0)
    return Runner(
        model=dict(
            type='ImageClassifier',
            data_preprocessor=dict(mean=[0.0] * 3, std=[0.5] * 3),
            backbone=dict(
                type='ResNet', depth=18, stem_channels=8, base_channels=8
            ),
            neck=dict(type='GlobalAveragePooling'),
            head=dict(type='LinearClsHead', num_classes=3, in_channels=64),
        ),
        work_dir=str(work_dir),
        train_dataloader=loader(
            Images(12, seed=2),
            sampler=dict(type='DefaultSampler', shuffle=True),
            collate_fn=dict(type='default_collate'),
        ),
        train_cfg=dict(by_epoch=True, max_epochs=2, val_interval=1),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.5)),
        val_dataloader=held_out,
        val_cfg=dict(type='ValLoop'),
        val_evaluator=dict(type='Accuracy'),
        test_dataloader=held_out,
        test_cfg=dict(type='TestLoop'),
        test_evaluator=dict(type='Accuracy'),
        default_hooks=dict(
            knn=hook,
            checkpoint=dict(
                type='CheckpointHook', save_best=save_best, rule='greater'
            ),
        ),
        default_scope='mmpretrain',
        experiment_name=work_dir.name,
        randomness=dict(seed=0),
        **dict(dict(log_level='ERROR'), **kwargs),
    )


@torch.no_grad()
def expected_top1(backbone, bank, val, k, weights='uniform'):
    """By scikit-learn, from features taken without the hook."""
    backbone.eval()
    features = [
        backbone(2 * data.images)[-1].mean(dim=(2, 3)).double()
        for data in (bank, val)
    ]
    model = KNeighborsClassifier(
        k, metric='cosine', algorithm='brute', weights=weights
    ).fit(features[0], bank.labels)
    found = model.predict(features[1])
    return 100 * float(np.mean(found == val.labels.numpy()))


def softmax(distance):
    return np.exp(-distance / 0.07)


@pytest.mark.parametrize(
    'weights, reference', [('uniform', 'uniform'), ('softmax', softmax)]
)
def test_a_stock_classifier_is_tested_by_its_neighbours(
    tmp_path, weights, reference
):
    bank, val = Images(37, seed=0), Images(15, seed=1)
    runner = classifier_runner(tmp_path, knn(bank, k=5, weights=weights))
    metrics = runner.test()
    expected = expected_top1(
        runner.model.backbone, bank, val, 5, weights=reference
    )
    assert metrics['knn/top1'] == pytest.approx(expected)
    assert 0 < expected < 100
    assert 'accuracy/top1' in metrics


def test_training_keeps_the_best_of_the_weights_that_were_validated(
    tmp_path, capsys
):
    bank, val = Images(80, seed=0), Images(15, seed=1)
    runner = classifier_runner(
        tmp_path,
        knn(bank, k=5, weights='uniform'),
        save_best='knn/top1',
        # Validated weights are not those that are trained.
        custom_hooks=[dict(type='EMAHook', momentum=0.3)],
    )
    runner.train()
    history = runner.message_hub.get_scalar('val/knn/top1').data[0]
    assert len(history) == 2
    assert history[0] != history[1]  # embedded anew
    (best,) = tmp_path.glob('best_knn_top1_epoch_*.pth')
    for path, value in (
        (best, max(history)),
        (tmp_path / 'epoch_2.pth', history[1]),
    ):
        state = torch.load(path, weights_only=False)['state_dict']
        runner.model.load_state_dict(state)
        expected = expected_top1(runner.model.backbone, bank, val, 5)
        assert value == pytest.approx(expected)
    # The bank of 20 batches has a progress bar.
    assert 'Embedding the bank' in (shown := capsys.readouterr().out)
    assert '20/20' in shown and 'ETA' in shown


def test_on_says_when(tmp_path):
    runner = classifier_runner(tmp_path, knn(Images(9, 0), k=5, on='val'))
    assert 'knn/top1' not in runner.test()
    assert 'knn/top1' in runner.val()
    with pytest.raises(ConfigError, match="expected 'val', 'test' or both"):
        KNNHook({}, on='train')


@pytest.mark.parametrize(
    'hook, val, error, message',
    [
        (
            knn(Images(0, 0), k=5),
            None,
            ConfigError,
            'k=5 neighbours of a bank of 0',
        ),
        (
            knn(Images(9, 0), k=0),
            None,
            ConfigError,
            'k=0 neighbours of a bank of 9',
        ),
        (
            knn(Images(9, 0), k=5, weights='gauss'),
            None,
            ConfigError,
            'gauss',
        ),
        (
            knn(Images(9, 0, labelled=False), k=5),
            None,
            DatasetError,
            "'0.png' has gt_label=None",
        ),
        (
            knn(Images(9, 0), k=5),
            Images(9, 0, labelled=False),
            DatasetError,
            "'0.png' has gt_label=None",
        ),
        (
            knn(Images(9, 0, classes=('b', 'a', 'c')), k=5),
            None,
            ConfigError,
            'other classes',
        ),
    ],
    ids=['empty bank', 'k', 'weights', 'bank', 'val', 'classes'],
)
def test_unusable_banks_are_refused(tmp_path, hook, val, error, message):
    runner = classifier_runner(tmp_path, hook, val)
    runner.test_evaluator.metrics.clear()  # Accuracy wants labels, too
    with pytest.raises(error, match=message):
        runner.test()


def test_unusable_banks_are_refused_before_training(tmp_path):
    runner = classifier_runner(tmp_path, knn(Images(9, 0), k=0))
    with pytest.raises(ConfigError, match='k=0 neighbours of a bank of 9'):
        runner.train()
    assert runner.iter == 0


def test_of_a_small_bank_all_vote(tmp_path, capsys):
    bank, val = Images(6, seed=0), Images(15, seed=1)
    hook = knn(bank, k=20, weights='distance')
    runner = classifier_runner(tmp_path, hook, log_level='WARNING')
    runner.train()
    metrics = runner.test()
    expected = expected_top1(
        runner.model.backbone, bank, val, 6, weights='distance'
    )
    assert metrics['knn/top1'] == pytest.approx(expected)
    message = 'the bank has 6 samples only: all of them vote, not k=20.'
    assert capsys.readouterr().out.count(message) == 1


@pytest.mark.parametrize(
    'drawn, bank_size, warned', [(4, 13, True), (4, 12, False), (None, 13, 0)]
)
def test_more_labels_than_the_run_has(
    tmp_path, capsys, drawn, bank_size, warned
):
    runner = classifier_runner(
        tmp_path, knn(Images(bank_size, 0), k=5), log_level='WARNING'
    )
    trained = runner.train_dataloader.dataset
    trained.labels_per_class = drawn
    assert len(trained) == 12
    runner.train()
    message = (
        'the bank has 13, the training set 12. Set '
        'default_hooks.knn.bank_dataloader.dataset.labels_per_class=4'
    )
    assert (message in capsys.readouterr().out) == bool(warned)


def pairs_config(run, **hook):
    """The tiny distillation with labelled pairs: 7 validated, 8 in the bank.

    The target of a pair goes into the csv as a depth map.
    """
    for name, size in (('bank', 8), ('val', 7)):
        lines = [f'{i}.png,{i}.png,{i % 3}' for i in range(size)]
        text = '\n'.join(['source,target,label', *lines])
        (run.root / 'data' / f'{name}.csv').write_text(text + '\n')
    cfg = Config.fromfile(run.config)
    cfg.test_dataloader.dataset.ann_file = 'val.csv'
    bank = cfg.test_dataloader.to_dict()
    bank['dataset']['ann_file'] = 'bank.csv'
    # Nearest of all is the sample itself, which is in the bank, too.
    cfg.default_hooks.knn = dict(
        type='mmcmcd.KNNHook', bank_dataloader=bank, **hook
    )
    cfg.work_dir = str(run.work_dir)
    return cfg


@pytest.mark.parametrize('k, expected', [(1, 100), (3, None)])
def test_the_student_of_a_distiller_is_tested(tiny_run, k, expected):
    cfg = pairs_config(tiny_run, k=k, weights='uniform')
    cfg.experiment_name = f'knn_pairs_{k}'
    runner = Runner.from_cfg(cfg)
    features, labels = [], []
    runner.model.eval()
    for batch in runner.build_dataloader(
        cfg.default_hooks.knn.bank_dataloader
    ):
        data = runner.model.data_preprocessor(batch, False)
        with torch.no_grad():
            rows = runner.model.student(data['inputs']['target'])[-1]
        features.append(rows.mean(dim=(2, 3)).double())
        labels += [int(s.gt_label) for s in data['data_samples']]
    features = torch.cat(features)
    model = KNeighborsClassifier(k, metric='cosine', algorithm='brute')
    found = model.fit(features, labels).predict(features[:7])
    top1 = 100 * float(np.mean(found == labels[:7]))
    metrics = runner.test()
    assert metrics['knn/top1'] == pytest.approx(top1)
    assert 'retrieval/target2source_mAP' in metrics
    if expected is not None:
        assert top1 == expected


def test_an_unknown_side_is_named(tiny_run):
    cfg = pairs_config(tiny_run, k=1, side='sketch')
    cfg.experiment_name = 'knn_side'
    with pytest.raises(ConfigError, match="side='sketch' is not among"):
        Runner.from_cfg(cfg).test()


def test_two_processes_find_what_one_does(tiny_run):
    """7 samples on 2 processes: the sampler repeats one."""
    config = tiny_run.root / 'knn.py'
    pairs_config(tiny_run, k=3, weights='uniform').dump(config)
    cfg = Config.fromfile(config)
    cfg.experiment_name = 'knn_one_process'
    runner = Runner.from_cfg(cfg)
    checkpoint = tiny_run.root / 'model.pth'
    torch.save(dict(state_dict=runner.model.state_dict()), checkpoint)
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port = str(probe.getsockname()[1])
    script = REPO / 'tools' / 'dist_test.sh'
    result = run_command(['bash', script, config, checkpoint, 2], PORT=port)
    assert result.returncode == 0, result.stderr[-3000:]
    (found,) = re.findall(r'knn/top1: ([0-9.]+)', result.stdout)
    assert float(found) == pytest.approx(runner.test()['knn/top1'], abs=1e-4)
