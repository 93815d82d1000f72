"""Prototypes and whitening of several processes are those of one."""

from datetime import timedelta

import pytest
import torch
from mmengine import dist
from torch import multiprocessing, nn
from torch.nn.parallel import DistributedDataParallel

from mmcmcd.models.distillers import Whiten
from mmcmcd.models.distillers.source_norm import apply_source_norm
from mmcmcd.models.losses import PrototypeLoss

SIZES = [7, 5]
STEPS = 4


class Distiller(nn.Module):
    """A linear student, a norm and a loss, which are what DDP wraps."""

    def __init__(self):
        super().__init__()
        self.student = nn.Linear(6, 5)
        self.norm = Whiten(5)
        self.loss = PrototypeLoss(5, 4)

    def forward(self, inputs, teacher):
        teacher = apply_source_norm(self.norm, teacher, 'source_norm')
        return self.loss(self.student(inputs), teacher)


def train(sizes, rank):
    """Values and averaged gradients of some steps, and the last state."""
    own = slice(sum(sizes[:rank]), sum(sizes[: rank + 1]))
    data = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    model = Distiller().double()
    module = model
    if dist.is_distributed():
        module = DistributedDataParallel(model, broadcast_buffers=False)
    torch.manual_seed(rank)  # every process draws other numbers
    values, gradients = [], []
    for _ in range(STEPS):
        inputs, teacher = (
            torch.randn(sum(sizes), dim, generator=data, dtype=torch.double)
            for dim in (6, 5)
        )
        model.zero_grad()
        value = module(inputs[own], teacher[own])
        value.backward()
        values.append(value.detach())
        gradients.append(
            torch.cat([p.grad.flatten() for p in model.parameters()])
        )
    return dict(
        values=torch.stack(values),
        gradients=torch.stack(gradients),
        state={k: v.clone() for k, v in model.named_buffers()},
    )


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
    torch.save(train(SIZES, rank), f'{folder}/{rank}.pth')
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


def test_steps_are_those_of_one_process(ranks):
    expected = train([sum(SIZES)], 0)
    mean = sum(rank['values'] for rank in ranks) / len(ranks)
    torch.testing.assert_close(mean, expected['values'])
    assert expected['gradients'].abs().max() > 1e-3
    for rank in ranks:
        torch.testing.assert_close(rank['gradients'], expected['gradients'])
        torch.testing.assert_close(rank['state'], expected['state'])
