import copy
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from conftest import REPO, process_env, run_command
from mmengine.model import MMDistributedDataParallel
from mmengine.registry import init_default_scope
from torch import nn

from mmcmcd.errors import ConfigError
from mmcmcd.models.distillers import gradient_cache
from mmcmcd.models.distillers.gradient_cache import embed_in_chunks
from mmcmcd.registry import MODELS

WIDTH = 16


@pytest.fixture(autouse=True)
def _scope():
    init_default_scope('mmpretrain')


class Recorder(nn.Module):
    """Notes how many images it gets at once."""

    def __init__(self):
        super().__init__()
        self.sizes = []

    def forward(self, images):
        self.sizes.append(len(images))
        return images


def small_net(norm=nn.BatchNorm2d, dropout=0.0):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), norm(8), nn.ReLU(), nn.Dropout(dropout)
    ).append(nn.Conv2d(8, WIDTH, 3, stride=2))


def chunk_by_chunk(net, images, num_chunks):
    """What accumulation does: batch statistics are those of a chunk."""
    rows = [net(c).mean((2, 3)) for c in images.tensor_split(num_chunks)]
    return torch.cat(rows)


def gradients(net, rows):
    """Gradients of a loss that needs all rows at once."""
    rows = nn.functional.normalize(rows, dim=1)
    loss = (rows @ rows.T).logsumexp(1).mean()
    return torch.autograd.grad(loss, [*net.parameters()])


def assert_equal(actual, expected):
    for ours, theirs in zip(actual, expected, strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    ('num', 'size', 'expected'),
    [
        (8, None, [8]),
        (8, 8, [8]),
        (8, 100, [8]),
        (8, 3, [3, 3, 2]),
        (9, 4, [3, 3, 3]),
        (5, 4, [3, 2]),
        (3, 2, [3]),
        (7, 2, [3, 2, 2]),
    ],
)
def test_chunks_are_even_and_none_is_a_single_image(num, size, expected):
    net = Recorder()
    images = torch.randn(num, 5)
    assert torch.equal(embed_in_chunks(net, images, size), images)
    assert net.sizes == expected


def test_dropout_and_batch_statistics_are_those_of_accumulation():
    images = torch.randn(7, 3, 9, 9)
    ours, theirs = (small_net(dropout=0.5) for _ in range(2))
    torch.manual_seed(3)
    expected = gradients(theirs, chunk_by_chunk(theirs, images, 3))
    state = torch.get_rng_state()
    torch.manual_seed(3)
    rows = embed_in_chunks(ours, images, 3)
    assert_equal(gradients(ours, rows), expected)
    # The repeated draws take nothing from those to come.
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize('momentum', [0.1, None])
def test_running_statistics_move_once_per_chunk(momentum):
    norm = partial(nn.BatchNorm2d, momentum=momentum)
    ours, theirs = small_net(norm), small_net(norm)
    buffers = [id(buffer) for buffer in ours.buffers()]
    for seed in range(2):
        torch.manual_seed(seed)
        images = torch.randn(8, 3, 9, 9)
        rows = embed_in_chunks(ours, images, 4)
        assert_equal(
            gradients(ours, rows),
            gradients(theirs, chunk_by_chunk(theirs, images, 2)),
        )
    assert int(ours[1].num_batches_tracked) == 4
    assert_equal(ours.buffers(), theirs.buffers())
    assert [id(buffer) for buffer in ours.buffers()] == buffers


@pytest.mark.parametrize(
    'norm', [nn.utils.spectral_norm, nn.utils.parametrizations.spectral_norm]
)
def test_buffers_that_enter_the_features_are_those_of_the_first_pass(norm):
    nets = [small_net() for _ in range(2)]
    for net in nets:
        torch.manual_seed(1)
        norm(net[-1])
    ours, theirs = nets
    for seed in range(2):
        torch.manual_seed(seed)
        images = torch.randn(8, 3, 9, 9)
        expected = chunk_by_chunk(theirs, images, 3)
        rows = embed_in_chunks(ours, images, 3)
        assert torch.equal(rows, expected)
        after = copy.deepcopy([*ours.buffers()])
        assert_equal(gradients(ours, rows), gradients(theirs, expected))
        assert_equal(ours.buffers(), after)
        assert_equal(ours.buffers(), theirs.buffers())


def test_gradients_may_be_asked_for_twice():
    net = small_net()
    nn.utils.parametrizations.spectral_norm(net[-1])
    rows = embed_in_chunks(net, torch.randn(8, 3, 9, 9), 4)
    before = copy.deepcopy([*net.buffers()])
    rows.sum().backward(retain_graph=True)
    once = [p.grad.clone() for p in net.parameters()]
    rows.sum().backward()
    assert_equal([p.grad for p in net.parameters()], [2 * g for g in once])
    assert_equal(net.buffers(), before)


def test_mixed_precision_is_repeated_as_it_was():
    images = torch.randn(8, 3, 9, 9)
    ours, theirs = small_net(), small_net()
    with torch.autocast('cpu', torch.bfloat16):
        rows = embed_in_chunks(ours, images, 4)
        expected = chunk_by_chunk(theirs, images, 2)
    assert rows.dtype == torch.bfloat16
    assert torch.equal(rows, expected)
    # Outside of autocast, as in training.
    assert_equal(
        gradients(ours, rows.float()), gradients(theirs, expected.float())
    )


def test_a_compiled_model_may_have_chunks():
    torch._dynamo.reset()
    compiled = torch.compile(embed_in_chunks, backend='aot_eager')
    images = torch.randn(8, 3, 9, 9)
    ours, theirs = small_net(), small_net()
    expected = gradients(theirs, chunk_by_chunk(theirs, images, 2))
    actual = gradients(ours, compiled(ours, images, 4))
    torch.testing.assert_close(actual, expected)
    torch.testing.assert_close([*ours.buffers()], [*theirs.buffers()])


def test_nothing_is_repeated_where_nothing_is_saved(monkeypatch):
    monkeypatch.setattr(gradient_cache, 'checkpoint', None)
    net = small_net().eval()
    images = torch.randn(8, 3, 9, 9)
    expected = net(images).mean((2, 3))
    with torch.no_grad():
        torch.testing.assert_close(embed_in_chunks(net, images, 3), expected)
    assert torch.equal(embed_in_chunks(net, images, 8), expected)


def backbone(norm, **kwargs):
    return dict(
        type='ResNet',
        depth=18,
        base_channels=8,
        stem_channels=8,
        norm_cfg=norm,
        **kwargs,
    )


GROUP_NORM = dict(type='GN', num_groups=2)
CMCD = dict(cmcd=dict(type='mmcmcd.CMCDLoss', cmd=dict(), cmc=dict()))


def distiller(root, chunk_size, norm=GROUP_NORM):
    torch.manual_seed(0)
    net = backbone(norm)
    path = str(root / 'teacher.pth')
    torch.save(MODELS.build(net).state_dict(), path)
    init_cfg = dict(type='Pretrained', checkpoint=path)
    model = MODELS.build(
        dict(
            type='mmcmcd.CrossModalDistiller',
            teacher=dict(net, init_cfg=init_cfg),
            source_norm=dict(type='BN1d', num_features=64, affine=False),
            student=dict(net, in_channels=1),
            student_projector=dict(
                type='LinearNeck', in_channels=64, out_channels=64
            ),
            losses=CMCD,
            forward_chunk_size=chunk_size,
        )
    )
    model.init_weights()
    return model.double()


def batch(num, seed=0):
    gen = torch.Generator().manual_seed(seed)
    draw = partial(torch.randn, generator=gen, dtype=torch.float64)
    return dict(source=draw(num, 3, 32, 32), target=draw(num, 1, 32, 32))


def loss_and_gradients(model, inputs, network=None):
    terms = (network or model)(inputs, mode='loss')
    loss = sum(terms.values())
    loss.backward()
    return [loss.detach(), *(p.grad for p in model.parameters())]


@pytest.mark.parametrize('norm', [GROUP_NORM, dict(type='BN')])
def test_a_distiller_learns_the_same_in_chunks(tmp_path, norm):
    inputs = batch(8)
    results = []
    for chunk_size in (None, 3):
        model = distiller(tmp_path, chunk_size, norm)
        # A batch normalisation must not see which images come together.
        model.train(norm == GROUP_NORM)
        results.append(loss_and_gradients(model, inputs))
    torch.testing.assert_close(*results, rtol=1e-10, atol=1e-10)


def test_several_students_learn_the_same_in_chunks(tmp_path):
    torch.manual_seed(0)
    net = dict(
        type='mmcmcd.TemporalConvNet', in_channels=4, channels=(8, WIDTH)
    )
    path = str(tmp_path / 'teacher.pth')
    torch.save(MODELS.build(net).state_dict(), path)
    init_cfg = dict(type='Pretrained', checkpoint=path)
    inputs = {s: torch.randn(8, 4, 20).double() for s in 'abc'}
    results = []
    for chunk_size in (None, 3):
        torch.manual_seed(1)
        model = MODELS.build(
            dict(
                type='mmcmcd.MultiModalDistiller',
                teachers=dict(a=dict(backbone=dict(net, init_cfg=init_cfg))),
                students=dict(b=net, c=net),
                lessons={
                    f'to_{s}': dict(teacher='a', student=s, losses=CMCD)
                    for s in 'bc'
                },
                forward_chunk_size=chunk_size,
            )
        )
        model.init_weights()
        results.append(loss_and_gradients(model.double().eval(), inputs))
    torch.testing.assert_close(*results, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize('size', [1, 0, -4, 2.0, '8', True])
def test_what_is_no_number_of_pairs_is_named(tmp_path, size):
    with pytest.raises(ConfigError, match='forward_chunk_size.*>= 2, got'):
        distiller(tmp_path, size)


def in_own_process(call):
    """The command that calls a function of this module."""
    return [sys.executable, '-c', f'import test_gradient_cache as t; t.{call}']


def path_to_here():
    parts = [REPO, REPO / 'tests', REPO / 'tests' / 'test_models']
    return ':'.join(map(str, parts))


def test_two_processes_agree_with_and_without_chunks(tmp_path):
    ranks = []
    for rank in range(2):
        (tmp_path / str(rank)).mkdir()
        call = f'run_rank({str(tmp_path)!r}, {rank})'
        env = process_env(PYTHONPATH=path_to_here())
        ranks.append(subprocess.Popen(in_own_process(call), env=env))
    assert [each.wait(timeout=60) for each in ranks] == [0, 0]
    plain, chunked = torch.load(tmp_path / '0' / 'gradients.pth')
    torch.testing.assert_close(chunked, plain, rtol=1e-10, atol=1e-10)
    _, other = torch.load(tmp_path / '1' / 'gradients.pth')
    for ours, theirs in zip(chunked[1:], other[1:], strict=True):
        assert torch.equal(ours, theirs)


def run_rank(root, rank):
    """Write the averaged gradients without and with chunks."""
    init_default_scope('mmpretrain')
    torch.distributed.init_process_group(
        'gloo', f'file://{root}/store', rank=rank, world_size=2
    )
    folder = Path(root) / str(rank)
    results = []
    for chunk_size in (None, 2):
        model = distiller(folder, chunk_size)
        wrapped = MMDistributedDataParallel(model)
        inputs = batch(5, seed=rank)
        results.append(loss_and_gradients(model, inputs, wrapped))
    torch.save(results, folder / 'gradients.pth')
    torch.distributed.destroy_process_group()


@pytest.mark.skipif(
    not Path('/proc/self/status').exists(),
    reason='needs the peak memory that Linux keeps of a process',
)
def test_memory_does_not_grow_with_the_batch():
    result = run_command(
        in_own_process('print_peaks()'), PYTHONPATH=path_to_here()
    )
    assert result.returncode == 0, result.stderr
    few, many, few_at_once, many_at_once = map(int, result.stdout.split())
    assert few < many_at_once
    assert many - few < (many_at_once - few_at_once) / 10


def print_peaks():
    """Print the peak of resident memory after steps of growing appetite."""
    layers = [nn.Sequential(nn.GroupNorm(2, 16), nn.GELU()) for _ in range(6)]
    net = nn.Sequential(nn.Conv2d(1, 16, 3), *layers)
    for chunk_size in (16, None):
        for num in (64, 256):
            images = torch.randn(num, 1, 32, 32)
            gradients(net, embed_in_chunks(net, images, chunk_size))
            # Unlike ru_maxrss, which is at least what the parent had.
            status = Path('/proc/self/status').read_text()
            print(re.search(r'VmHWM:\s+(\d+) kB', status)[1])
