"""Losses and inputs at the edge: values and gradients stay finite."""

import math

import cv2
import numpy as np
import pytest
import torch

from mmcmcd.apis import load_config
from mmcmcd.apis.train import build_runner, prepare_train_config
from mmcmcd.errors import ConfigError
from mmcmcd.models.losses import (
    CMCDBlendLoss,
    CMCDLoss,
    CMCLoss,
    CMDLoss,
    CosineLoss,
    CRDLoss,
    CrossCLRLoss,
    FeatureL2Loss,
    Memory,
    PKTLoss,
    PrototypeLoss,
    RKDLoss,
    functional,
)
from mmcmcd.models.memory import FeatureQueue

NUM, DIM = 12, 8
LOSSES = dict(
    within=lambda tau: CMDLoss('within', tau, tau),
    within_self=lambda tau: CMDLoss('within', tau, tau, include_self=True),
    cross=lambda tau: CMDLoss('cross', tau, tau),
    one_way=lambda tau: CMCLoss(tau, symmetric=False),
    two_way=lambda tau: CMCLoss(tau),
    trained=lambda tau: CMCLoss(tau, learnable_temperature=True),
    both=lambda tau: CMCDLoss(
        dict(teacher_temperature=tau, student_temperature=tau),
        dict(temperature=tau),
    ),
    crd=lambda tau: CRDLoss(tau),
    l2=lambda tau: FeatureL2Loss(),
    l2_of_units=lambda tau: FeatureL2Loss(normalize=True),
    cosine=lambda tau: CosineLoss(),
    rkd=lambda tau: RKDLoss(),
    pkt=lambda tau: PKTLoss(),
    memory=lambda tau: CMDLoss('within', tau, tau, candidates='memory'),
    memory_across=lambda tau: CMDLoss('cross', tau, tau, candidates='memory'),
    blend=lambda tau: CMCDBlendLoss(0.4, tau, tau),
    crossclr=lambda tau: CrossCLRLoss(tau),
    prototypes=lambda tau: PrototypeLoss(DIM, 4, tau, tau),
)


def rows(seed):
    return torch.randn(NUM, DIM, generator=torch.Generator().manual_seed(seed))


def zero(which):
    def change(student, teacher):
        if 'student' in which:
            student[2:5] = 0
        if 'teacher' in which:
            teacher[4:7] = 0

    return change


def all_zero(student, teacher):
    student.zero_()
    teacher.zero_()


def identical(student, teacher):
    student.copy_(student[:1].expand_as(student).clone())
    teacher.copy_(student)


def opposite(student, teacher):
    student.copy_(student[:1].expand_as(student).clone())
    teacher.copy_(-student)


def large(student, teacher):
    # Products of two of them are beyond what float16 can hold, by far.
    for side in (student, teacher):
        side.copy_(side.sign() * 3e4)


def short(student, teacher):
    # Still shorter ones have gradients that float16 cannot hold.
    length = 4e-3 if student.dtype == torch.float16 else 6e-8
    for side in (student, teacher):
        side.copy_(side.sign() * length)


CASES = dict(
    zero_student=zero('student'),
    zero_teacher=zero('teacher'),
    zero_sides=zero('student, teacher'),
    all_zero=all_zero,
    identical=identical,
    opposite=opposite,
    large=large,
    short=short,
)


@pytest.mark.parametrize('way', ['plain', 'tiled'])
@pytest.mark.parametrize('with_queue', [False, True], ids=['batch', 'queue'])
@pytest.mark.parametrize(
    'dtype', [torch.float32, torch.float16, torch.bfloat16], ids=str
)
@pytest.mark.parametrize('case', CASES)
@pytest.mark.parametrize('name', LOSSES)
def test_at_the_edge(name, case, dtype, with_queue, way, monkeypatch):
    most = 2**60 if way == 'plain' else 0
    monkeypatch.setattr(functional, '_PLAIN_UP_TO', most)
    for tau in (0.005, 1.0):
        loss = LOSSES[name](tau)
        student, teacher = rows(0).to(dtype), rows(1).to(dtype)
        CASES[case](student, teacher)
        student.requires_grad_()
        queue = FeatureQueue(2 * NUM, DIM, DIM, dtype='float16')
        groups = torch.arange(NUM)
        # The second time the queue has the rows of the first.
        for _ in range(1 + with_queue):
            memory = queue.view() if with_queue else None
            value = loss(student, teacher, memory, groups)
            if isinstance(value, dict):
                value = sum(value.values())
            inputs = [student, *loss.parameters()]
            gradients = torch.autograd.grad(value, inputs)
            assert value.isfinite()
            for gradient in gradients:
                assert gradient.isfinite().all()
            queue.enqueue(student, teacher, groups)
        for buffer in [*loss.buffers(), *queue.buffers()]:
            assert buffer.isfinite().all()


@pytest.mark.parametrize('name', LOSSES)
def test_a_memory_of_zero_rows(name):
    student = rows(0).requires_grad_()
    zeros = torch.zeros(NUM, DIM)
    memory = Memory(zeros, zeros, torch.arange(NUM, 2 * NUM))
    value = LOSSES[name](0.005)(student, rows(1), memory, torch.arange(NUM))
    value = sum(value.values()) if isinstance(value, dict) else value
    (gradient,) = torch.autograd.grad(value, student)
    assert value.isfinite() and gradient.isfinite().all()


def test_a_zero_row_of_float16_has_a_direction_to_go():
    half = torch.zeros(2, 4, dtype=torch.float16, requires_grad=True)
    units = functional.unit_rows(half)
    (gradient,) = torch.autograd.grad(units[0, 1], half)
    assert units.eq(0).all()
    assert gradient.tolist() == [[0, 1, 0, 0], [0, 0, 0, 0]]


DENSE = dict(
    cells=dict(
        loss=dict(type='mmcmcd.CMCLoss', temperature=0.005),
        source_norm=dict(type='mmcmcd.Whiten', num_features=64),
    )
)


def train(run, mode, invalid, dense=False):
    """A real training on depth maps of which some hold no value at all."""
    for index in invalid:
        path = str(run.root / f'data/depth/{index}.png')
        cv2.imwrite(path, np.zeros((32, 32), np.uint16))
    config = str(run.config)
    cfg = load_config(config)
    minimum = 0.1 if mode == 'log' else 0.0
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        loader.batch_size = 8
        loader.dataset.pipeline.insert(
            -1,
            dict(
                type='mmcmcd.OnSide',
                sides='target',
                transforms=[
                    dict(
                        type='mmcmcd.NormalizeDepth',
                        mode=mode,
                        min_depth=minimum,
                    )
                ],
            ),
        )
    cfg.model.data_preprocessor.target.update(mean=[0.0], std=[1.0])
    if dense:
        cfg.model.dense = DENSE
    cfg = prepare_train_config(cfg, config, work_dir=str(run.work_dir))
    cfg.log_level = 'WARNING'
    cfg.experiment_name = run.root.name
    runner = build_runner(cfg)
    # Its NonFiniteGuardHook would stop it.
    runner.train()
    return runner


@pytest.mark.parametrize('mode', ['range', 'log', 'robust'])
@pytest.mark.parametrize('number', [3, 8], ids=['some', 'all'])
def test_depth_maps_without_a_value(tiny_run, mode, number):
    runner = train(tiny_run, mode, range(number), dense=number < 8)
    assert runner.iter == 2
    for name, value in runner.model.state_dict().items():
        assert value.isfinite().all(), name
    scalars = runner.message_hub.log_scalars
    losses = [key for key in scalars if key.startswith('train/loss')]
    assert len(losses) == 3 + (number < 8)
    for key in losses:
        assert all(map(math.isfinite, scalars[key].data[0])), key
    metric = scalars['val/retrieval/target2source_R@5'].data[0]
    assert len(metric) and np.isfinite(metric).all()


def test_nothing_to_compare_densely_is_told(tiny_run):
    with pytest.raises(ConfigError, match=r'no location of the batch has'):
        train(tiny_run, 'range', range(8), dense=True)
