"""What differs on a GPU: moves of the teacher, mixed precision, losses."""

import pytest
import torch
from mmengine.optim import AmpOptimWrapper
from mmengine.registry import init_default_scope
from mmpretrain.structures import DataSample

from mmcmcd.models.distillers import DenseComparison
from mmcmcd.models.losses import (
    CMCLoss,
    CMDLoss,
    CRDLoss,
    Memory,
    PrototypeLoss,
    functional,
)
from mmcmcd.models.losses.functional import unit_rows
from mmcmcd.models.losses.tiled import tiles
from mmcmcd.models.memory import FeatureQueue
from mmcmcd.registry import MODELS

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason='needs CUDA'),
]

MIB = 2**20
LOSSES = dict(
    within=lambda: CMDLoss('within'),
    cross=lambda: CMDLoss('cross'),
    one_way=lambda: CMCLoss(symmetric=False),
    two_way=lambda: CMCLoss(),
    sharp=lambda: CMCLoss(0.01),
    trained=lambda: CMCLoss(learnable_temperature=True),
    crd=lambda: CRDLoss(),
)


@pytest.mark.parametrize(
    'name', ['within', 'cross', 'two_way', 'trained', 'crd']
)
def test_losses_equal_the_cpu(name):
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 256, 128)
    values, grads = [], []
    for device in ('cpu', 'cuda'):
        loss = LOSSES[name]().to(device)
        inputs = student.to(device).requires_grad_(), *loss.parameters()
        value = loss(inputs[0], teacher.to(device))
        values.append(value.detach().cpu())
        grads.append([x.cpu() for x in torch.autograd.grad(value, inputs)])
    torch.testing.assert_close(*values, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(*grads, rtol=1e-3, atol=1e-6)


def take(way, monkeypatch):
    """Let the losses be plain or tiled, whatever the size of the problem."""
    most = 2**60 if way == 'plain' else 0
    monkeypatch.setattr(functional, '_PLAIN_UP_TO', most)


@pytest.mark.parametrize('name', LOSSES)
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
@pytest.mark.parametrize('tile', [None, (200, 300)])
def test_tiles_equal_the_plain_formulas(name, dtype, tile, monkeypatch):
    """Of the size in use, which 9,000 rows exceed, and of a small one."""
    if tile is not None:
        monkeypatch.setattr(tiles, 'choose_tile', lambda *_: tile)
    batch, queue = (9000, 3000) if tile is None else (700, 1000)
    torch.manual_seed(0)
    student, teacher = torch.randn(2, batch, 64, device='cuda').to(dtype)
    student.requires_grad_()
    memory = Memory(
        unit_rows(torch.randn(queue, 64, device='cuda')),
        unit_rows(torch.randn(queue, 64, device='cuda')).half(),
        torch.arange(queue, device='cuda'),
    )
    groups = torch.arange(batch, device='cuda') // 2
    loss = LOSSES[name]().cuda()
    inputs = student, *loss.parameters()
    values, gradients = [], []
    for way in ('plain', 'tiled'):
        take(way, monkeypatch)
        value = loss(student, teacher, memory, groups)
        values.append(value.detach())
        gradients.append(torch.autograd.grad(value, inputs))
    assert values[0].dtype == torch.float32
    torch.testing.assert_close(*values, rtol=1e-5, atol=1e-5)
    # Rows in bfloat16 take gradients that are rounded to it.
    bound = 1e-4 if dtype == torch.float32 else torch.finfo(dtype).eps
    for plain, by_tiles in zip(*gradients, strict=True):
        error = (plain.float() - by_tiles.float()).abs().max()
        assert error < bound * plain.abs().max()


@pytest.fixture
def syncs_are_errors():
    yield lambda: torch.cuda.set_sync_debug_mode('error')
    torch.cuda.set_sync_debug_mode('default')


@pytest.mark.parametrize('name', LOSSES)
@pytest.mark.parametrize('way', ['plain', 'tiled'])
@pytest.mark.parametrize('dtype', ['float32', 'float16'])
def test_a_step_with_a_queue_never_waits_for_the_gpu(
    name, way, dtype, monkeypatch, syncs_are_errors
):
    take(way, monkeypatch)
    loss = LOSSES[name]().cuda()
    queue = FeatureQueue(150, 32, 32, dtype).cuda()
    batches = [torch.randn(2, 64, 32, device='cuda') for _ in range(6)]
    ids = torch.arange(64, device='cuda')

    def step(student, teacher):
        student = student.detach().requires_grad_()
        value = loss(student, teacher, queue.view(), ids)
        queue.enqueue(student, teacher, ids)
        return torch.autograd.grad(value, (student, *loss.parameters()))

    step(*batches[0])  # loads what is loaded once
    syncs_are_errors()
    # The queue fills up, and starts anew within a batch.
    gradients = [step(*batch) for batch in batches]
    torch.cuda.set_sync_debug_mode('default')
    assert all(grad.isfinite().all() for step in gradients for grad in step)
    assert len(queue) == 150


def peak(name, batch, dim, memory=None):
    """Peak above the inputs in bytes, forward and backward."""
    student = torch.randn(batch, dim, device='cuda', requires_grad=True)
    teacher = torch.randn(batch, dim, device='cuda')
    groups = torch.arange(batch, device='cuda')
    loss = LOSSES[name]().cuda()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    loss(student, teacher, memory, groups).backward()
    return torch.cuda.max_memory_allocated() - before


@pytest.mark.parametrize('name', LOSSES)
def test_memory_is_linear_in_the_batch(name):
    """Tiles of 256 MiB, where a matrix of scores would take 16 GiB."""
    peak(name, 1024, 64)  # the workspace of the matrix products
    small, large = (peak(name, batch, 64) for batch in (16384, 65536))
    assert large <= 1.5 * small
    assert large < 1536 * MIB


@pytest.mark.parametrize('name', LOSSES)
def test_memory_is_flat_in_the_queue(name):
    """Scores of 1,000,000 rows would take 977 MiB, and a copy as much."""
    memory = Memory(
        *(
            unit_rows(torch.randn(1_000_000, 64, device='cuda')).half()
            for _ in range(2)
        ),
        torch.arange(1_000_000, device='cuda'),
    )
    peak(name, 1024, 64)
    assert peak(name, 256, 64, memory) < 768 * MIB


DENSE = dict(
    batch=dict(),
    radius=dict(exclusion_radius=1),
    image=dict(candidates='image'),
    others=dict(candidates='others'),
    drawn=dict(locations_per_image=200),
    whitened=dict(source_norm=dict(type='mmcmcd.Whiten', num_features=64)),
    prototypes=dict(loss=dict(type='mmcmcd.PrototypeLoss', num_features=64)),
)


def compare_maps(name, device, images=4, height=15, width=20):
    """Loss and gradient of a dense comparison with holes."""
    init_default_scope('mmpretrain')
    cells = dict(
        loss=dict(type='mmcmcd.CMCLoss', temperature=0.1),
        source_norm=dict(type='mmcmcd.Center', num_features=64),
    )
    dense = DenseComparison('cells', **(cells | DENSE[name])).to(device)
    gen = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(
        2, images, 64, height, width, generator=gen
    ).to(device)
    student.requires_grad_()
    valid = torch.rand(images, 1, height, width, generator=gen) > 0.1
    groups = torch.arange(images) // 2
    (value,) = dense(
        student, teacher, groups.to(device), valid.to(device)
    ).values()
    (gradient,) = torch.autograd.grad(value, student)
    return value.detach().cpu(), gradient.cpu()


# Random draws differ between devices.
@pytest.mark.parametrize(
    'name', ['batch', 'radius', 'image', 'others', 'whitened']
)
def test_dense_comparisons_equal_the_cpu(name):
    values, gradients = zip(
        *(compare_maps(name, device) for device in ('cpu', 'cuda')),
        strict=True,
    )
    torch.testing.assert_close(*values, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(*gradients, rtol=1e-2, atol=1e-6)


@pytest.mark.parametrize('name', DENSE)
def test_dense_memory_is_linear_in_the_images(name):
    """Of 307,200 cells a matrix of scores would take 352 GiB."""
    compare_maps(name, 'cuda')
    torch.cuda.reset_peak_memory_stats()
    _, gradient = compare_maps(name, 'cuda', 256, 30, 40)
    assert gradient.isfinite().all()
    # Maps, rows and gradients are 75 MiB each.
    assert torch.cuda.max_memory_allocated() < 4096 * MIB


@pytest.mark.parametrize('way', ['plain', 'tiled'])
def test_prototypes_never_wait_for_the_gpu(way, monkeypatch, syncs_are_errors):
    take(way, monkeypatch)
    loss = PrototypeLoss(32, 16).cuda()
    batches = [torch.randn(2, 64, 32, device='cuda') for _ in range(4)]

    def step(student, teacher):
        student = student.detach().requires_grad_()
        return torch.autograd.grad(loss(student, teacher), student)[0]

    step(*batches[0])  # loads what is loaded once
    syncs_are_errors()
    gradients = [step(*batch) for batch in batches]
    torch.cuda.set_sync_debug_mode('default')
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert loss.counts.sum() == pytest.approx(64, rel=1e-3)


@pytest.mark.parametrize('name', ['prototypes', 'whitened'])
def test_state_that_is_learnt_equals_the_cpu(name):
    """From equal states, whatever was drawn before."""
    torch.manual_seed(0)
    module = (
        PrototypeLoss(32, 16)
        if name == 'prototypes'
        else MODELS.build(dict(type='mmcmcd.Whiten', num_features=32))
    )
    call = module if name == 'whitened' else lambda rows: module(rows, rows)
    for _ in range(3):
        call(torch.randn(300, 32))
    rows = torch.randn(300, 32)
    module.eval()
    expected = call(rows)
    module.cuda()
    torch.testing.assert_close(
        call(rows.cuda()).cpu(), expected, rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize('dtype', ['float16', 'bfloat16'])
def test_mixed_precision_training_learns_and_spares_the_teacher(
    tmp_path, dtype
):
    init_default_scope('mmpretrain')
    torch.manual_seed(0)
    net = dict(type='ResNet', depth=18)
    path = str(tmp_path / 'teacher.pth')
    torch.save(
        {
            f'backbone.{k}': v
            for k, v in MODELS.build(net).state_dict().items()
        },
        path,
    )
    init_cfg = dict(type='Pretrained', checkpoint=path, prefix='backbone.')
    model = MODELS.build(
        dict(
            type='mmcmcd.CrossModalDistiller',
            teacher=dict(net, init_cfg=init_cfg),
            student=dict(net, in_channels=1),
            losses=dict(
                cmcd=dict(type='mmcmcd.CMCDLoss', cmd=dict(), cmc=dict())
            ),
            data_preprocessor=dict(
                type='mmcmcd.PairedDataPreprocessor',
                source=dict(mean=[0.5] * 3, std=[0.25] * 3),
                target=dict(mean=[0.5], std=[0.25]),
            ),
        )
    )
    model.init_weights()
    model = model.cuda().train()
    before = model.teacher.state_hash()
    optim_wrapper = AmpOptimWrapper(
        optimizer=torch.optim.AdamW(model.parameters(), lr=1e-3), dtype=dtype
    )
    source = torch.rand(32, 3, 96, 128)
    batch = dict(
        inputs=dict(source=source, target=source.mean(1, keepdim=True)),
        data_samples=[
            DataSample(metainfo=dict(group_index=i)) for i in range(32)
        ],
    )
    losses = [
        float(model.train_step(batch, optim_wrapper)['loss'])
        for _ in range(20)
    ]
    assert all(torch.tensor(losses).isfinite())
    assert losses[-1] < losses[0] - 0.5
    assert model.teacher.state_hash() == before
    device = next(model.teacher.module.parameters()).device
    assert device.type == 'cuda'
