import io
import json
import math
import os
import sys

import pytest
import torch
from conftest import run_command
from torch.nn.functional import normalize

from mmcmcd.errors import ConfigError
from mmcmcd.models.distillers import DenseComparison
from mmcmcd.models.losses import Memory, PrototypeLoss, functional
from mmcmcd.models.losses.tiled import tiles
from mmcmcd.registry import MODELS

DIM = 5


@pytest.fixture(params=['plain', 'tiled'])
def way(request, monkeypatch):
    """Let the loss be plain or tiled, whatever the size of the problem."""
    if request.param == 'tiled':
        monkeypatch.setattr(functional, '_PLAIN_UP_TO', 0)
        monkeypatch.setattr(tiles, 'choose_tile', lambda *_: (3, 2))


def draw(count, seed=0):
    gen = torch.Generator().manual_seed(seed)
    return torch.randn(count, DIM, generator=gen, dtype=torch.float64)


def make_loss(number=4, **kwargs):
    return PrototypeLoss(DIM, number, **kwargs).double()


def unit(row):
    return row / sum(x * x for x in row).sqrt()


class NaiveKMeans:
    """Spherical k-means in mini-batches, row by row."""

    def __init__(self, number, momentum):
        self.number, self.momentum = number, momentum
        self.sums = [torch.zeros(DIM, dtype=torch.double)] * number
        self.counts = [0.0] * number

    def learn(self, rows):
        rows = [unit(row) for row in rows]
        order = torch.randperm(len(rows)).tolist()
        share = len(rows) / self.number
        least = 0.1 * sum(self.counts) / self.number
        for k in range(self.number):
            if self.counts[k] <= least:
                self.sums[k] = share * rows[order[k % len(rows)]]
                self.counts[k] = share
        centres = self.centres
        members = [[] for _ in range(self.number)]
        for row in rows:
            scores = [float(row @ centre) for centre in centres]
            members[scores.index(max(scores))].append(row)
        m = self.momentum
        for k, own in enumerate(members):
            total = sum(own, torch.zeros(DIM, dtype=torch.double))
            self.sums[k] = (1 - m) * self.sums[k] + m * total
            self.counts[k] = (1 - m) * self.counts[k] + m * len(own)

    @property
    def centres(self):
        return [unit(total) for total in self.sums]


def naive_loss(student, teacher, centres, tau_teacher, tau_student):
    total = 0
    for s, t in zip(student, teacher, strict=True):
        target = [(unit(t) @ c / tau_teacher).exp() for c in centres]
        scores = [unit(s) @ c / tau_student for c in centres]
        log_sum = sum(score.exp() for score in scores).log()
        for p, score in zip(target, scores, strict=True):
            total = total - p / sum(target) * (score - log_sum)
    return total / len(student)


@pytest.mark.parametrize('number', [2, 9])
@pytest.mark.parametrize('taus', [(0.05, 0.1), (0.3, 0.2)])
@pytest.mark.parametrize('momentum', [0.1, 0.7])
def test_value_and_gradient_equal_loops(way, number, taus, momentum):
    loss = make_loss(number, **_temperatures(taus), momentum=momentum)
    naive = NaiveKMeans(number, momentum)
    for step in range(4):
        student, teacher = draw(9, 2 * step), draw(9, 2 * step + 1)
        student.requires_grad_()
        torch.manual_seed(step)
        value = loss(student, teacher)
        torch.manual_seed(step)
        naive.learn(teacher)
        expected = naive_loss(student, teacher, naive.centres, *taus)
        torch.testing.assert_close(value, expected)
        torch.testing.assert_close(
            *(torch.autograd.grad(v, student)[0] for v in (value, expected))
        )
        torch.testing.assert_close(loss.prototypes, torch.stack(naive.centres))
        torch.testing.assert_close(loss.counts.tolist(), naive.counts)


def _temperatures(taus):
    return dict(
        zip(('teacher_temperature', 'student_temperature'), taus, strict=True)
    )


def test_more_prototypes_than_rows():
    """Rows serve twice at first; then all prototypes find their own."""
    loss = make_loss(20)
    student, teacher = draw(9), draw(9, 1)
    torch.manual_seed(0)
    value = loss(student, teacher)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(0))
    rows = normalize(teacher)[order]
    centres = rows[torch.arange(20) % 9]
    torch.testing.assert_close(loss.prototypes, centres)
    expected = naive_loss(student, teacher, centres, 0.05, 0.1)
    torch.testing.assert_close(value, expected)
    for seed in range(100):
        loss(student, draw(9, seed))
    scores = loss.prototypes @ loss.prototypes.T
    assert scores.fill_diagonal_(0).max() < 0.999


def test_gradient_is_that_of_finite_differences(way):
    loss, teacher = make_loss(), draw(6, 1)
    loss(draw(6), teacher)
    loss.eval()
    student = draw(6).requires_grad_()
    assert torch.autograd.gradcheck(lambda s: loss(s, teacher), student)


def blobs(number=4, each=50, seed=0):
    """Rows around as many directions, which are axes."""
    gen = torch.Generator().manual_seed(seed)
    labels = torch.arange(number).repeat(each)
    noise = 0.1 * torch.randn(len(labels), DIM, generator=gen)
    return (torch.eye(DIM)[labels] + noise).double(), labels


def test_prototypes_become_the_centroids_of_clusters():
    """Wherever they begin, for those that stay empty restart."""
    for seed in range(3):
        torch.manual_seed(seed)
        loss = make_loss(12)
        for step in range(60):
            rows, labels = blobs(seed=step)
            loss(rows, rows)
        own = loss.prototypes[:, :4].argmax(dim=1)
        assert set(own.tolist()) == {0, 1, 2, 3}
        nearest = (normalize(rows) @ loss.prototypes.T).argmax(dim=1)
        assert torch.equal(own[nearest], labels)
        assert loss.prototypes.amax(dim=1).min() > 0.9


def test_sharp_targets_are_the_nearest_prototype():
    loss = make_loss(teacher_temperature=1e-4, student_temperature=1.0)
    teacher, student = draw(30, 1), draw(30, 2)
    value = loss(student, teacher)
    nearest = (normalize(teacher) @ loss.prototypes.T).argmax(dim=1)
    scores = normalize(student) @ loss.prototypes.T
    hard = torch.nn.functional.cross_entropy(scores, nearest)
    torch.testing.assert_close(value, hard)


def test_loss_is_at_its_minimum_where_the_sides_agree():
    loss = make_loss(**_temperatures((0.1, 0.1)))
    teacher = draw(20, 1)
    loss(teacher, teacher)
    loss.eval()
    least = loss(teacher, teacher)
    for seed in range(2, 7):
        assert loss(teacher + 0.1 * draw(20, seed), teacher) > least


def test_checkpoints_keep_the_prototypes():
    loss = make_loss(20)
    for seed in range(3):
        loss(draw(9), draw(9, seed))
    stored = io.BytesIO()
    torch.save(loss.state_dict(), stored)
    stored.seek(0)
    again = make_loss(20)
    again.load_state_dict(torch.load(stored))
    values = []
    for each in (loss, again):
        torch.manual_seed(3)
        values.append([each(draw(9), draw(9, seed)) for seed in range(3)])
    assert values[0] == values[1]


def test_evaluation_leaves_the_prototypes_alone():
    loss = make_loss().eval()
    assert loss(draw(9), draw(9, 1)) == pytest.approx(math.log(4))
    assert not loss.prototypes.any()
    loss.train()(draw(9), draw(9, 1))
    before = {name: value.clone() for name, value in loss.named_buffers()}
    loss.eval()(draw(9), draw(9, 2))
    for name, value in loss.named_buffers():
        assert torch.equal(value, before[name])


def test_backward_may_come_after_another_forward():
    loss, students = make_loss(), [draw(9, i).requires_grad_() for i in (0, 1)]
    values = [loss(student, draw(9, 2)) for student in students]
    for value, student in zip(values, students, strict=True):
        value.backward()
        assert student.grad.any()


def test_a_row_that_overflowed_is_forgotten():
    loss = make_loss()
    for seed in range(3):
        teacher = draw(9, seed)
        teacher[4] = torch.inf
        loss(draw(9), teacher)
    assert loss.prototypes.isfinite().all()
    assert loss(draw(9), draw(9, 5)).isfinite()


def test_memory_and_groups_have_no_effect():
    loss = make_loss()
    loss(draw(9), draw(9, 1))
    loss.eval()
    memory = Memory(draw(3), draw(3), torch.arange(3))
    alone = loss(draw(9), draw(9, 1))
    groups = torch.zeros(9, dtype=torch.long)
    assert loss(draw(9), draw(9, 1), memory, groups) == alone
    assert loss(draw(9), draw(9, 1), None, groups, groups) == alone


def test_half_precision_rows_are_compared_in_single_precision():
    loss = PrototypeLoss(DIM, 4)
    student = draw(9).bfloat16().requires_grad_()
    with torch.autocast('cpu', torch.bfloat16):
        value = loss(student, draw(9, 1).bfloat16())
    assert value.dtype == loss.sums.dtype == torch.float32
    value.backward()
    assert student.grad.isfinite().all()


def dense(**kwargs):
    loss = dict(type='mmcmcd.PrototypeLoss', num_features=DIM)
    return DenseComparison('cells', loss, **kwargs)


def test_it_compares_locations():
    compare = dense(locations_per_image=4)
    student = torch.randn(3, DIM, 2, 3, requires_grad=True)
    (value,) = compare(
        student, torch.randn(3, DIM, 2, 3), torch.tensor([0, 0, 1])
    ).values()
    value.backward()
    assert student.grad.any() and compare.loss.prototypes.any()
    assert 'loss.sums' in compare.state_dict()


@pytest.mark.parametrize(
    'options',
    [
        dict(candidates='image'),
        dict(candidates='others'),
        dict(exclusion_radius=1),
    ],
)
def test_choices_without_effect_are_refused(options):
    with pytest.raises(ConfigError, match='have no effect'):
        dense(**options)


@pytest.mark.parametrize(
    'left_out',
    [dict(within_blocks=True), dict(excluded=torch.tensor([[0, 1]]))],
)
def test_it_leaves_no_rows_out(left_out):
    rows = torch.randn(2, 3, DIM)
    with pytest.raises(ConfigError, match='have no effect on it'):
        dense().loss(*rows, **left_out)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(num_prototypes=1), 'num_prototypes must be at least 2'),
        (dict(momentum=0), 'momentum must be between 0 and 1'),
        (dict(momentum=1), 'momentum must be between 0 and 1'),
        (dict(teacher_temperature=0), 'teacher_temperature must be positive'),
        (dict(student_temperature=-1), 'student_temperature must be positive'),
    ],
)
def test_values_out_of_range(change, message):
    cfg = dict(type='mmcmcd.PrototypeLoss', num_features=DIM)
    with pytest.raises(ConfigError, match=message):
        MODELS.build(cfg | change)


def test_widths_that_do_not_fit():
    with pytest.raises(ConfigError, match=f'out_channels={DIM}'):
        make_loss()(draw(9)[:, :3], draw(9))
    with pytest.raises(ConfigError, match='Set num_features=3'):
        make_loss()(draw(9)[:, :3], draw(9)[:, :3])


MEASURE = """
import json

import torch

from mmcmcd.apis.measuring import peak_memory, reset_peak_memory
from mmcmcd.models.losses import PrototypeLoss


def peak(batch, dim=8, number=1024):
    student = torch.randn(batch, dim, requires_grad=True)
    teacher, loss = torch.randn(batch, dim), PrototypeLoss(dim, number)
    before = reset_peak_memory()
    loss(student, teacher).backward()
    return peak_memory() - before


peak(512)  # loads what is loaded once
print(json.dumps([peak(batch) for batch in (4096, 16384)]))
"""


@pytest.mark.skipif(
    not os.access('/proc/self/clear_refs', os.W_OK),
    reason='needs the peak memory that Linux keeps of a process',
)
def test_memory_is_flat():
    """Scores of 16,384 rows would be 64 MiB, and there are three of them."""
    run = run_command(
        [sys.executable, '-c', MEASURE],
        MALLOC_MMAP_THRESHOLD_='65536',
        MALLOC_TRIM_THRESHOLD_='65536',
    )
    assert run.returncode == 0, run.stderr
    small, large = json.loads(run.stdout.splitlines()[-1])
    assert large < 64 * 2**20
    assert large < 1.5 * small
