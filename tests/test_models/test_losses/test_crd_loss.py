import itertools
import math

import pytest
import torch
from torch import nn
from torch.nn.functional import normalize

from mmcmcd.errors import ConfigError
from mmcmcd.models.losses import CRDLoss, Memory, functional, tiled
from mmcmcd.models.losses.candidates import Candidates, Keep
from mmcmcd.models.losses.tiled import tiles
from mmcmcd.registry import MODELS

VALUE, GRADIENT = 1e-10, 1e-9
GROUPS = [None, torch.tensor([0, 1, 1, 3, 4, 4, 4])]


@pytest.fixture(
    autouse=True,
    params=[None, (1, 1), (3, 2), (64, 64)],
    ids=lambda tile: 'plain' if tile is None else 'x'.join(map(str, tile)),
)
def tile(request, monkeypatch):
    """Every test holds for the plain formula and for tiles of any size."""
    if request.param is not None:
        monkeypatch.setattr(functional, '_PLAIN_UP_TO', 0)
        monkeypatch.setattr(tiles, 'choose_tile', lambda *_: request.param)
    return request.param


def draw(count, dim=5, seed=0):
    gen = torch.Generator().manual_seed(seed)
    return torch.randn(count, dim, generator=gen, dtype=torch.float64)


def make_rows(batch=7, seed=0):
    return draw(batch, seed=seed).requires_grad_(), draw(batch, seed=seed + 9)


def make_memory():
    groups = torch.tensor([0, 9, 3, 9])
    student, teacher = (normalize(draw(4, seed=seed)) for seed in (1, 2))
    return Memory(student, teacher, groups)


def make_loss(*args, **kwargs):
    return CRDLoss(*args, **kwargs).double()


def cosine(x, y):
    return (
        sum(a * b for a, b in zip(x, y, strict=True))
        / (sum(a * a for a in x) * sum(b * b for b in y)).sqrt()
    )


def naive_scores(student, teacher, tau, memory=None, groups=None):
    """Of each student, then of each teacher: positive, list of negatives."""
    directions = []
    for side in (0, 1):
        anchors = (student, teacher)[side]
        others = (teacher, student)[side]
        directions.append([])
        for i, anchor in enumerate(anchors):
            negatives = [
                other
                for j, other in enumerate(others)
                if j != i and (groups is None or groups[j] != groups[i])
            ]
            if memory is not None:
                negatives += [
                    row
                    for row, group in zip(
                        memory[1 - side], memory.group_ids, strict=True
                    )
                    if groups is None or group != groups[i]
                ]
            scores = [cosine(anchor, other) / tau for other in negatives]
            directions[-1].append((cosine(anchor, others[i]) / tau, scores))
    return directions


def naive_normalizers(directions):
    """Mean exponential of all scores, for each direction."""
    means = []
    for anchors in directions:
        scores = [x for own, others in anchors for x in (own, *others)]
        means.append(sum(x.detach().exp() for x in scores) / len(scores))
    return means


def naive_crd(directions, normalizers):
    """Probabilities of belonging to the anchor, one after the other."""
    total = 0.0
    for anchors, normalizer in zip(directions, normalizers, strict=True):
        for own, others in anchors:
            noise = len(others) * normalizer
            total = total - (own.exp() / (own.exp() + noise)).log()
            for x in others:
                total = total - (noise / (x.exp() + noise)).log()
    return total / len(directions[0])


def check_equal(ours, reference, student):
    torch.testing.assert_close(ours, reference, rtol=0, atol=VALUE)
    grad = torch.autograd.grad(ours, student)[0]
    expected = torch.autograd.grad(reference, student)[0]
    torch.testing.assert_close(grad, expected, rtol=0, atol=GRADIENT)
    assert expected.abs().max() > 1e-3


@pytest.mark.parametrize(
    'tau,with_memory,groups',
    list(itertools.product([0.07, 0.2, 1.0], [False, True], range(2))),
)
def test_equals_naive(tau, with_memory, groups):
    memory = make_memory() if with_memory else None
    loss = make_loss(tau)
    normalizers = None
    # Two batches, of different sizes: the first fixes the normalisers.
    for seed, batch in enumerate((7, 5)):
        student, teacher = make_rows(batch, seed)
        ids = None if groups == 0 else GROUPS[groups][:batch]
        scores = naive_scores(student, teacher, tau, memory, ids)
        normalizers = normalizers or naive_normalizers(scores)
        check_equal(
            loss(student, teacher, memory, ids),
            naive_crd(scores, normalizers),
            student,
        )


def test_memory_alone_is_the_original_with_the_same_negatives_for_all():
    """RepDistiller's arithmetic: h = exp / Z, noise 1/n, eps in its log."""
    num, tau, num_samples = 6, 0.07, 50
    memory = Memory(
        normalize(draw(40, seed=1)),
        normalize(draw(40, seed=2)),
        torch.arange(1, 41),
    )
    student, teacher = make_rows(num)
    together = torch.zeros(num, dtype=torch.long)
    unit = normalize(student), normalize(teacher)
    noise = len(memory.group_ids) / num_samples

    def original(eps):
        total = 0.0
        for anchors, others, bank in (
            (unit[0], unit[1], memory.teacher),
            (unit[1], unit[0], memory.student),
        ):
            own = (anchors * others).sum(dim=1, keepdim=True)
            scores = torch.cat([own, anchors @ bank.T], dim=1)
            h = (scores / tau).exp()
            h = h / (num_samples * h.detach().mean())
            true, false = h[:, 0], h[:, 1:]
            belongs = (true / (true + noise + eps)).log().sum()
            does_not = (noise / (false + noise + eps)).log().sum()
            total = total - (belongs + does_not) / num
        return total

    loss = make_loss(tau)
    ours = loss(student, teacher, memory, together)
    check_equal(ours, original(eps=0), student)
    torch.testing.assert_close(ours, original(1e-7), rtol=0, atol=1e-3)


def test_normalizers_are_those_of_the_first_training_batch():
    memory, fresh = make_memory(), make_loss()
    loss = make_loss()
    assert loss.log_normalizers.isnan().all()
    loss.eval()(*make_rows(seed=3))
    assert loss.log_normalizers.isnan().all()
    loss.train()(*make_rows())
    fixed = loss.log_normalizers.clone()
    expected = naive_normalizers(naive_scores(*make_rows(), tau=0.07))
    torch.testing.assert_close(fixed.exp(), torch.stack(expected))
    later = make_rows(seed=3)
    value = loss(*later, memory)
    assert torch.equal(loss.log_normalizers, fixed)
    assert fresh(*later, memory) != value


def test_a_first_batch_that_overflows_fixes_no_normalizers():
    student, teacher = make_rows(seed=3)
    overflowed = student.detach().clone()
    overflowed[2, 1] = torch.inf
    loss, other = make_loss(), make_loss()
    assert not loss(overflowed, teacher).isfinite()
    assert loss.log_normalizers.isnan().all()
    assert loss(*make_rows()) == other(*make_rows())
    assert torch.equal(loss.log_normalizers, other.log_normalizers)
    assert loss.log_normalizers.isfinite().all()
    # Later ones do not matter.
    loss(overflowed, teacher)
    assert loss(student, teacher) == other(student, teacher)


def test_checkpoints_keep_the_normalizers():
    first, later = make_rows(), make_rows(seed=3)
    loss, resumed = (nn.ModuleDict(dict(crd=make_loss())) for _ in range(2))
    # What is saved before any step is not taken for normalisers.
    resumed.load_state_dict(loss.state_dict())
    loss['crd'](*first)
    assert resumed['crd'](*first) == loss['crd'](*first)
    resumed = nn.ModuleDict(dict(crd=make_loss()))
    resumed.load_state_dict(loss.state_dict())
    assert resumed['crd'](*later) == loss['crd'](*later)
    assert make_loss()(*later) != loss['crd'](*later)


@pytest.mark.parametrize('groups', GROUPS, ids=['alone', 'groups'])
@pytest.mark.parametrize('with_memory', [False, True])
def test_parts_of_a_batch_make_up_the_whole(groups, with_memory, tile):
    """Each process sees its own students and all teachers."""
    student, teacher = make_rows()
    teacher = normalize(teacher)
    memory = make_memory() if with_memory else Memory(None, None, None)
    offsets = draw(2, dim=7)

    def solve(part):
        keep = Keep(start=part.start)
        if groups is not None:
            keep = Keep(
                True, part.start, groups[part], groups, memory.group_ids
            )
        pairs = (
            normalize(student)[part],
            Candidates(teacher, memory.teacher),
            memory.student,
            0.07,
        )
        loss = functional.nce(*pairs, offsets, keep)
        total = loss * (part.stop - part.start)
        gradient = torch.autograd.grad(total, student)[0]
        return total.detach(), gradient, tiled.log_sum_exp(*pairs, keep)

    whole = solve(slice(0, 7))
    parts = [solve(slice(0, 3)), solve(slice(3, 7))]
    (first, other), (by_first, by_other), log_sums = zip(*parts, strict=True)
    torch.testing.assert_close(first + other, whole[0])
    torch.testing.assert_close(by_first + by_other, whole[1])
    log_sum = torch.stack(log_sums).logsumexp(dim=0)
    torch.testing.assert_close(log_sum, whole[2])


def test_anchors_without_negatives_cost_nothing():
    student, teacher = make_rows(batch=4)
    loss = make_loss()
    loss(*make_rows())
    value = loss(student, teacher, None, torch.zeros(4))
    assert value == 0
    assert torch.autograd.grad(value, student)[0].eq(0).all()


def test_the_number_of_negatives_is_that_of_the_anchor():
    """One, one, one and three in the batch, and some of the memory."""
    student, teacher = make_rows(batch=4)
    loss = make_loss()
    loss(*make_rows())
    groups = torch.tensor([9, 9, 9, 6])
    for memory, expected in (
        (None, [1, 1, 1, 3]),
        (make_memory(), [3, 3, 3, 7]),
    ):
        scores = naive_scores(student, teacher, 0.07, memory, groups)
        assert [len(others) for _, others in scores[0]] == expected
        check_equal(
            loss(student, teacher, memory, groups.int()),
            naive_crd(scores, loss.log_normalizers.exp()),
            student,
        )


def test_gradcheck():
    student, teacher = make_rows(batch=5)
    loss = make_loss(0.3)
    ids = torch.tensor([0, 1, 1, 3, 4])
    loss(student, teacher)
    assert torch.autograd.gradcheck(
        lambda rows: loss(rows, teacher, make_memory(), ids), student
    )


def test_neither_teacher_nor_memory_takes_a_gradient():
    student, teacher = make_rows()
    teacher.requires_grad_()
    memory = make_memory()
    make_loss()(student, teacher, memory).backward()
    assert student.grad is not None
    assert teacher.grad is None and memory.teacher.grad is None


def test_students_of_the_memory_change_the_value_alone():
    student, teacher = make_rows()
    memory = make_memory()
    other = memory._replace(student=memory.student.roll(1, dims=1))
    loss = make_loss()
    loss(student, teacher)
    values = [loss(student, teacher, rows) for rows in (memory, other)]
    assert abs(values[0] - values[1]) > 1e-6
    assert torch.equal(
        *(torch.autograd.grad(value, student)[0] for value in values)
    )


def test_order_of_pairs_does_not_matter():
    student, teacher = make_rows(batch=7)
    order = torch.tensor([3, 0, 6, 2, 1, 5, 4])
    groups = GROUPS[1]
    torch.testing.assert_close(
        make_loss()(student[order], teacher[order], None, groups[order]),
        make_loss()(student, teacher, None, groups),
    )


def test_permuting_one_side_raises_the_loss():
    _, teacher = make_rows(batch=32)
    loss = make_loss()
    matched = loss(teacher.clone(), teacher)
    assert loss(teacher.roll(1, dims=0), teacher) > matched + 0.1


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_single(dtype):
    student, teacher = (x.detach().to(dtype) for x in make_rows(batch=16))
    memory = make_memory()
    half = Memory(*(x.to(dtype) for x in memory[:2]), memory.group_ids)
    single = Memory(*(x.float() for x in half[:2]), memory.group_ids)
    with torch.autocast('cpu', torch.bfloat16):
        value = CRDLoss()(student, teacher, half)
    assert value.dtype == torch.float32
    expected = CRDLoss()(student.float(), teacher.float(), single)
    torch.testing.assert_close(value, expected)


@pytest.mark.parametrize('tau', [0.001, 0.02, 10.0])
def test_extreme_input_stays_finite_and_right(tau):
    """exp(1 / 0.001) is beyond double precision, too."""
    student, teacher = (rows.detach() for rows in make_rows(batch=8))
    student[0] = 0
    teacher[1] = 0
    student[4] = -teacher[4]
    teacher[3], student[2] = teacher[2], teacher[2]
    memory = make_memory()
    results = []
    for dtype in (torch.float32, torch.float64):
        rows = student.to(dtype).requires_grad_()
        stored = Memory(*(x.to(dtype) for x in memory[:2]), memory.group_ids)
        loss = CRDLoss(tau).to(dtype)
        # Another first batch: the scores are far from its normalisers.
        loss(teacher.to(dtype), teacher.to(dtype))
        value = loss(rows, teacher.to(dtype), stored)
        (grad,) = torch.autograd.grad(value, rows)
        assert value.isfinite() and grad.isfinite().all()
        results.append((value.detach().double(), grad[1:].double()))
    for single, double in zip(*results, strict=True):
        size = double.abs().max()
        assert (single - double).abs().max() < 1e-4 * size


@pytest.mark.parametrize('tile', [None, (64, 64)], indirect=True)
def test_many_improbable_negatives_are_added_up_in_single_precision():
    """Each adds about 1 / K, near the rounding of one minus it."""
    gen = torch.Generator().manual_seed(0)
    stored = normalize(torch.randn(2, 20_000, 16, generator=gen), dim=2)
    memory = Memory(*stored, torch.arange(20_000))
    student, teacher = torch.randn(2, 4, 16, generator=gen)
    values, gradients = [], []
    for dtype in (torch.float32, torch.float64):
        rows = student.to(dtype).requires_grad_()
        bank = Memory(*(x.to(dtype) for x in stored), memory.group_ids)
        value = CRDLoss().to(dtype)(rows, teacher.to(dtype), bank)
        values.append(value.item())
        gradients.append(torch.autograd.grad(value, rows)[0].double())
    assert values[0] == pytest.approx(values[1], rel=1e-5)
    error = (gradients[0] - gradients[1]).abs().max()
    assert error < 1e-5 * gradients[1].abs().max()


@pytest.mark.parametrize('tile', [None], indirect=True)
def test_the_tiles_in_use_equal_the_plain_formula(tile, monkeypatch):
    """Several tiles of the default size, both ways in single precision."""
    memory = Memory(
        normalize(draw(3000, seed=1)).float(),
        normalize(draw(3000, seed=2)).half(),
        torch.arange(3000),
    )
    student, teacher = (rows.detach().float() for rows in make_rows(700))
    student.requires_grad_()
    groups = torch.arange(700) // 2

    def solve():
        value = CRDLoss()(student, teacher, memory, groups)
        return value.item(), torch.autograd.grad(value, student)[0]

    value, gradient = solve()
    monkeypatch.delattr(tiled, 'nce')
    with pytest.raises(AttributeError):
        solve()
    monkeypatch.setattr(functional, '_PLAIN_UP_TO', 2**40)
    expected, by_plain = solve()
    assert value == pytest.approx(expected, rel=1e-5)
    assert (gradient - by_plain).abs().max() < 2e-5 * by_plain.abs().max()


def test_compiled_equals_eager(tile):
    torch.compiler.reset()
    student, teacher = make_rows()
    eager, loss = make_loss(), make_loss()
    # The first batch, and tiles, are left to eager: a break in the graph.
    loss(student, teacher)
    compiled = torch.compile(loss, backend='aot_eager', fullgraph=tile is None)
    eager(student, teacher)
    check_equal(
        compiled(student, teacher, make_memory(), GROUPS[1]),
        eager(student, teacher, make_memory(), GROUPS[1]),
        student,
    )


def test_a_uniform_guess_costs_what_it_should():
    """All scores equal: one of K + 1 belongs, as the regression says."""
    rows = torch.ones(9, 5, dtype=torch.float64)
    by_anchor = math.log(9) + 8 * math.log(9 / 8)
    torch.testing.assert_close(make_loss()(rows, rows).item(), 2 * by_anchor)


def test_weight_and_registration():
    student, teacher = make_rows()
    loss = MODELS.build(dict(type='mmcmcd.CRDLoss', loss_weight=0.8)).double()
    torch.testing.assert_close(
        loss(student, teacher), 0.8 * make_loss()(student, teacher)
    )
    assert loss.places_student and not CRDLoss(loss_weight=0).places_student


def test_errors_are_named():
    with pytest.raises(ConfigError, match='positive'):
        CRDLoss(temperature=0)
    with pytest.raises(ConfigError, match='student_projector'):
        CRDLoss()(torch.randn(4, 4), torch.randn(4, 5))
    with pytest.raises(ConfigError, match='nothing to contrast'):
        CRDLoss()(torch.randn(1, 4), torch.randn(1, 4))
