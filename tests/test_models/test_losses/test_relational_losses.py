"""CosineLoss, RKDLoss and PKTLoss against loops and the originals."""

import pytest
import torch
import torch.nn.functional as F

from mmcmcd.errors import ConfigError
from mmcmcd.models.losses import (
    CosineLoss,
    FeatureL2Loss,
    Memory,
    PKTLoss,
    RKDLoss,
    anchor_parts,
)
from mmcmcd.registry import MODELS

GROUPS = torch.tensor([0, 1, 1, 3, 4, 4, 4])
LOSSES = dict(cosine=CosineLoss, rkd=RKDLoss, pkt=PKTLoss)


@pytest.fixture(params=['whole', 'parts'])
def parts(request, monkeypatch):
    """Anchors all at once, and two or one at a time."""
    if request.param == 'parts':
        monkeypatch.setattr(anchor_parts, '_NUMBERS_AT_ONCE', 100)


def draw(*shape, seed=0):
    gen = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=gen, dtype=torch.float64)


def make_rows(batch=7, width=5):
    return draw(batch, 5).requires_grad_(), draw(batch, width, seed=9)


def check_equal(ours, reference, student):
    torch.testing.assert_close(ours, reference, rtol=0, atol=1e-10)
    grad = torch.autograd.grad(ours, student)[0]
    expected = torch.autograd.grad(reference, student)[0]
    torch.testing.assert_close(grad, expected, rtol=0, atol=1e-9)
    assert expected.abs().max() > 1e-6


def cosine(x, y):
    return (x * y).sum() / ((x * x).sum() * (y * y).sum()).sqrt()


def huber(x, y):
    difference = (x - y).abs()
    if difference < 1:
        return difference**2 / 2
    return difference - 0.5


def naive_rkd(student, teacher, distance_weight, angle_weight):
    """Number by number."""
    num = len(student)
    distances, angles = [], []
    for rows in (student, teacher):
        raw = {
            (i, j): (rows[i] - rows[j]).pow(2).sum().sqrt()
            for i in range(num)
            for j in range(num)
            if i != j
        }
        mean = sum(raw.values()) / len(raw)
        distances.append({key: value / mean for key, value in raw.items()})
        angles.append(
            {
                (i, j, k): cosine(rows[j] - rows[i], rows[k] - rows[i])
                for i in range(num)
                for j in range(num)
                for k in range(num)
                if i not in (j, k)
            }
        )
    by_distance, by_angle = (
        sum(huber(ours[key], theirs[key]) for key in ours)
        for ours, theirs in (distances, angles)
    )
    return (
        distance_weight * by_distance / num**2
        + angle_weight * by_angle / num**3
    )


def original_rkd(student, teacher):
    """RepDistiller's arithmetic, with all B^3 angles."""

    def relations(rows):
        squares = rows.pow(2).sum(dim=1)
        products = squares[:, None] + squares - 2 * rows @ rows.T
        distances = products.clamp(min=1e-12).sqrt()
        distances = distances * (1 - torch.eye(len(rows)))
        edges = F.normalize(rows[None] - rows[:, None], dim=2)
        mean = distances[distances > 0].mean()
        return distances / mean, torch.bmm(edges, edges.transpose(1, 2))

    ours, theirs = relations(student), relations(teacher)
    return 25 * F.smooth_l1_loss(ours[0], theirs[0]) + 50 * F.smooth_l1_loss(
        ours[1], theirs[1]
    )


@pytest.mark.parametrize('batch', [2, 3, 7])
@pytest.mark.parametrize('weights', [(25.0, 50.0), (1.0, 0.0), (0.0, 2.0)])
def test_rkd_equals_naive(batch, weights, parts):
    student, teacher = make_rows(batch, width=3)
    # Some distances differ by more than Huber's threshold.
    teacher[0] *= 9
    ours = RKDLoss(*weights)(student, teacher)
    reference = naive_rkd(student, teacher, *weights)
    if batch == 2:
        # Of two rows there is one distance, and no angle but zero.
        torch.testing.assert_close(ours, torch.zeros_like(ours))
        return
    check_equal(ours, reference, student)


def test_rkd_is_the_original(parts):
    student, teacher = make_rows()
    ours = RKDLoss()(student, teacher)
    check_equal(ours, original_rkd(student, teacher), student)


def test_rkd_knows_relations_alone():
    """Neither place, nor scale, nor rotation of the student's space."""
    _, teacher = make_rows(16)
    rotation = torch.linalg.qr(draw(5, 5, seed=3)).Q
    moved = 3 * teacher @ rotation + 7
    loss = RKDLoss()
    assert loss(moved, teacher).abs() < 1e-20
    assert loss(moved.roll(1, dims=0), teacher) > 1
    assert not loss.places_student


def test_rkd_of_equal_rows_has_a_finite_gradient():
    student, teacher = make_rows()
    equal = student.detach().float()
    equal[1] = equal[2]
    for rows in (equal, torch.zeros(7, 5)):
        rows.requires_grad_()
        value = RKDLoss()(rows, teacher.float())
        (grad,) = torch.autograd.grad(value, rows)
        assert value.isfinite() and grad.isfinite().all()
        assert grad.abs().max() < 1e3


def naive_pkt(student, teacher, groups=None):
    """Number by number."""
    num, total = len(student), 0.0
    for i in range(num):
        kept = [
            j
            for j in range(num)
            if i == j or groups is None or groups[i] != groups[j]
        ]
        p, q = (
            [(1 + cosine(rows[i], rows[j])) / 2 for j in kept]
            for rows in (teacher, student)
        )
        p, q = ([x / sum(row) for x in row] for row in (p, q))
        for a, b in zip(p, q, strict=True):
            total = total + a * ((a + 1e-7) / (b + 1e-7)).log()
    return total / num**2


def original_pkt(student, teacher):
    """RepDistiller's arithmetic."""

    def shares(rows):
        rows = rows / (rows.pow(2).sum(dim=1, keepdim=True).sqrt() + 1e-7)
        similarity = (rows @ rows.T + 1) / 2
        return similarity / similarity.sum(dim=1, keepdim=True)

    q, p = shares(student), shares(teacher)
    return (p * ((p + 1e-7) / (q + 1e-7)).log()).mean()


@pytest.mark.parametrize('groups', [None, GROUPS], ids=['alone', 'groups'])
def test_pkt_equals_naive(groups, parts):
    student, teacher = make_rows(width=3)
    ours = PKTLoss()(student, teacher, None, groups)
    check_equal(ours, naive_pkt(student, teacher, groups), student)


def test_pkt_is_the_original():
    student, teacher = make_rows()
    ours, original = (
        PKTLoss()(student, teacher),
        original_pkt(student, teacher),
    )
    # They add 1e-7 to the lengths of rows, too.
    torch.testing.assert_close(ours, original, rtol=1e-5, atol=0)


def test_cosine_is_the_mean_of_all_pairs():
    student, teacher = make_rows()
    reference = sum(
        1 - cosine(s, t) for s, t in zip(student, teacher, strict=True)
    )
    check_equal(CosineLoss()(student, teacher), reference / 7, student)
    as_l2 = FeatureL2Loss(normalize=True)(student, teacher) * 5 / 2
    check_equal(CosineLoss()(student, teacher), as_l2, student)


@pytest.mark.parametrize('name', LOSSES)
def test_memory_and_weight(name):
    student, teacher = make_rows()
    memory = Memory(*draw(2, 4, 5, seed=3), torch.arange(4))
    loss = LOSSES[name]()
    value = loss(student, teacher)
    assert torch.equal(loss(student, teacher, memory), value)
    cfg = dict(type=f'mmcmcd.{type(loss).__name__}', loss_weight=0.5)
    half = MODELS.build(cfg)
    torch.testing.assert_close(half(student, teacher), value / 2)
    assert loss.places_student == (name == 'cosine')


@pytest.mark.parametrize('name', LOSSES)
def test_the_teacher_takes_no_gradient(name):
    student, teacher = make_rows()
    teacher.requires_grad_()
    LOSSES[name]()(student, teacher).backward()
    assert student.grad.abs().max() > 0 and teacher.grad is None


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
@pytest.mark.parametrize('name', LOSSES)
def test_half_precision_is_computed_in_single(name, dtype):
    student, teacher = (x.detach().to(dtype) for x in make_rows(16))
    with torch.autocast('cpu', torch.bfloat16):
        value = LOSSES[name]()(student, teacher)
    assert value.dtype == torch.float32
    expected = LOSSES[name]()(student.float(), teacher.float())
    torch.testing.assert_close(value, expected)


@pytest.mark.parametrize('name', ['rkd', 'pkt'])
def test_one_pair_has_no_relations(name):
    """Whatever a queue remembers."""
    memory = Memory(*draw(2, 4, 5), torch.arange(4))
    with pytest.raises(ConfigError, match='nothing to contrast'):
        LOSSES[name]()(draw(1, 5), draw(1, 5), memory)


def test_cosine_needs_equal_widths():
    with pytest.raises(ConfigError, match='student_projector'):
        CosineLoss()(draw(4, 5), draw(4, 3))
