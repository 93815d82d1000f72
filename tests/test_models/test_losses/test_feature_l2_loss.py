import pytest
import torch

from mmcmcd.errors import ConfigError
from mmcmcd.models.losses import FeatureL2Loss, Memory


def make_rows(batch=6, dim=5):
    gen = torch.Generator().manual_seed(0)
    student, teacher = (
        torch.randn(batch, dim, generator=gen, dtype=torch.float64)
        for _ in range(2)
    )
    return student.requires_grad_(), teacher.requires_grad_()


def naive(student, teacher, normalize):
    total = 0
    for s, t in zip(student, teacher, strict=True):
        if normalize:
            s, t = s / s.pow(2).sum().sqrt(), t / t.pow(2).sum().sqrt()
        total = total + sum((a - b) ** 2 for a, b in zip(s, t, strict=True))
    return total / student.numel()


@pytest.mark.parametrize('normalize', [False, True])
def test_equals_naive(normalize):
    student, teacher = make_rows()
    loss = FeatureL2Loss(normalize, loss_weight=3.0)(student, teacher)
    expected = 3 * naive(student, teacher.detach(), normalize)
    torch.testing.assert_close(loss, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(
        torch.autograd.grad(loss, student)[0],
        torch.autograd.grad(expected, student)[0],
        rtol=0,
        atol=1e-12,
    )


def test_the_teacher_gets_no_gradient():
    student, teacher = make_rows()
    FeatureL2Loss()(student, teacher).backward()
    assert teacher.grad is None


def test_negatives_play_no_part():
    student, teacher = make_rows()
    memory = Memory(student.detach(), teacher.detach(), torch.arange(6))
    alone = FeatureL2Loss()(student, teacher)
    assert FeatureL2Loss()(student, teacher, memory, torch.zeros(6)) == alone


def test_half_precision_is_compared_in_single():
    student, teacher = (rows.detach().half() for rows in make_rows())
    loss = FeatureL2Loss()(student, teacher)
    assert loss.dtype == torch.float32


def test_it_places_the_student_in_the_teachers_space():
    assert FeatureL2Loss().places_student
    assert not FeatureL2Loss(loss_weight=0).places_student


def test_other_widths_are_refused():
    student, teacher = make_rows()
    with pytest.raises(ConfigError, match='out_channels=4'):
        FeatureL2Loss()(student, teacher[:, :4])
