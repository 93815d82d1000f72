import copy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmpretrain.structures import DataSample

from mmcmcd.errors import ConfigError
from mmcmcd.models.utils import embed, export_student
from mmcmcd.registry import MODELS

MOMENTUM = 0.2
AVERAGE = dict(type='ExponentialMovingAverage', momentum=MOMENTUM)
QUEUE = dict(
    type='mmcmcd.FeatureQueue', size=64, teacher_dim=32, student_dim=32
)


@pytest.fixture(autouse=True)
def _scope():
    init_default_scope('mmpretrain')


def net(in_channels, **kwargs):
    return dict(
        type='ResNet',
        depth=18,
        base_channels=4,
        stem_channels=4,
        in_channels=in_channels,
        **kwargs,
    )


@pytest.fixture
def pretrained(tmp_path):
    torch.manual_seed(0)
    path = str(tmp_path / 'photos.pth')
    torch.save(MODELS.build(net(3)).state_dict(), path)
    return dict(type='Pretrained', checkpoint=path)


def build(pretrained, **kwargs):
    torch.manual_seed(1)
    cfg = dict(
        type='mmcmcd.CrossModalDistiller',
        teacher=net(3, init_cfg=pretrained),
        student=net(1, init_cfg=pretrained),
        student_stem='sum',
        student_projector=dict(
            type='NonLinearNeck',
            in_channels=32,
            hid_channels=32,
            out_channels=32,
            num_layers=2,
            norm_cfg=dict(type='BN1d'),
        ),
        losses=dict(cmd=dict(type='mmcmcd.CMDLoss')),
        queue=QUEUE,
        momentum_student=AVERAGE,
    )
    cfg.update(kwargs)
    model = MODELS.build(copy.deepcopy(cfg))
    model.init_weights()
    return model.train()


def batch(seed, num=4):
    gen = torch.Generator().manual_seed(seed)
    return dict(
        inputs=dict(
            source=torch.randn(num, 3, 32, 32, generator=gen),
            target=torch.randn(num, 1, 32, 32, generator=gen),
        ),
        data_samples=[
            DataSample(metainfo=dict(group_index=seed * num + i))
            for i in range(num)
        ],
    )


def optimizer_of(model):
    sgd = dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=0.1)
    return build_optim_wrapper(model, dict(optimizer=sgd))


def train(model, optimizer, seed):
    loss = sum(model(**batch(seed), mode='loss').values())
    optimizer.update_params(loss)


def average(model):
    return model.momentum_student.module


def networks(model):
    return model.student, model.student_projector


def assert_equal(actual, expected):
    for ours, theirs in zip(actual, expected, strict=True):
        assert torch.equal(ours, theirs)


def test_queue_has_the_rows_of_a_moving_average(pretrained):
    model = build(pretrained)
    optimizer = optimizer_of(model)
    mean = copy.deepcopy(networks(model))
    expected, students = [], []
    for seed in range(3):
        target = batch(seed)['inputs']['target']
        for old, new in zip(mean, networks(model), strict=True):
            for ours, theirs in zip(
                old.parameters(), new.parameters(), strict=True
            ):
                ours.data += MOMENTUM * (theirs.data - ours.data)
        with torch.no_grad():
            expected.append(embed(mean[0](target), mean[1]))
            students.append(model.embed_target(target))
        train(model, optimizer, seed)
    rows = F.normalize(model.queue.view().student)
    expected, students = (
        F.normalize(torch.cat(r)) for r in (expected, students)
    )
    torch.testing.assert_close(rows, expected, rtol=1e-4, atol=1e-5)
    # At first it is the student itself, later it lags behind.
    assert torch.allclose(rows[:4], students[:4], atol=1e-5)
    assert not torch.allclose(rows[4:], students[4:], atol=1e-2)
    # In eval mode nothing moves.
    before = copy.deepcopy(model.momentum_student.state_dict())
    model.eval()(**batch(3), mode='loss')
    assert_equal(model.momentum_student.state_dict().values(), before.values())


def test_losses_and_features_are_the_trained_students(pretrained):
    ours = build(pretrained)
    theirs = build(pretrained, momentum_student=None)
    train(ours, optimizer_of(ours), 0)
    train(theirs, optimizer_of(theirs), 0)
    assert_equal(ours.student.parameters(), theirs.student.parameters())
    target = batch(0)['inputs']['target']
    for model in (ours.eval(), theirs.eval()):
        features = model.student(target)[-1]
        assert torch.equal(model(target)[-1], features)
        assert torch.equal(
            model.embed_target(target),
            embed(features, model.student_projector),
        )


def test_starts_as_a_copy_of_what_was_loaded(pretrained):
    model = build(pretrained)
    fresh = copy.deepcopy(model.student)
    model(**batch(0), mode='loss')
    copied = average(model)['student']
    assert_equal(copied.parameters(), fresh.parameters())
    weight = torch.load(pretrained['checkpoint'])['conv1.weight']
    torch.testing.assert_close(copied.conv1.weight, weight.sum(1, True))
    # The weights of a run without one are loaded after init_weights.
    earlier = build(pretrained, momentum_student=None)
    train(earlier, optimizer_of(earlier), 0)
    model = build(pretrained)
    model.load_state_dict(earlier.state_dict(), strict=False)
    model(**batch(0), mode='loss')
    assert_equal(
        average(model).parameters(),
        [p for network in networks(earlier) for p in network.parameters()],
    )


def test_checkpoint_roundtrip(pretrained):
    model = build(pretrained)
    optimizer = optimizer_of(model)
    for seed in range(2):
        train(model, optimizer, seed)
    other = build(pretrained)
    other.load_state_dict(model.state_dict())
    resumed = optimizer_of(other)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for seed in range(2, 4):
        train(model, optimizer, seed)
        train(other, resumed, seed)
    assert int(other.momentum_student.steps) == 4
    ours, theirs = other.state_dict(), model.state_dict()
    assert ours.keys() == theirs.keys()
    assert_equal(ours.values(), theirs.values())


def test_is_not_trained(pretrained):
    model = build(pretrained)
    optimizer = optimizer_of(model)
    train(model, optimizer, 0)
    frozen = {*average(model).parameters()}
    trained = {p for p in model.parameters() if p.requires_grad}
    assert frozen and not frozen & trained
    assert set(optimizer.optimizer.state) == trained
    before = copy.deepcopy([*average(model).parameters()])
    for _ in range(2):
        optimizer.step()  # with weight decay
    assert_equal(average(model).parameters(), before)


def test_is_not_exported(pretrained, tmp_path):
    model = build(pretrained)
    optimizer = optimizer_of(model)
    for seed in range(2):
        train(model, optimizer, seed)
    assert any(k.startswith('momentum_student.') for k in model.state_dict())
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'epoch.pth')
    sources = [model, str(tmp_path / 'epoch.pth')]
    alone = build(pretrained, momentum_student=None)
    alone.student = model.student
    files = [
        Path(export_student(source, tmp_path / f'{i}' / 'student.pth'))
        for i, source in enumerate([*sources, alone])
    ]
    assert len({file.read_bytes() for file in files}) == 1
    state = torch.load(files[0])['state_dict']
    expected = {
        f'backbone.{k}': v for k, v in model.student.state_dict().items()
    }
    assert state.keys() == expected.keys()
    assert_equal(state.values(), expected.values())


def test_is_not_asked_in_evaluation(pretrained):
    model = build(pretrained)
    model(**batch(0), mode='loss')

    def stop(*_):
        raise AssertionError('a forward pass for nothing')

    average(model)['student'].register_forward_pre_hook(stop)
    model.eval()(**batch(1), mode='loss')
    assert len(model.queue) == 4
    with pytest.raises(AssertionError, match='for nothing'):
        model.train()(**batch(1), mode='loss')


def test_chunks_pass_it_too(pretrained):
    model = build(pretrained, forward_chunk_size=2)
    sizes = []
    average(model)['student'].register_forward_pre_hook(
        lambda _, args: sizes.append(len(args[0]))
    )
    model(**batch(0), mode='loss')
    assert sizes == [2, 2]


@pytest.mark.parametrize(
    'kind',
    [
        dict(type='MomentumAnnealingEMA', momentum=0.001),
        dict(type='StochasticWeightAverage'),
        dict(type='mmengine.ExponentialMovingAverage', momentum=0.001),
        dict(type='mmpretrain.CosineEMA', momentum=0.004),
    ],
)
def test_other_averages(pretrained, kind):
    model = build(pretrained, momentum_student=kind, student_projector=None)
    model(**batch(0), mode='loss')
    assert len(model.queue) == 4


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(queue=None), 'momentum_student only fills a queue'),
        (dict(momentum_student=dict(AVERAGE, momentum=2.0)), 'range'),
        (dict(momentum_student=dict(AVERAGE, decay=0.9)), 'decay.*Expected'),
        (dict(momentum_student=net(1)), "'model'.*Expected an averaged"),
        (
            dict(momentum_student=dict(AVERAGE, update_buffers=True)),
            'update_buffers must be False',
        ),
    ],
)
def test_bad_configs_are_named(pretrained, change, message):
    with pytest.raises(ConfigError, match=message):
        build(pretrained, **change)
