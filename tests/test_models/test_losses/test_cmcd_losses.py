import itertools

import pytest
import torch
from naive import naive_cmc, naive_cmd
from torch.nn.functional import normalize

from mmcmcd.models.losses import (
    CMCDLoss,
    CMCLoss,
    CMDLoss,
    CRDLoss,
    FeatureL2Loss,
    Memory,
    functional,
)
from mmcmcd.models.losses.tiled import tiles
from mmcmcd.registry import MODELS

VALUE, GRADIENT = 1e-10, 1e-9


@pytest.fixture(
    autouse=True,
    params=[None, (1, 1), (3, 2), (7, 7), (64, 64)],
    ids=lambda tile: 'plain' if tile is None else 'x'.join(map(str, tile)),
)
def tile(request, monkeypatch):
    """Every test holds for the plain formulas and for tiles of any size."""
    if request.param is not None:
        monkeypatch.setattr(functional, '_PLAIN_UP_TO', 0)
        monkeypatch.setattr(tiles, 'choose_tile', lambda *_: request.param)
        monkeypatch.setattr(tiles, 'LEAST_ROWS', 1)


def make_rows(batch=7, dim=5, teacher_dim=None, seed=0):
    gen = torch.Generator().manual_seed(seed)
    student = torch.randn(batch, dim, generator=gen, dtype=torch.float64)
    teacher = torch.randn(
        batch, teacher_dim or dim, generator=gen, dtype=torch.float64
    )
    return student.requires_grad_(), teacher


def make_memory(size=4, dim=5, teacher_dim=None, seed=1):
    gen = torch.Generator().manual_seed(seed)
    student = torch.randn(size, dim, generator=gen, dtype=torch.float64)
    teacher = torch.randn(
        size, teacher_dim or dim, generator=gen, dtype=torch.float64
    )
    groups = torch.tensor([0, 9, 3, 9])[:size]
    return Memory(normalize(student), normalize(teacher), groups)


def check_equal(ours, reference, student):
    torch.testing.assert_close(ours, reference, rtol=0, atol=VALUE)
    grad = torch.autograd.grad(ours, student)[0]
    expected = torch.autograd.grad(reference, student)[0]
    torch.testing.assert_close(grad, expected, rtol=0, atol=GRADIENT)


GROUPS = [None, torch.tensor([0, 1, 1, 3, 4, 4, 4])]


@pytest.mark.parametrize(
    'form,temps,include_self,with_memory,groups',
    list(
        itertools.product(
            ['within', 'cross'],
            [(0.1, 0.2), (1.0, 0.05), (0.02, 0.01)],
            [True, False],
            [False, True],
            range(2),
        )
    ),
)
def test_cmd_equals_naive(form, temps, include_self, with_memory, groups):
    student, teacher = make_rows()
    memory = make_memory() if with_memory else None
    groups = GROUPS[groups]
    loss = CMDLoss(form, *temps, include_self=include_self)
    check_equal(
        loss(student, teacher, memory, groups),
        naive_cmd(
            student, teacher, form, *temps, include_self, memory, groups
        ),
        student,
    )


@pytest.mark.parametrize(
    'tau,symmetric,with_memory,groups',
    list(
        itertools.product(
            [0.01, 0.07, 0.5], [True, False], [False, True], range(2)
        )
    ),
)
def test_cmc_equals_naive(tau, symmetric, with_memory, groups):
    student, teacher = make_rows()
    memory = make_memory() if with_memory else None
    groups = GROUPS[groups]
    loss = CMCLoss(tau, symmetric)
    check_equal(
        loss(student, teacher, memory, groups),
        naive_cmc(student, teacher, tau, symmetric, memory, groups),
        student,
    )


def test_cmd_within_takes_different_dimensions():
    student, teacher = make_rows(dim=5, teacher_dim=8)
    memory = make_memory(dim=5, teacher_dim=8)
    check_equal(
        CMDLoss()(student, teacher, memory),
        naive_cmd(student, teacher, 'within', 0.1, 0.2, False, memory),
        student,
    )


@pytest.mark.parametrize('form', ['within', 'cross'])
def test_cmcd_is_the_weighted_sum_of_its_terms(form):
    student, teacher = make_rows()
    memory, groups = make_memory(), GROUPS[1]
    cmd, cmc = dict(form=form, loss_weight=0.5), dict(loss_weight=2.0)
    terms = CMCDLoss(cmd=cmd, cmc=cmc)(student, teacher, memory, groups)
    assert sorted(terms) == ['loss_cmc', 'loss_cmd']
    reference = 0.5 * naive_cmd(
        student, teacher, form, 0.1, 0.2, form == 'cross', memory, groups
    ) + 2.0 * naive_cmc(student, teacher, 0.07, True, memory, groups)
    check_equal(sum(terms.values()), reference, student)


def test_cmcd_may_leave_a_term_out():
    student, teacher = make_rows(dim=5, teacher_dim=8)
    assert list(CMCDLoss(cmd=dict())(student, teacher)) == ['loss_cmd']
    with pytest.raises(ValueError, match='needs cmd, cmc or both'):
        CMCDLoss()


def test_gradcheck():
    student, teacher = make_rows(batch=4)
    for loss in (CMDLoss('within'), CMDLoss('cross'), CMCLoss()):
        assert torch.autograd.gradcheck(
            lambda rows, loss=loss: loss(rows, teacher), student
        )


def test_teacher_gets_no_gradient():
    student, teacher = make_rows()
    teacher.requires_grad_()
    for loss in (CMDLoss('within'), CMDLoss('cross'), CMCLoss()):
        loss(student, teacher).backward()
    assert teacher.grad is None
    assert student.grad is not None


def test_permuting_one_side_raises_the_loss():
    _, teacher = make_rows(batch=32, dim=16)
    order = torch.roll(torch.arange(32), 1)
    for loss in (CMDLoss('within'), CMDLoss('cross'), CMCLoss()):
        matched = loss(teacher.clone(), teacher)
        assert loss(teacher[order], teacher) > matched + 0.1


def test_cmd_within_is_least_for_a_rotated_copy_of_the_teacher():
    _, teacher = make_rows(batch=16, dim=6)
    rotation, _ = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64))
    loss = CMDLoss('within', 0.2, 0.2)
    floor = loss(teacher.clone(), teacher)
    torch.testing.assert_close(loss(teacher @ rotation, teacher), floor)
    noisy = teacher + 0.3 * torch.randn_like(teacher)
    assert loss(noisy, teacher) > floor
    # The cross form and CMC are not invariant: they place the student.
    for placed in (CMDLoss('cross'), CMCLoss()):
        assert placed(teacher @ rotation, teacher) > placed(teacher, teacher)


def test_cross_form_with_cold_teacher_is_one_way_cmc():
    student, teacher = make_rows(batch=12, dim=8)
    cold = CMDLoss('cross', 1e-3, 0.1)(student, teacher)
    torch.testing.assert_close(
        cold, CMCLoss(0.1, symmetric=False)(student, teacher)
    )


def test_order_of_pairs_does_not_matter():
    student, teacher = make_rows(batch=16)
    order = torch.randperm(16)
    for loss in (CMDLoss('within'), CMDLoss('cross'), CMCLoss()):
        torch.testing.assert_close(
            loss(student[order], teacher[order]), loss(student, teacher)
        )


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_half_precision_input_is_computed_in_single(dtype):
    student, teacher = (x.detach().to(dtype) for x in make_rows(batch=16))
    with torch.autocast('cpu', torch.bfloat16):
        half = CMCLoss()(student, teacher)
    assert half.dtype == torch.float32
    torch.testing.assert_close(
        half, CMCLoss()(student.float(), teacher.float())
    )


@pytest.mark.parametrize(
    'dtypes', itertools.permutations([torch.float32, torch.float64])
)
@pytest.mark.parametrize(
    'make_loss',
    [
        lambda: CMDLoss('within'),
        lambda: CMDLoss('cross'),
        lambda: CMCLoss(),
        lambda: CMCLoss(learnable_temperature=True),
        lambda: CRDLoss(),
        lambda: FeatureL2Loss(),
        lambda: FeatureL2Loss(normalize=True),
    ],
)
def test_the_result_has_the_precision_of_the_student(make_loss, dtypes):
    student, teacher = (
        rows.detach().to(dtype)
        for rows, dtype in zip(make_rows(), dtypes, strict=True)
    )
    student.requires_grad_()
    memory = make_memory()
    memory = Memory(memory[0].half(), memory[1].float(), memory[2])
    value = make_loss()(student, teacher, memory)
    expected = make_loss()(student, teacher.to(student.dtype), memory)
    assert value.dtype == student.dtype
    torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(
        *(torch.autograd.grad(x, student)[0] for x in (value, expected)),
        rtol=1e-4,
        atol=1e-6,
    )


def test_short_rows_have_the_gradient_of_normalize():
    student, weights = make_rows()
    lengths = [0, 1e-8, 0.999e-6, 1.001e-6, 1e-3, 1, 1e3]
    rows = normalize(student.detach()) * torch.tensor(lengths)[:, None]
    rows.requires_grad_()
    results = []
    for unit in (functional.unit_rows(rows), normalize(rows, eps=1e-6)):
        (first,) = torch.autograd.grad(
            (unit * weights).sum(), rows, create_graph=True
        )
        (second,) = torch.autograd.grad((first * weights).sum(), rows)
        # That of a zero row is nan in the reference.
        results.append((unit, first, second[1:]))
    torch.testing.assert_close(*results)
    assert torch.autograd.gradgradcheck(functional.unit_rows, student)


@pytest.mark.parametrize('tile', [None], indirect=True)
@pytest.mark.parametrize(
    'loss', [CMDLoss('within'), CMDLoss('cross'), CMCLoss()]
)
def test_plain_formulas_can_be_transformed_by_torch_func(loss):
    student, teacher = make_rows()
    memory, groups = make_memory(), GROUPS[1]
    ours = torch.func.grad(loss)(student.detach(), teacher, memory, groups)
    value = loss(student, teacher, memory, groups)
    torch.testing.assert_close(ours, *torch.autograd.grad(value, student))


def test_extreme_input_stays_finite():
    student, teacher = make_rows(batch=8)
    student, teacher = student.detach().float(), teacher.float()
    student[0] = 0
    teacher[1] = 0
    teacher[3] = teacher[2]
    student.requires_grad_()
    for tau in (0.005, 10.0):
        for loss in (
            CMDLoss('within', tau, tau),
            CMDLoss('cross', tau, tau),
            CMCLoss(tau),
        ):
            value = loss(student, teacher)
            (grad,) = torch.autograd.grad(value, student)
            assert value.isfinite() and grad.isfinite().all()
            assert grad.abs().max() < 1e7 / tau  # of the zero row
            assert grad[1:].abs().max() < 10 / tau


def test_rows_without_candidates_leave_the_mean():
    student, teacher = make_rows(batch=3)
    groups = torch.tensor([0, 0, 0])
    value = CMDLoss('within')(student, teacher, group_ids=groups)
    assert value == 0
    (grad,) = torch.autograd.grad(value, student)
    assert grad.eq(0).all()


def test_learnable_temperature_is_trained_and_bounded():
    student, teacher = make_rows()
    loss = CMCLoss(0.5, learnable_temperature=True)
    torch.testing.assert_close(
        loss(student, teacher), CMCLoss(0.5)(student, teacher)
    )
    loss(student, teacher).backward()
    assert loss.log_scale.grad.abs() > 0
    loss.log_scale.data.fill_(10.0)
    assert loss.temperature.item() == pytest.approx(0.01)
    # At the bound it can still come back.
    loss.log_scale.grad = None
    loss(student, teacher).backward()
    assert loss.log_scale.grad.abs() > 0


@pytest.mark.parametrize(
    'loss,student,teacher,message',
    [
        (CMCLoss(), (1, 4), (1, 4), 'nothing to contrast'),
        (CMDLoss(), (1, 4), (1, 4), 'nothing to contrast'),
        (CMCLoss(), (4, 4), (4, 5), 'student_projector'),
        (CMDLoss('cross'), (4, 4), (4, 5), 'student_projector'),
        (CMCLoss(), (4, 4), (3, 4), 'same B'),
        (CMCLoss(), (0, 4), (0, 4), 'B >= 1'),
        (CMCLoss(), (4, 4, 2), (4, 4, 2), r'shapes\s+\(B, D\)'),
    ],
)
def test_bad_shapes_are_named(loss, student, teacher, message):
    with pytest.raises(ValueError, match=message):
        loss(torch.randn(student), torch.randn(teacher))


def test_one_pair_with_a_memory_is_fine():
    student, teacher = make_rows(batch=1)
    value = CMCLoss()(student, teacher, make_memory())
    torch.testing.assert_close(
        value, naive_cmc(student, teacher, 0.07, True, make_memory())
    )


@pytest.mark.parametrize(
    'cfg,message',
    [
        (dict(type='mmcmcd.CMDLoss', form='x'), 'within'),
        (dict(type='mmcmcd.CMDLoss', student_temperature=0), 'positive'),
        (dict(type='mmcmcd.CMCLoss', temperature=-1.0), 'positive'),
    ],
)
def test_bad_arguments_are_named(cfg, message):
    with pytest.raises(ValueError, match=message):
        MODELS.build(cfg)
