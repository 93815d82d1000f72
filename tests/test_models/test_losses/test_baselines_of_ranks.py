"""Losses of other methods in a process group: one batch, spread over two."""

from datetime import timedelta

import pytest
import torch
from mmengine import dist
from torch import multiprocessing, nn
from torch.nn.functional import normalize
from torch.nn.parallel import DistributedDataParallel

from mmcmcd.models.losses import (
    CMCDBlendLoss,
    CMDLoss,
    CosineLoss,
    CrossCLRLoss,
    Memory,
    PKTLoss,
    RKDLoss,
    SOCKETLoss,
    anchor_parts,
)

SIZES = [7, 5]
LOSSES = dict(
    cosine=lambda: CosineLoss(),
    rkd=lambda: RKDLoss(),
    pkt=lambda: PKTLoss(loss_weight=30000.0),
    seed=lambda: CMDLoss('cross', 0.01, 0.2, candidates='memory'),
    compress=lambda: CMDLoss('within', 0.04, 0.04, candidates='memory'),
    blend=lambda: CMCDBlendLoss(),
    crossclr=lambda: CrossCLRLoss(),
    socket=lambda: SOCKETLoss(),
)
# All anchors at once, and few at a time.
PARTS = [2**24, 64]


class Student(nn.Module):
    """Its BN layer sees rows, but does not change them.

    Otherwise the rows were those of the BN statistics of a process.
    """

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 5)
        self.norm = nn.BatchNorm1d(5)

    def forward(self, inputs):
        rows = self.layer(inputs)
        self.norm(rows)
        return rows


class Distiller(nn.Module):
    """What DDP wraps."""

    def __init__(self, loss):
        super().__init__()
        self.student = Student()
        self.student.norm.requires_grad_(False)
        self.loss = loss
        teacher = Student()
        teacher.norm.running_mean.normal_()
        if loss.watches_networks:
            loss.watch(self.student, teacher)

    def forward(self, inputs, teacher, memory, groups):
        if self.loss.watches_networks:
            with self.loss.watching():
                student = self.student(inputs)
        else:
            student = self.student(inputs)
        value = self.loss(student, teacher, memory, groups)
        return sum(value.values()) if isinstance(value, dict) else value


def step(name, numbers_at_once, own):
    """Value of the own part of a batch, and the averaged gradient."""
    anchor_parts._NUMBERS_AT_ONCE = numbers_at_once
    torch.manual_seed(0)
    model = Distiller(LOSSES[name]()).double()
    rows = torch.randn(2, 9, 5, dtype=torch.double)
    memory = Memory(*normalize(rows, dim=2), torch.randint(8, (9,)))
    inputs = torch.randn(sum(SIZES), 6, dtype=torch.double)
    teacher = torch.randn(sum(SIZES), 5, dtype=torch.double)
    groups = torch.randint(8, (sum(SIZES),))
    module = DistributedDataParallel(model) if dist.is_distributed() else model
    value = module(inputs[own], teacher[own], memory, groups[own])
    value.backward()
    return value.detach(), model.student.layer.weight.grad


CASES = [(name, parts) for name in LOSSES for parts in PARTS]


def work(rank, folder):
    """Do everything in one process of a group."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        'gloo',
        f'file://{folder}/meet',
        timedelta(seconds=60),
        rank=rank,
        world_size=len(SIZES),
    )
    start = sum(SIZES[:rank])
    own = slice(start, start + SIZES[rank])
    torch.save({c: step(*c, own) for c in CASES}, f'{folder}/{rank}.pth')
    torch.distributed.destroy_process_group()


@pytest.fixture(scope='module')
def ranks(tmp_path_factory):
    """Results of each process of one group."""
    folder = tmp_path_factory.mktemp('ranks')
    multiprocessing.set_forkserver_preload(['mmcmcd.models'])
    multiprocessing.start_processes(
        work, (folder,), len(SIZES), start_method='forkserver'
    )
    return [torch.load(folder / f'{i}.pth') for i in range(len(SIZES))]


@pytest.mark.parametrize(
    'case', CASES, ids=lambda c: f'{c[0]}-{"parts" if c[1] < 100 else "whole"}'
)
def test_values_and_gradients_are_those_of_one_process(
    ranks, case, monkeypatch
):
    monkeypatch.setattr(anchor_parts, '_NUMBERS_AT_ONCE', case[1])
    value, gradient = step(*case, slice(None))
    results = [rank[case] for rank in ranks]
    mean = sum(result[0] for result in results) / len(results)
    torch.testing.assert_close(mean, value, rtol=1e-10, atol=1e-10)
    assert gradient.abs().max() > 1e-4
    for _, averaged in results:
        torch.testing.assert_close(averaged, gradient, rtol=1e-9, atol=1e-10)
