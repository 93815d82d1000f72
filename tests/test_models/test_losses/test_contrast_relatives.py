"""CMCDBlendLoss and CrossCLRLoss against loops and their limits."""

import pytest
import torch
from torch.nn.functional import normalize

from mmcmcd.errors import ConfigError
from mmcmcd.models.losses import (
    CMCDBlendLoss,
    CMCLoss,
    CrossCLRLoss,
    Memory,
    anchor_parts,
    functional,
)
from mmcmcd.models.losses.tiled import tiles
from mmcmcd.registry import MODELS

GROUPS = torch.tensor([0, 1, 1, 3, 9, 9])
LOSSES = dict(blend=CMCDBlendLoss, crossclr=CrossCLRLoss)


@pytest.fixture(autouse=True, params=['whole', 'parts'])
def parts(request, monkeypatch):
    """All similarities at once, and some at a time."""
    if request.param == 'parts':
        monkeypatch.setattr(anchor_parts, '_NUMBERS_AT_ONCE', 40)
        monkeypatch.setattr(functional, '_PLAIN_UP_TO', 0)
        monkeypatch.setattr(tiles, 'choose_tile', lambda *_: (4, 3))


def draw(*shape, seed=0):
    gen = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=gen, dtype=torch.float64)


def make_rows():
    return draw(6, 4).requires_grad_(), draw(6, 4, seed=9)


def make_memory():
    rows = normalize(draw(2, 5, 4, seed=5), dim=2)
    return Memory(*rows, torch.tensor([1, 2, 9, 9, 7]))


def each_case():
    return pytest.mark.parametrize(
        'with_memory,groups',
        [(False, None), (True, None), (False, GROUPS), (True, GROUPS)],
        ids=['plain', 'memory', 'groups', 'both'],
    )


def check_equal(ours, reference, student):
    torch.testing.assert_close(ours, reference, rtol=0, atol=1e-9)
    grad = torch.autograd.grad(ours, student)[0]
    expected = torch.autograd.grad(reference, student)[0]
    torch.testing.assert_close(grad, expected, rtol=0, atol=1e-8)
    assert expected.abs().max() > 1e-3


def kept(i, memory, groups):
    """Rows of the batch and of the memory that anchor i keeps."""
    batch = [
        j
        for j in range(6)
        if i == j or groups is None or groups[i] != groups[j]
    ]
    stored = [] if memory is None else range(len(memory.group_ids))
    stored = [
        k for k in stored if groups is None or groups[i] != memory.group_ids[k]
    ]
    return batch, stored


def naive_blend(student, teacher, alpha, tau, tau_t, memory, groups):
    """Number by number."""
    s, t = normalize(student), normalize(teacher)
    total = 0.0
    for i in range(6):
        batch, stored = kept(i, memory, groups)
        for anchor, others, extra in (
            (s[i], t, [memory.teacher[k] for k in stored]),
            (t[i], s, []),
        ):
            scores = [anchor @ others[j] / tau for j in batch]
            scores += [anchor @ row / tau for row in extra]
            targets = [(t[i] @ t[j] / tau_t).exp() for j in batch]
            targets += [(t[i] @ row / tau_t).exp() for row in extra]
            norm = sum(x.exp() for x in scores).log()
            for n, (x, y) in enumerate(zip(scores, targets, strict=True)):
                is_own = n < len(batch) and batch[n] == i
                target = alpha * y / sum(targets) + (1 - alpha) * is_own
                total = total - target * (x - norm) / 2
    return total / 6


@pytest.mark.parametrize('alpha', [0.0, 0.4, 1.0])
@each_case()
def test_blend_equals_naive(alpha, with_memory, groups):
    student, teacher = make_rows()
    memory = make_memory() if with_memory else None
    ours = CMCDBlendLoss(alpha, 0.1, 0.2)(student, teacher, memory, groups)
    reference = naive_blend(student, teacher, alpha, 0.1, 0.2, memory, groups)
    check_equal(ours, reference, student)


@each_case()
def test_blend_without_soft_targets_is_cmc(with_memory, groups):
    student, teacher = make_rows()
    memory = make_memory() if with_memory else None
    ours = CMCDBlendLoss(0.0, 0.07)(student, teacher, memory, groups)
    check_equal(ours, CMCLoss(0.07)(student, teacher, memory, groups), student)


def test_soft_targets_that_are_sharp_are_those_of_cmc():
    student, teacher = make_rows()
    ours = CMCDBlendLoss(1.0, 0.07, 1e-3)(student, teacher)
    check_equal(ours, CMCLoss(0.07)(student, teacher), student)


def naive_crossclr(student, teacher, tau, weight, memory, groups):
    """Number by number."""
    s, t = normalize(student), normalize(teacher)
    total = 0.0
    for i in range(6):
        batch, stored = kept(i, memory, groups)
        for own, others, extra in (
            (s, t, [memory.teacher[k] for k in stored]),
            (t, s, []),
        ):
            norm = sum((own[i] @ others[j] / tau).exp() for j in batch)
            norm = norm + sum((own[i] @ row / tau).exp() for row in extra)
            for j in batch:
                if j != i:
                    norm = norm + (weight * own[i] @ own[j] / tau).exp()
            total = total + norm.log() - own[i] @ others[i] / tau
    return total / 12


@pytest.mark.parametrize('tau,weight', [(0.03, 0.8), (0.2, 0.5)])
@each_case()
def test_crossclr_equals_naive(tau, weight, with_memory, groups):
    student, teacher = make_rows()
    memory = make_memory() if with_memory else None
    ours = CrossCLRLoss(tau, weight)(student, teacher, memory, groups)
    reference = naive_crossclr(student, teacher, tau, weight, memory, groups)
    check_equal(ours, reference, student)


def test_crossclr_is_the_original_but_for_a_one():
    """Logits side by side, those of the diagonal zero, one softmax."""
    student, teacher = make_rows()

    def one_way(own, other):
        intra = 0.8 * own @ own.T / 0.03
        logits = torch.cat(
            [own @ other.T / 0.03, intra * (1 - torch.eye(6))], dim=1
        )
        return -logits.softmax(dim=1).diagonal().log().mean()

    s, t = normalize(student), normalize(teacher)
    original = (one_way(s, t) + one_way(t, s)) / 2
    ours = CrossCLRLoss()(student, teacher)
    assert 0 <= original - ours < 1e-4
    torch.testing.assert_close(
        *(torch.autograd.grad(x, student)[0] for x in (ours, original)),
        rtol=1e-3,
        atol=1e-4,
    )


def test_negatives_of_the_own_modality_push():
    """Two students at one place cost more than CMC says."""
    student, teacher = make_rows()
    together = student.detach().clone()
    together[1] = together[0]
    rises = [
        loss(together, teacher) - loss(student, teacher)
        for loss in (CrossCLRLoss(0.1, 1.0), CMCLoss(0.1))
    ]
    assert rises[0] > rises[1]


@pytest.mark.parametrize('name', LOSSES)
def test_weight_registration_and_teacher(name):
    student, teacher = make_rows()
    teacher.requires_grad_()
    loss = LOSSES[name]()
    value = loss(student, teacher)
    value.backward()
    assert student.grad.abs().max() > 0 and teacher.grad is None
    cfg = dict(type=f'mmcmcd.{type(loss).__name__}', loss_weight=0.5)
    torch.testing.assert_close(
        MODELS.build(cfg)(student, teacher), value.detach() / 2
    )
    assert loss.places_student


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
@pytest.mark.parametrize('name', LOSSES)
def test_half_precision_is_computed_in_single(name, dtype):
    student, teacher = (x.detach().to(dtype) for x in make_rows())
    memory = make_memory()
    half, single = (
        Memory(*(x.half().to(d) for x in memory[:2]), memory.group_ids)
        for d in (torch.float16, torch.float32)
    )
    with torch.autocast('cpu', torch.bfloat16):
        value = LOSSES[name]()(student, teacher, half)
    assert value.dtype == torch.float32
    expected = LOSSES[name]()(student.float(), teacher.float(), single)
    torch.testing.assert_close(value, expected)


def test_wrong_options_are_named():
    for alpha in (-0.1, 1.1):
        with pytest.raises(ConfigError, match='from 0 to 1'):
            CMCDBlendLoss(alpha)
    with pytest.raises(ConfigError, match='positive'):
        CMCDBlendLoss(teacher_temperature=0)
    with pytest.raises(ConfigError, match='positive'):
        CrossCLRLoss(temperature=0)
