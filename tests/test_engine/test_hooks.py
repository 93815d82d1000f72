import json
from types import SimpleNamespace
from unittest.mock import MagicMock

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.hooks import EMAHook
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper
from mmengine.runner import BaseLoop, Runner
from mmpretrain.models import ResNet, ResNetV1c
from torch import nn

from mmcmcd.datasets.seeded import SeededDataset
from mmcmcd.engine import (
    SkippedPairsHook,
    StudentExportHook,
    SyncStatisticsHook,
    TeacherFrozenHook,
    VerifyPretrainedHook,
)
from mmcmcd.errors import CheckpointError, ConfigError, DatasetError
from mmcmcd.models.memory import FeatureQueue
from mmcmcd.models.utils import adapt_input_channels, file_sha256, state_hash

PIXEL = cv2.imencode('.png', np.zeros((2, 2), np.uint8))[1].tobytes()
SMALL = dict(stem_channels=8, base_channels=8)
THREE_STAGES = dict(
    num_stages=3,
    strides=(1, 2, 2),
    dilations=(1, 1, 1),
    out_indices=(2,),
)


class Model(BaseModel):
    def __init__(self, **children):
        super().__init__()
        for name, child in children.items():
            self.add_module(name, child)

    def forward(self, *args, **kwargs):
        raise NotImplementedError


class Teacher:
    """What the hook needs of a frozen teacher."""

    def __init__(self):
        self.module = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
        self.module.eval()

    def load(self):
        pass

    def state_hash(self):
        return state_hash(self.module)


class Distiller(Model):
    def __init__(self):
        super().__init__(student=nn.Linear(2, 2), student_projector=None)
        self.hidden = (Teacher(),)

    @property
    def teacher(self):
        return self.hidden[0]


def runner_of(model, trained=None, hooks=(), **kwargs):
    parameters = list((trained or model).parameters())
    optimizer = torch.optim.SGD(parameters, lr=0.1)
    return SimpleNamespace(
        model=model,
        optim_wrapper=OptimWrapper(optimizer),
        logger=MagicMock(),
        epoch=0,
        iter=0,
        hooks=hooks,
        **kwargs,
    )


# VerifyPretrainedHook


def student_file(tmp_path, net, prefix='backbone.'):
    path = str(tmp_path / 'student.pth')
    state = {prefix + k: v for k, v in net.state_dict().items()}
    torch.save(dict(state_dict=state), path)
    return path


def verify(net, path, prefix='backbone.', **kwargs):
    net.init_cfg = dict(type='Pretrained', checkpoint=path, prefix=prefix)
    runner = runner_of(Model(backbone=net))
    VerifyPretrainedHook(**kwargs).before_run(runner)


def test_verify_accepts_what_fits(tmp_path):
    net = ResNet(18, **SMALL)
    verify(ResNet(18, **SMALL), student_file(tmp_path, net))


@pytest.mark.parametrize(
    ('network', 'message'),
    [
        (dict(depth=34), 'missing in the file'),
        (dict(depth=18, in_channels=3), 'file takes 1 input channels'),
        (dict(depth=18, type=ResNetV1c), 'network has a deep stem'),
        (dict(depth=18, **THREE_STAGES), 'unknown to the'),
    ],
)
def test_verify_refuses_another_network(tmp_path, network, message):
    path = student_file(tmp_path, ResNet(18, in_channels=1, **SMALL))
    network = {'in_channels': 1, **network}
    net = network.pop('type', ResNet)(**network, **SMALL)
    with pytest.raises(CheckpointError, match=message) as caught:
        verify(net, path)
    assert 'backbone: pretrained checkpoint' in str(caught.value)


def test_verify_refuses_missing_file_and_wrong_prefix(tmp_path):
    net = ResNet(18, **SMALL)
    with pytest.raises(CheckpointError) as caught:
        verify(net, 'none.pth')
    message = str(caught.value)
    assert message.startswith(
        "backbone: pretrained checkpoint 'none.pth' does not exist. Give an "
        'exported student (student-*.pth'
    )
    assert '--cfg-options model.backbone.init_cfg.checkpoint=FILE' in message
    assert 'model.backbone.init_cfg=None' in message
    path = student_file(tmp_path, net)
    with pytest.raises(CheckpointError, match=r"set prefix='backbone\.'"):
        verify(net, path, prefix='student.')
    with pytest.raises(CheckpointError, match=r"set prefix='backbone\.'"):
        verify(net, path, prefix=None)


def test_verify_refuses_weights_that_mmengine_would_not_find(tmp_path):
    net = ResNet(18, **SMALL)
    path = str(tmp_path / 'x.pth')
    torch.save(dict(model=net.state_dict()), path)
    with pytest.raises(CheckpointError, match='holds no weights'):
        verify(net, path, prefix=None)


def test_verify_ignores_what_it_is_told_to(tmp_path):
    path = student_file(tmp_path, ResNet(18, **SMALL))
    net = ResNet(18, **THREE_STAGES, **SMALL)
    verify(net, path, ignore=['layer4'])


def test_verify_lets_heads_differ_without_prefix(tmp_path):
    def model(classes):
        return Model(backbone=ResNet(18, **SMALL), head=nn.Linear(64, classes))

    path = student_file(tmp_path, model(5), prefix='')
    target = model(3)
    target.init_cfg = dict(type='Pretrained', checkpoint=path)
    VerifyPretrainedHook().before_run(runner_of(target))
    target = Model(backbone=ResNet(34, **SMALL), head=nn.Linear(64, 3))
    target.init_cfg = [dict(type='Pretrained', checkpoint=path)]
    with pytest.raises(CheckpointError, match='model: pretrained'):
        VerifyPretrainedHook().before_run(runner_of(target))


def test_verify_honours_an_adapted_stem(tmp_path):
    net = ResNet(18, in_channels=1, **SMALL)
    adapt_input_channels(net, 'sum')
    verify(net, student_file(tmp_path, ResNet(18, **SMALL)))


def test_verify_does_nothing_when_the_runner_tests():
    net = ResNet(18, **SMALL)
    net.init_cfg = dict(type='Pretrained', checkpoint='none.pth')
    runner = SimpleNamespace(model=net, optim_wrapper=None)
    VerifyPretrainedHook().before_run(runner)


# TeacherFrozenHook


def test_frozen_teacher_passes():
    hook, runner = TeacherFrozenHook(interval=1), runner_of(Distiller())
    hook.before_train(runner)
    runner.model.student.weight.data += 1
    hook.after_train_epoch(runner)
    hook.after_train(runner)


def test_teacher_in_the_optimizer_is_refused():
    model = Distiller()
    runner = runner_of(model, trained=model.teacher.module)
    with pytest.raises(RuntimeError, match=r'4 tensors .*0\.weight'):
        TeacherFrozenHook().before_train(runner)


def test_teacher_in_the_model_is_refused():
    model = Distiller()
    runner = runner_of(model)
    model.add_module('copy', model.teacher.module[1])
    with pytest.raises(RuntimeError, match=r'tensors of the teacher'):
        TeacherFrozenHook().before_train(runner)


def test_change_of_a_statistic_is_noticed():
    hook, runner = TeacherFrozenHook(interval=2), runner_of(Distiller())
    hook.before_train(runner)
    runner.model.teacher.module[1].running_mean += 1e-6
    hook.after_train_epoch(runner)  # not yet due
    runner.epoch = 1
    with pytest.raises(RuntimeError, match='changed since they were loaded'):
        hook.after_train_epoch(runner)
    with pytest.raises(RuntimeError, match='changed since they were loaded'):
        hook.after_train(runner)


def test_teacher_in_training_mode_is_noticed():
    hook, runner = TeacherFrozenHook(), runner_of(Distiller())
    hook.before_train(runner)
    runner.model.teacher.module[1].train()
    with pytest.raises(RuntimeError, match=r'1 modules .*training mode \(1'):
        hook.after_train(runner)


def test_model_without_teacher():
    runner = runner_of(Model(student=nn.Linear(2, 2)))
    with pytest.raises(ConfigError, match='got Model'):
        TeacherFrozenHook().before_train(runner)


def resumed(model, checkpoint, resume=True, trains=True):
    teacher = dict(init_cfg=dict(checkpoint='b.pth'))
    cfg = ConfigDict(model=dict(teacher=teacher))
    loop = MagicMock(spec=BaseLoop) if trains else None
    runner = runner_of(model, cfg=cfg, _resume=resume, _train_loop=loop)
    TeacherFrozenHook().after_load_checkpoint(runner, checkpoint)


def test_run_goes_on_with_its_own_teacher_only():
    model, other = Distiller(), Distiller()
    checkpoint = dict(meta=dict(epoch=1))
    TeacherFrozenHook().before_save_checkpoint(runner_of(model), checkpoint)
    stored = model.teacher.state_hash()
    assert checkpoint['meta'] == dict(epoch=1, teacher_sha256=stored)
    resumed(model, checkpoint)
    with pytest.raises(CheckpointError) as caught:
        resumed(other, checkpoint)
    assert stored in str(caught.value)
    assert f"('b.pth') have sha256 {other.teacher.state_hash()}" in str(
        caught.value
    )
    # Another start, and files that say nothing about the teacher.
    resumed(other, checkpoint, resume=False)
    resumed(other, dict(meta=dict(epoch=1)))
    resumed(other, dict(state_dict={}))
    # A test of the student with another teacher compares what never met.
    with pytest.raises(CheckpointError, match='the run to test had another'):
        resumed(other, checkpoint, resume=False, trains=False)


# SkippedPairsHook


def test_skipped_pairs_are_counted_through_wrappers():
    a, b = SimpleNamespace(num_skipped=2), SimpleNamespace(num_skipped=1)
    wrapped = SimpleNamespace(
        dataset=SimpleNamespace(datasets=[a, b, SimpleNamespace()])
    )
    runner = SimpleNamespace(
        train_dataloader=SimpleNamespace(dataset=wrapped),
        logger=MagicMock(),
        epoch=0,
    )
    hook = SkippedPairsHook()
    hook.after_train_epoch(runner)
    runner.epoch = 1
    hook.after_train_epoch(runner)
    a.num_skipped = 6
    runner.epoch = 2
    hook.after_train_epoch(runner)
    lines = [call.args[0] for call in runner.logger.warning.call_args_list]
    assert len(lines) == 2
    assert lines[0].startswith('3 unreadable pairs were skipped in epoch 1, 3')
    assert lines[1].startswith('4 unreadable pairs were skipped in epoch 3, 7')


def test_skipped_pairs_count_once_behind_wrappers():
    pairs = SimpleNamespace(num_skipped=3)
    other = SimpleNamespace(num_skipped=2)
    joined = SimpleNamespace(datasets=[pairs, other])
    runner = SimpleNamespace(
        # It passes on the attributes of what it wraps.
        train_dataloader=SimpleNamespace(dataset=SeededDataset(joined)),
        logger=MagicMock(),
        epoch=0,
    )
    hook = SkippedPairsHook()
    hook.after_train_epoch(runner)
    runner.train_dataloader.dataset = SeededDataset(pairs)
    hook.after_train(runner)
    lines = [call.args[0] for call in runner.logger.warning.call_args_list]
    assert lines[0].startswith('5 unreadable pairs were skipped in epoch 1')
    assert lines[1].startswith('Training is over without 3 unreadable pairs')


def test_skipped_pairs_are_in_the_log_now_and_then():
    pairs = SimpleNamespace(num_skipped=0)
    runner = SimpleNamespace(
        train_dataloader=SimpleNamespace(dataset=pairs),
        message_hub=MagicMock(),
        logger=MagicMock(),
    )
    hook = SkippedPairsHook(interval=3)
    for runner.iter in range(9):
        pairs.num_skipped = max(runner.iter - 3, 0)
        hook.after_train_iter(runner, runner.iter)
    # In iterations 6 and 9; not in iteration 3, before any was skipped.
    calls = runner.message_hub.update_scalar.call_args_list
    assert [call.args for call in calls] == [
        ('train/skipped_pairs', 2),
        ('train/skipped_pairs', 5),
    ]
    pairs.num_skipped = 0
    hook.after_train(runner)
    assert not runner.logger.warning.called
    for interval in (0, -1, 2.5, None):
        with pytest.raises(ConfigError, match='interval'):
            SkippedPairsHook(interval)


class Loss(BaseModel):
    """A model that only trains, on pairs as they are."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def train_step(self, data, optim_wrapper):
        loss = self.weight.square().sum()
        optim_wrapper.update_params(loss)
        return dict(loss=loss.detach())

    def forward(self, *args, **kwargs):
        raise NotImplementedError


@pytest.mark.parametrize('workers', [0, 2])
@pytest.mark.parametrize('max_skip_fraction', [0.5, 0.1])
def test_skipped_pairs_through_the_runner(
    tmp_path, workers, max_skip_fraction
):
    for side in ('rgb', 'depth'):
        (tmp_path / side).mkdir()
        for i in range(8):
            (tmp_path / f'{side}/{i}.png').write_bytes(PIXEL)
    for i in (1, 6):
        (tmp_path / f'depth/{i}.png').write_bytes(PIXEL[:-9])
    load = dict(
        type='mmcmcd.OnSide',
        sides=('source', 'target'),
        transforms=[dict(type='mmcmcd.LoadImageStrict')],
    )
    runner = Runner(
        Loss(),
        work_dir=str(tmp_path / 'work'),
        train_dataloader=dict(
            batch_size=2,
            num_workers=workers,
            collate_fn=list,
            dataset=dict(
                type='mmcmcd.PairedModalityDataset',
                data_root=str(tmp_path),
                sides=dict(
                    source=dict(folder='rgb', suffix='.png'),
                    target=dict(folder='depth', suffix='.png'),
                ),
                pipeline=[load],
                on_unreadable='skip',
                max_skip_fraction=max_skip_fraction,
            ),
            sampler=dict(type='InfiniteSampler', shuffle=False),
        ),
        train_cfg=dict(type='IterBasedTrainLoop', max_iters=8),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        default_hooks=dict(
            logger=dict(type='LoggerHook', interval=4), checkpoint=None
        ),
        log_processor=dict(by_epoch=False),
        custom_hooks=[dict(type='mmcmcd.SkippedPairsHook', interval=2)],
        experiment_name=f'skip{workers}{max_skip_fraction}',
        default_scope='mmpretrain',
    )
    if max_skip_fraction == 0.1:
        with pytest.raises(DatasetError, match='max_skip_fraction=0.1'):
            runner.train()
        return
    runner.train()
    log = next((tmp_path / 'work').rglob('*.log')).read_text()
    rows = [line for line in log.splitlines() if 'Iter(train)' in line]
    assert len(rows) == 2 and rows[-1].endswith('skipped_pairs: 2')
    assert log.count('Training is over without 2 unreadable pairs') == 1


# SyncStatisticsHook; tests/test_dist runs it in two processes


def test_running_statistics_alone_are_averaged(monkeypatch):
    reduced = []
    monkeypatch.setattr(
        'mmcmcd.engine.hooks.sync_statistics_hook.all_reduce_params',
        lambda tensors, op: reduced.extend([op, *tensors]),
    )
    model, ema = (
        Model(
            norm=nn.BatchNorm2d(3),
            plain=nn.BatchNorm1d(3, track_running_stats=False),
            queue=FeatureQueue(4, teacher_dim=2, student_dim=2),
        )
        for _ in range(2)
    )
    hook = EMAHook()
    hook.ema_model = ema
    runner = runner_of(model, hooks=[hook])
    for step in ('after_train_epoch', 'before_val_epoch'):
        reduced.clear()
        getattr(SyncStatisticsHook(), step)(runner)
        norms = (model.norm, ema.norm)
        expected = [x for n in norms for x in (n.running_mean, n.running_var)]
        assert reduced[0] == 'mean' and len(reduced) == 5
        assert all(a is b for a, b in zip(reduced[1:], expected, strict=True))


# StudentExportHook


def test_student_is_written_and_described(tmp_path):
    cfg = ConfigDict(
        model=dict(
            student=dict(type='ResNet', depth=18),
            data_preprocessor=dict(target=dict(mean=[0.3], std=[0.1])),
        )
    )
    runner = runner_of(Distiller(), work_dir=str(tmp_path), cfg=cfg)
    runner.epoch, runner.iter = 3, 12
    StudentExportHook().after_train(runner)
    path = (tmp_path / 'last_student').read_text()
    assert path == str(tmp_path / f'student-{file_sha256(path)[:8]}.pth')
    content = torch.load(path, weights_only=True)
    assert set(content['state_dict']) == {'backbone.weight', 'backbone.bias'}
    meta = content['meta']
    assert (meta['epoch'], meta['iter']) == (3, 12)
    assert meta['student'] == dict(type='ResNet', depth=18)
    assert meta['data_preprocessor'] == dict(mean=[0.3], std=[0.1])

    checkpoint = dict(meta=dict(epoch=1))
    StudentExportHook().before_save_checkpoint(runner, checkpoint)
    assert checkpoint['meta']['epoch'] == 1
    assert checkpoint['meta']['student'] == dict(type='ResNet', depth=18)


@pytest.mark.parametrize('from_file', [False, True])
def test_students_of_arrays_know_their_normalisation(tmp_path, from_file):
    """Also when the file of statistics is gone."""
    numbers = dict(mean=[1.0, 2.0], std=[3.0, 4.0])
    path = tmp_path / 'statistics.json'
    path.write_text(json.dumps(dict(imu=numbers)))
    normalize = dict(type='mmcmcd.NormalizeArray', **numbers)
    if from_file:
        normalize = dict(
            type='mmcmcd.NormalizeArray', statistics=str(path), side='imu'
        )

    def on(sides, transform):
        return dict(type='mmcmcd.OnSide', sides=sides, transforms=[transform])

    other = dict(type='mmcmcd.NormalizeArray', mean=0.0, std=1.0)
    pipeline = [on('source', other), on(['target'], normalize)]
    cfg = ConfigDict(
        model=dict(student=dict(type='mmcmcd.TemporalConvNet')),
        train_dataloader=dict(
            dataset=dict(type='Repeat', dataset=dict(pipeline=pipeline))
        ),
    )
    runner = runner_of(Distiller(), work_dir=str(tmp_path), cfg=cfg)
    runner.epoch, runner.iter = 1, 1
    StudentExportHook().after_train(runner)
    path.unlink()
    student = (tmp_path / 'last_student').read_text()
    meta = torch.load(student, weights_only=True)['meta']
    assert meta['array_normalization'] == numbers


def test_student_is_the_averaged_one_with_ema(tmp_path):
    model, ema = Distiller(), EMAHook(momentum=0.5)
    runner = runner_of(
        model, hooks=[ema], work_dir=str(tmp_path), cfg=ConfigDict()
    )
    ema.before_run(runner)
    for value in (0.0, 4.0):
        model.student.weight.data.fill_(value)
        ema.after_train_iter(runner, 0)
    checkpoint = dict(state_dict=model.state_dict())
    ema.before_save_checkpoint(runner, checkpoint)
    StudentExportHook().after_train(runner)
    content = torch.load((tmp_path / 'last_student').read_text())
    weight = content['state_dict']['backbone.weight']
    assert torch.equal(weight, torch.full((2, 2), 2.0))
    assert torch.equal(weight, checkpoint['state_dict']['student.weight'])


def test_student_goes_where_it_is_told(tmp_path):
    runner = runner_of(Distiller(), work_dir='unused', cfg=ConfigDict())
    StudentExportHook(out_dir=str(tmp_path / 'out')).after_train(runner)
    assert len(list((tmp_path / 'out').glob('student-*.pth'))) == 1
