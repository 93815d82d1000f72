"""Dense comparisons of processes that share a batch are those of one."""

from datetime import timedelta

import pytest
import torch
from mmengine import dist
from torch import multiprocessing
from torch.nn.parallel import DistributedDataParallel

from mmcmcd.models.distillers import DenseComparison

SPLITS = {2: [4, 2], 3: [3, 1, 2]}
NUM_IMAGES = 6
CMC = dict(type='mmcmcd.CMCLoss')
LOSSES = dict(
    cmc=CMC,
    within=dict(type='mmcmcd.CMDLoss', form='within'),
    cross=dict(type='mmcmcd.CMDLoss', form='cross'),
    crd=dict(type='mmcmcd.CRDLoss'),
    l2=dict(type='mmcmcd.FeatureL2Loss'),
)
# loss, options, groups of the images
CASES = {
    f'{name}-{candidates}-{radius}-{"groups" if groups else "alone"}': (
        loss,
        dict(candidates=candidates, exclusion_radius=radius),
        groups,
    )
    for name, loss in LOSSES.items()
    for candidates in ('batch', 'image', 'others')
    for radius in (0, 1)
    # Images of one group are in different processes, too.
    for groups in (None, [5, 6, 5, 5, 6, 7])
    if candidates != 'others' or not radius
    # It has no candidates to choose from.
    if name != 'l2' or (candidates == 'batch' and not radius)
}


def compare(case, sizes, rank):
    """Value and averaged gradients of a process's part of a batch."""
    loss, options, groups = CASES[case]
    own = slice(sum(sizes[:rank]), sum(sizes[: rank + 1]))
    torch.manual_seed(0)
    module = DenseComparison(
        'cells',
        loss,
        projector=dict(
            type='Conv2d', in_channels=3, out_channels=4, kernel_size=1
        ),
        source_norm=dict(type='mmcmcd.Center', num_features=4),
        **options,
    ).double()
    student = torch.randn(NUM_IMAGES, 3, 3, 3, dtype=torch.double)
    teacher = torch.randn(NUM_IMAGES, 4, 3, 3, dtype=torch.double)
    valid = torch.rand(NUM_IMAGES, 1, 3, 3) > 0.2
    call = DistributedDataParallel(module) if dist.is_distributed() else module
    (value,) = call(
        student[own],
        teacher[own],
        None if groups is None else torch.tensor(groups)[own],
        valid[own],
    ).values()
    value.backward()
    gradient = torch.cat([p.grad.flatten() for p in module.parameters()])
    return dict(
        value=value.detach(), gradient=gradient, state=module.state_dict()
    )


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
    results = {case: compare(case, sizes, rank) for case in CASES}
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


@pytest.mark.parametrize('case', CASES)
def test_value_and_gradient_are_those_of_one_process(ranks, case):
    expected = compare(case, [NUM_IMAGES], 0)
    mean = sum(rank[case]['value'] for rank in ranks) / len(ranks)
    torch.testing.assert_close(mean, expected['value'])
    assert expected['gradient'].abs().max() > 1e-4
    for rank in ranks:
        torch.testing.assert_close(
            rank[case]['gradient'], expected['gradient']
        )
        torch.testing.assert_close(
            rank[case]['state']['source_norm.running_mean'],
            expected['state']['source_norm.running_mean'],
        )
