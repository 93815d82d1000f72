"""CMDLoss(candidates='memory'): SEED's and CompRess's candidates."""

import pytest
import torch
from torch.nn.functional import kl_div, log_softmax, normalize, softmax

from mmcmcd.errors import ConfigError
from mmcmcd.models.distillers import DenseComparison
from mmcmcd.models.distillers.comparison import compare
from mmcmcd.models.losses import CMCDLoss, CMDLoss, Memory, anchor_parts
from mmcmcd.models.memory import FeatureQueue

FORMS = ['within', 'cross']
GROUPS = torch.tensor([0, 1, 1, 3, 9])


@pytest.fixture(autouse=True, params=['whole', 'parts'])
def parts(request, monkeypatch):
    """Anchors all at once, and one at a time."""
    if request.param == 'parts':
        monkeypatch.setattr(anchor_parts, '_NUMBERS_AT_ONCE', 1)


def draw(*shape, seed=0):
    gen = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=gen, dtype=torch.float64)


def make_rows(seed=0):
    return draw(5, 4, seed=seed).requires_grad_(), draw(5, 4, seed=seed + 9)


def make_memory():
    rows = normalize(draw(2, 6, 4, seed=5), dim=2)
    return Memory(*rows, torch.tensor([1, 2, 9, 9, 1, 9]))


def make_loss(form, tau_t=0.1, tau_s=0.2, **kwargs):
    return CMDLoss(form, tau_t, tau_s, candidates='memory', **kwargs)


def naive(student, teacher, form, tau_t, tau_s, memory, groups):
    """Number by number."""
    student, teacher = normalize(student), normalize(teacher)
    total = 0.0
    for i in range(len(student)):
        a, b = [], []
        if form == 'cross':
            a.append(teacher[i] @ teacher[i] / tau_t)
            b.append(student[i] @ teacher[i] / tau_s)
        for k in range(len(memory.group_ids)):
            if groups is not None and groups[i] == memory.group_ids[k]:
                continue
            other = memory.student if form == 'within' else memory.teacher
            a.append(teacher[i] @ memory.teacher[k] / tau_t)
            b.append(student[i] @ other[k] / tau_s)
        if not a:
            continue
        norm_a, norm_b = (sum(x.exp() for x in row) for row in (a, b))
        for x, y in zip(a, b, strict=True):
            total = total - x.exp() / norm_a * (y - norm_b.log())
    return total / len(student)


def check_equal(ours, reference, student):
    torch.testing.assert_close(ours, reference, rtol=0, atol=1e-10)
    grad = torch.autograd.grad(ours, student)[0]
    expected = torch.autograd.grad(reference, student)[0]
    torch.testing.assert_close(grad, expected, rtol=0, atol=1e-9)
    assert expected.abs().max() > 1e-3


@pytest.mark.parametrize('form', FORMS)
@pytest.mark.parametrize('taus', [(0.1, 0.2), (0.01, 0.2), (0.04, 0.04)])
@pytest.mark.parametrize('groups', [None, GROUPS], ids=['alone', 'groups'])
def test_equals_naive(form, taus, groups):
    student, teacher = make_rows()
    memory = make_memory()
    ours = make_loss(form, *taus)(student, teacher, memory, groups)
    reference = naive(student, teacher, form, *taus, memory, groups)
    check_equal(ours, reference, student)


def test_cross_is_seed():
    """Logits of the own teacher, then of the queue; cross-entropy."""
    student, teacher = make_rows()
    memory = make_memory()
    s, t = normalize(student), normalize(teacher)
    logits_t = torch.cat([(t * t).sum(1, True), t @ memory.teacher.T], 1)
    logits_s = torch.cat([(s * t).sum(1, True), s @ memory.teacher.T], 1)
    target = softmax(logits_t / 0.01, dim=1)
    original = -(target * log_softmax(logits_s / 0.2, dim=1)).sum(1).mean()
    ours = make_loss('cross', 0.01, 0.2)(student, teacher, memory)
    check_equal(ours, original, student)


def test_within_is_compress():
    """Its Kullback-Leibler divergence, and the entropy of the targets."""
    student, teacher = make_rows()
    memory = make_memory()
    target = softmax(normalize(teacher) @ memory.teacher.T / 0.04, dim=1)
    logits = normalize(student) @ memory.student.T / 0.04
    original = kl_div(
        log_softmax(logits, dim=1), target, reduction='batchmean'
    )
    entropy = -torch.special.xlogy(target, target).sum(dim=1).mean()
    ours = make_loss('within', 0.04, 0.04)(student, teacher, memory)
    check_equal(ours - entropy, original, student)


@pytest.mark.parametrize('form', FORMS)
def test_the_rest_of_the_batch_plays_no_part(form):
    student, teacher = make_rows()
    loss, memory = make_loss(form), make_memory()
    whole = loss(student, teacher, memory)
    each = [
        loss(s[None], t[None], memory)
        for s, t in zip(student, teacher, strict=True)
    ]
    torch.testing.assert_close(whole, torch.stack(each).mean())
    assert CMDLoss(form)(student, teacher, memory) != whole


@pytest.mark.parametrize('form', FORMS)
def test_the_first_step_only_fills_the_queue(form):
    student, teacher = make_rows()
    loss = make_loss(form)
    queue = FeatureQueue(8, 4, 4).double().train()
    groups = torch.arange(5)
    losses = torch.nn.ModuleDict(dict(cmd=loss))
    first = compare(student, teacher, groups, losses, queue)['loss_cmd']
    assert first == 0
    assert torch.autograd.grad(first, student)[0].eq(0).all()
    assert len(queue) == 5
    student, teacher = make_rows(seed=3)
    later = compare(student, teacher, groups, losses, queue)['loss_cmd']
    assert later > 0
    assert torch.autograd.grad(later, student)[0].abs().max() > 1e-3


def test_an_anchor_without_candidates_costs_nothing():
    student, teacher = make_rows()
    memory = make_memory()._replace(group_ids=torch.full((6,), 3))
    groups = torch.full((5,), 3)
    for form in FORMS:
        value = make_loss(form)(student, teacher, memory, groups)
        assert value == 0
        assert torch.autograd.grad(value, student)[0].abs().max() < 1e-12


@pytest.mark.parametrize('tau', [1e-4, 0.01])
def test_sharp_targets_stay_finite_in_single_precision(tau):
    memory = make_memory()
    memory = Memory(*(x.half() for x in memory[:2]), memory.group_ids)
    for form in FORMS:
        student, teacher = (x.detach().float() for x in make_rows())
        student.requires_grad_()
        value = make_loss(form, tau, 0.2)(student, teacher, memory, GROUPS)
        (grad,) = torch.autograd.grad(value, student)
        assert value.dtype == torch.float32
        assert value.isfinite() and grad.isfinite().all()


def test_widths_may_differ_within():
    student, teacher = draw(5, 3), draw(5, 4)
    memory = Memory(draw(6, 3), draw(6, 4), torch.arange(6))
    assert make_loss('within')(student, teacher, memory) > 0


@pytest.mark.parametrize('form', FORMS)
def test_no_queue_is_an_error_of_the_distiller(form):
    student, teacher = make_rows()
    for loss in (
        make_loss(form),
        CMCDLoss(dict(form=form, candidates='memory'), dict()),
    ):
        losses = torch.nn.ModuleDict(dict(cmd=loss))
        with pytest.raises(ConfigError, match='no queue'):
            compare(student, teacher, None, losses, None)


def test_dense_comparisons_have_no_queue():
    cfg = dict(type='mmcmcd.CMDLoss', candidates='memory')
    with pytest.raises(ConfigError, match="candidates='all'"):
        DenseComparison('dense', cfg)


def test_wrong_options_are_named():
    with pytest.raises(ConfigError, match="'all' or 'memory'"):
        CMDLoss(candidates='queue')
    with pytest.raises(ConfigError, match='include_self'):
        make_loss('within', include_self=True)
    with pytest.raises(ConfigError, match='include_self'):
        make_loss('cross', include_self=False)
    make_loss('cross', include_self=True)
