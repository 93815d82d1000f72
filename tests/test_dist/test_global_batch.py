"""Processes that share a batch do what one process does with all of it."""

from datetime import timedelta

import pytest
import torch
from mmengine import dist
from torch import multiprocessing, nn
from torch.nn.parallel import DistributedDataParallel

from mmcmcd.models.distillers.source_norm import apply_source_norm
from mmcmcd.models.losses import (
    CMCDLoss,
    CMCLoss,
    CMDLoss,
    CRDLoss,
    FeatureL2Loss,
)
from mmcmcd.models.memory import FeatureQueue
from mmcmcd.models.utils import collectives

# Rows of each process; those of all always add up to the same.
SPLITS = {1: [12], 2: [7, 5], 3: [5, 4, 3]}
NUM_ROWS = 12
# As many times more rows are beyond what the losses do by plain formulas.
MANY = 60
STEPS = 3
TOLERANCES = dict(
    float64=(1e-10, dict(rtol=1e-9, atol=1e-10)),
    float32=(1e-5, dict(rtol=1e-4, atol=1e-5)),
)
LOSSES = dict(
    within=lambda: CMDLoss('within'),
    within_self=lambda: CMDLoss('within', include_self=True),
    cross=lambda: CMDLoss('cross', loss_weight=0.5),
    cmc=lambda: CMCLoss(),
    cmc_sharp=lambda: CMCLoss(temperature=0.005),
    cmc_one_way=lambda: CMCLoss(symmetric=False),
    cmc_learned=lambda: CMCLoss(learnable_temperature=True),
    cmc_learned_one_way=lambda: CMCLoss(
        symmetric=False, learnable_temperature=True
    ),
    cmcd=lambda: CMCDLoss(
        dict(form='within'), dict(learnable_temperature=True)
    ),
    cmcd_cross=lambda: CMCDLoss(dict(form='cross'), dict(loss_weight=2.0)),
    crd=lambda: CRDLoss(),
    l2=lambda: FeatureL2Loss(),
    l2_unit=lambda: FeatureL2Loss(normalize=True),
)
# name of the loss, groups, type of the memory, how many times the rows, type
CASES = [
    *(
        (name, groups, memory, 1, 'float64')
        for name in LOSSES
        for groups in (False, True)
        for memory in (None, 'float32')
    ),
    *((name, True, 'float32', MANY, 'float64') for name in LOSSES),
    *((name, True, 'float16', 1, 'float64') for name in ('cmcd', 'crd')),
    *((name, True, 'float32', 1, 'float32') for name in ('cmcd', 'crd')),
]


class Distiller(nn.Module):
    """A linear student and a loss, which together are what DDP wraps."""

    def __init__(self, loss):
        super().__init__()
        self.student = nn.Linear(6, 5)
        self.loss = loss

    def forward(self, inputs, teacher, memory, groups):
        student = self.student(inputs)
        value = self.loss(student, teacher, memory, groups)
        terms = value if isinstance(value, dict) else {'loss': value}
        return student, torch.stack([*terms.values()])


def train(case, sizes, rank):
    """Train some steps on a process's part of each batch.

    Returns:
        dict: The losses and the averaged gradient of each step; the queue.
    """
    name, with_groups, memory, times, dtype = case
    dtype = getattr(torch, dtype)
    sizes = [times * size for size in sizes]
    own = slice(sum(sizes[:rank]), sum(sizes[: rank + 1]))
    torch.manual_seed(0)
    model = Distiller(LOSSES[name]()).to(dtype)
    module = DistributedDataParallel(model) if dist.is_distributed() else model
    # Wraps at the second batch and is larger than a half of it.
    queue = FeatureQueue(NUM_ROWS * times * 3 // 2, 5, 5, memory or 'float32')
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    values, gradients = [], []
    # Without a memory one step is like the other.
    for _ in range(STEPS if memory else 1):
        inputs = torch.randn(sum(sizes), 6, dtype=dtype)
        teacher = torch.randn(sum(sizes), 5, dtype=dtype)
        # About two rows of a batch share one, over processes and steps.
        groups = torch.randint(sum(sizes) // 2, (sum(sizes),))
        student, losses = module(
            inputs[own],
            teacher[own],
            queue.view() if memory else None,
            groups[own] if with_groups else None,
        )
        queue.enqueue(student, teacher[own], groups[own])
        optimizer.zero_grad()
        losses.sum().backward()
        optimizer.step()
        values.append(losses.detach())
        gradients.append(
            torch.cat([p.grad.flatten() for p in model.parameters()])
        )
    return dict(
        values=torch.stack(values),
        gradients=torch.stack(gradients),
        queue=queue.state_dict(),
    )


def normalize(sizes, rank):
    """What a norm makes of a teacher's rows, in training and after it."""
    own = slice(sum(sizes[:rank]), sum(sizes[: rank + 1]))
    torch.manual_seed(0)
    rows = torch.randn(sum(sizes), 4, dtype=torch.double)
    norm = nn.BatchNorm1d(4, affine=False).double()
    in_training = apply_source_norm(norm, rows[own], 'source_norm')
    later = apply_source_norm(norm.eval(), rows[own], 'source_norm')
    return dict(in_training=in_training, later=later, state=norm.state_dict())


def gather(sizes, rank):
    """What the collectives make of numbers that tell where they are from."""
    own = slice(sum(sizes[:rank]), sum(sizes[: rank + 1]))
    numbers = torch.arange(sum(sizes))
    results = dict(
        sizes=collectives.batch_sizes(sizes[rank], 'cpu'),
        none=collectives.gather_rows(numbers[: 2 * rank]),
        largest=collectives.all_reduce(torch.tensor([-rank, rank]), 'max'),
        total=collectives.all_reduce(torch.tensor([1.5, rank]), 'sum'),
    )
    for dtype in DTYPES:
        rows = (numbers.view(-1, 1, 1) % torch.tensor([2, 3])).to(dtype)
        # Not contiguous; one more exchange where the sizes are not given.
        results[dtype] = collectives.gather_rows(
            rows.transpose(1, 2)[own], sizes if dtype.is_signed else None
        )
    rows = numbers[own, None].double().requires_grad_()
    everything = collectives.gather_rows_with_gradient(rows)
    (everything[:, 0] * (numbers + 1) * (rank + 1)).sum().backward()
    return dict(results, everything=everything.detach(), gradient=rows.grad)


DTYPES = [
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.uint8,
    torch.bool,
]


def work(rank, sizes, folder):
    """Do everything in one process of a group."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        'gloo',
        f'file://{folder}/meet',
        timedelta(seconds=60),
        rank=rank,
        world_size=len(sizes),
    )
    results = {case: train(case, sizes, rank) for case in CASES}
    results['norm'] = normalize(sizes, rank)
    results['gather'] = gather(sizes, rank)
    torch.save(results, f'{folder}/{rank}.pth')
    torch.distributed.destroy_process_group()


@pytest.fixture(scope='module', params=SPLITS, ids='{}_ranks'.format)
def ranks(request, tmp_path_factory):
    """Results of each process of one group."""
    sizes = SPLITS[request.param]
    folder = tmp_path_factory.mktemp('ranks')
    # Processes of a server that has imported what takes long.
    multiprocessing.set_forkserver_preload(['mmcmcd.models'])
    multiprocessing.start_processes(
        work, (sizes, folder), len(sizes), start_method='forkserver'
    )
    return [torch.load(folder / f'{i}.pth') for i in range(len(sizes))]


@pytest.fixture(scope='module')
def alone():
    """What one process makes of a case, without any group."""
    results = {}

    def get(case):
        if case not in results:
            results[case] = train(case, [NUM_ROWS], 0)
        return results[case]

    return get


@pytest.mark.parametrize(
    'case',
    CASES,
    ids=lambda c: f'{c[0]}-groups={c[1]}-memory={c[2]}-x{c[3]}-{c[4]}',
)
def test_losses_and_gradients_are_those_of_one_process(ranks, alone, case):
    expected = alone(case)
    results = [rank[case] for rank in ranks]
    mean = sum(result['values'] for result in results) / len(ranks)
    value, gradient = TOLERANCES[case[4]]
    torch.testing.assert_close(
        mean, expected['values'], rtol=value, atol=value
    )
    assert expected['gradients'].abs().max(dim=1).values.min() > 1e-4
    for result in results:
        torch.testing.assert_close(
            result['gradients'], expected['gradients'], **gradient
        )


def test_queues_are_equal_and_those_of_one_process(ranks, alone):
    case = next(case for case in CASES if case[2])
    expected = alone(case)['queue']
    assert int(expected['written']) == STEPS * NUM_ROWS
    for rank in ranks:
        for key, value in rank[case]['queue'].items():
            assert torch.equal(value, ranks[0][case]['queue'][key]), key
            torch.testing.assert_close(value, expected[key])


def test_norm_has_the_statistics_of_all_processes(ranks):
    expected = normalize([NUM_ROWS], 0)
    for key in ('in_training', 'later'):
        rows = torch.cat([rank['norm'][key] for rank in ranks])
        torch.testing.assert_close(rows, expected[key])
    for rank in ranks:
        for key, value in expected['state'].items():
            torch.testing.assert_close(rank['norm']['state'][key], value)


def test_rows_are_gathered_in_order_of_rank(ranks):
    numbers = torch.arange(NUM_ROWS)
    rows = numbers.view(-1, 1, 1) % torch.tensor([[2], [3]])
    for rank in ranks:
        results = rank['gather']
        assert results['sizes'] == SPLITS[len(ranks)]
        for dtype in DTYPES:
            assert results[dtype].dtype == dtype
            assert torch.equal(results[dtype], rows.to(dtype)), dtype
        assert results['none'].tolist() == [
            n for other in range(len(ranks)) for n in range(2 * other)
        ]
        assert results['everything'].tolist() == numbers[:, None].tolist()


def test_gathered_rows_bring_the_gradient_of_all_processes(ranks):
    gradient = torch.cat([rank['gather']['gradient'] for rank in ranks])
    from_all = sum(i + 1 for i in range(len(ranks)))
    expected = from_all * (torch.arange(NUM_ROWS) + 1.0)
    assert gradient[:, 0].tolist() == expected.tolist()


def test_numbers_are_reduced(ranks):
    last = len(ranks) - 1
    for rank in ranks:
        assert rank['gather']['largest'].tolist() == [0, last]
        assert rank['gather']['total'].tolist() == [
            1.5 * len(ranks),
            sum(range(len(ranks))),
        ]
