"""SOCKETLoss: its two terms, and how it gets to see the networks."""

import copy

import pytest
import torch
from mmpretrain.structures import DataSample
from torch import nn

from mmcmcd.errors import ConfigError
from mmcmcd.models.distillers import CrossModalDistiller
from mmcmcd.models.losses import Memory, SOCKETLoss
from mmcmcd.registry import MODELS

BATCH, LENGTH = 6, 16


def backbone(in_channels=2, channels=(4, 6)):
    return dict(
        type='mmcmcd.TemporalConvNet',
        in_channels=in_channels,
        channels=channels,
    )


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    """A teacher whose statistics are those of some data."""
    torch.manual_seed(1)
    net = MODELS.build(backbone(3))
    for _ in range(3):
        net(2 * torch.randn(BATCH, 3, LENGTH) + 1)
    path = tmp_path_factory.mktemp('teacher') / 'teacher.pth'
    torch.save(dict(state_dict=net.state_dict()), path)
    return str(path)


def make_model(checkpoint, loss=None, **kwargs):
    torch.manual_seed(0)
    loss = dict(type='mmcmcd.SOCKETLoss', **(loss or {}))
    init_cfg = dict(type='Pretrained', checkpoint=checkpoint)
    return CrossModalDistiller(
        teacher=dict(backbone(3), init_cfg=init_cfg),
        student=kwargs.pop('student', backbone()),
        losses=dict(socket=loss),
        **kwargs,
    )


def make_batch():
    gen = torch.Generator().manual_seed(2)
    inputs = dict(
        source=torch.randn(BATCH, 3, LENGTH, generator=gen),
        target=torch.randn(BATCH, 2, LENGTH, generator=gen),
    )
    samples = [DataSample(metainfo=dict(group_index=i)) for i in range(BATCH)]
    return inputs, samples


def norm_layers(net):
    return [m for m in net.modules() if isinstance(m, nn.BatchNorm1d)]


def watch_inputs(net):
    """What enters its BN layers, in order, by hooks of the test's own."""
    seen = []
    for layer in norm_layers(net):
        layer.register_forward_pre_hook(lambda _, x: seen.append(x[0]))
    return seen


def naive_bn(seen, teacher, weights):
    """Channel by channel."""
    total = 0.0
    for x, layer, weight in zip(
        seen, norm_layers(teacher), weights, strict=True
    ):
        squares = [0.0, 0.0]
        for c in range(x.shape[1]):
            values = x[:, c].flatten()
            mean = sum(values) / len(values)
            var = sum((v - mean) ** 2 for v in values) / len(values)
            squares[0] = squares[0] + (mean - layer.running_mean[c]) ** 2
            squares[1] = squares[1] + (var - layer.running_var[c]) ** 2
        total = total + weight * sum(x.sqrt() for x in squares)
    return total


def test_pairs_are_compared_by_the_norm_of_all():
    gen = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(
        2, 4, 3, generator=gen, dtype=torch.float64
    ).unbind()
    student.requires_grad_()
    loss = SOCKETLoss(bn_weight=0)
    memory = Memory(teacher, teacher, torch.arange(4))
    ours = loss(student, teacher, memory, torch.zeros(4))
    assert list(ours) == ['loss_pairs']
    total = 0.0
    for s, t in zip(student.flatten(), teacher.flatten(), strict=True):
        total = total + (s - t) ** 2
    reference = 0.5 * total.sqrt()
    torch.testing.assert_close(ours['loss_pairs'], reference)
    torch.testing.assert_close(
        *(
            torch.autograd.grad(x, student)[0]
            for x in (ours['loss_pairs'], reference)
        )
    )
    # Equal rows: no direction, and no nan.
    value = loss(student, student.detach())['loss_pairs']
    assert value == 0 and torch.autograd.grad(value, student)[0].eq(0).all()


def test_statistics_are_those_of_what_enters_the_layers(checkpoint):
    model = make_model(checkpoint).double().train()
    model.init_weights()
    seen = watch_inputs(model.student)
    inputs, samples = make_batch()
    inputs = {side: x.double() for side, x in inputs.items()}
    losses = model.loss(inputs, samples)
    assert sorted(losses) == ['loss_bn', 'loss_pairs']
    layers = norm_layers(model.student)
    assert len(seen) == len(layers) > 4
    weights = [10.0] + [1.0] * (len(layers) - 1)
    teacher = model.teacher.module['teacher']
    reference = 0.5 * naive_bn(seen, teacher, weights)
    torch.testing.assert_close(losses['loss_bn'], reference)
    names, params = zip(*model.student.named_parameters(), strict=True)
    ours, expected = (
        torch.autograd.grad(x, params, retain_graph=True, allow_unused=True)
        for x in (losses['loss_bn'], reference)
    )
    for name, a, b in zip(names, ours, expected, strict=True):
        assert (a is None) == (b is None), name
        if a is not None:
            torch.testing.assert_close(a, b, msg=name)
    assert max(a.abs().max() for a in ours if a is not None) > 1e-2


def test_layers_of_other_widths_are_left_out(checkpoint):
    model = make_model(
        checkpoint,
        student=backbone(channels=(4, 5)),
        student_projector=dict(
            type='mmpretrain.LinearNeck',
            in_channels=5,
            out_channels=6,
            gap_dim=0,
        ),
    ).train()
    model.init_weights()
    seen = watch_inputs(model.student)
    losses = model.loss(*make_batch())
    teacher = model.teacher.module['teacher']
    weights = [
        float(layer.num_features == 4) for layer in norm_layers(teacher)
    ]
    assert 0 < sum(weights) < len(weights)
    weights[0] *= 10
    kept = [x if w else x[:, :0] for x, w in zip(seen, weights, strict=True)]
    reference = 0.0
    for x, layer, w in zip(kept, norm_layers(teacher), weights, strict=True):
        if w:
            mean, var = x.mean((0, 2)), x.var((0, 2), correction=0)
            of_mean = (mean - layer.running_mean).norm()
            reference += w * (of_mean + (var - layer.running_var).norm())
    torch.testing.assert_close(losses['loss_bn'], 0.5 * reference)


def test_nothing_is_kept_after_a_step_or_outside_of_it(checkpoint):
    model = make_model(checkpoint).train()
    taps = model.losses['socket']._taps
    model.loss(*make_batch())
    assert len(taps) > 4 and all(tap.statistics is None for tap in taps)
    # Another pass, such as that of the task in joint training.
    model.extract_feat(make_batch()[0]['target'])
    assert all(tap.statistics is None for tap in taps)


def test_evaluation_compares_pairs_alone(checkpoint):
    model = make_model(checkpoint).eval()
    with torch.no_grad():
        losses = model.loss(*make_batch())
    assert list(losses) == ['loss_pairs']


def test_weights_scale_and_switch_off(checkpoint):
    batch = make_batch()
    losses = make_model(checkpoint).train().loss(*batch)
    cfg = dict(pair_weight=1.0, bn_weight=2.0, loss_weight=3.0)
    scaled = make_model(checkpoint, cfg).train().loss(*batch)
    torch.testing.assert_close(scaled['loss_pairs'], 6 * losses['loss_pairs'])
    torch.testing.assert_close(scaled['loss_bn'], 12 * losses['loss_bn'])
    model = make_model(checkpoint, dict(bn_weight=0)).train()
    assert list(model.loss(*batch)) == ['loss_pairs']
    hooks = [layer._forward_pre_hooks for layer in norm_layers(model.student)]
    assert not any(hooks)


def test_the_teacher_stays_outside_of_the_model(checkpoint):
    model = make_model(checkpoint)
    without = make_model(checkpoint, dict(bn_weight=0))
    assert list(model.state_dict()) == list(without.state_dict())
    teacher = {id(p) for p in model.teacher.module.parameters()}
    assert teacher.isdisjoint(map(id, model.parameters()))


def test_copies_of_a_model_watch_themselves(checkpoint):
    model = make_model(checkpoint).train()
    other = copy.deepcopy(model)
    batch = make_batch()
    with torch.no_grad():
        for layer in norm_layers(model.student):
            layer.weight.fill_(3)
    values = [m.loss(*batch)['loss_bn'] for m in (other, model)]
    torch.testing.assert_close(
        values[0], make_model(checkpoint).train().loss(*batch)['loss_bn']
    )
    assert not torch.isclose(*values)


def test_the_momentum_student_is_not_watched(checkpoint):
    queue = dict(
        type='mmcmcd.FeatureQueue', size=8, teacher_dim=6, student_dim=6
    )
    average = dict(type='ExponentialMovingAverage', momentum=0.5)
    model = make_model(checkpoint, queue=queue, momentum_student=average)
    copies = norm_layers(model.momentum_student)
    assert copies and not any(x._forward_pre_hooks for x in copies)
    model.train().loss(*make_batch())['loss_bn'].backward()


def test_networks_that_do_not_fit_are_refused(checkpoint):
    with pytest.raises(ConfigError, match='the student has 9 and .* 6'):
        make_model(checkpoint, student=backbone(channels=(4, 6, 8)))
    with pytest.raises(ConfigError, match='no two are equally wide'):
        make_model(checkpoint, student=backbone(channels=(3, 5)))
    with pytest.raises(ConfigError, match='forward_chunk_size=2'):
        make_model(checkpoint, forward_chunk_size=2)
    make_model(checkpoint, dict(bn_weight=0), forward_chunk_size=2)


def test_networks_that_nobody_showed_are_missed():
    rows = torch.randn(2, 4, 3)
    with pytest.raises(ConfigError, match='was not shown the networks'):
        SOCKETLoss()(*rows)


def test_frozen_layers_are_no_batch(checkpoint):
    model = make_model(checkpoint).train()
    for layer in norm_layers(model.student):
        layer.eval()
    with pytest.raises(ConfigError, match='norm_eval=False'):
        model.loss(*make_batch())


def test_statistics_are_in_single_precision_under_autocast(checkpoint):
    model = make_model(checkpoint).train()
    with torch.autocast('cpu', torch.bfloat16):
        losses = model.loss(*make_batch())
    expected = make_model(checkpoint).train().loss(*make_batch())
    for name, value in losses.items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, expected[name], rtol=0.05, atol=0)
