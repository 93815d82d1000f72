"""Cases that other projects test their contrastive losses with.

lightly: NTXentLoss and its memory bank; open_clip: the chunked SigLipLoss,
which is to equal the whole one; pytorch-metric-learning (PML): NTXentLoss of
pairs of labels.  The cases are theirs; the formulas and the values, worked out
by hand or by loops, are those of our losses.
"""

import math

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy, normalize

from mmcmcd.errors import ConfigError
from mmcmcd.models.losses import CMCLoss, CMDLoss, Memory, functional, tiled
from mmcmcd.models.losses.candidates import Candidates, Keep
from mmcmcd.models.losses.tiled import tiles
from mmcmcd.models.memory import FeatureQueue


@pytest.fixture(autouse=True, params=[None, (7, 5)], ids=['plain', 'tiled'])
def tile(request, monkeypatch):
    """The plain formulas, and tiles that divide no size."""
    if request.param is not None:
        monkeypatch.setattr(functional, '_PLAIN_UP_TO', 0)
        monkeypatch.setattr(tiles, 'choose_tile', lambda *_: request.param)


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def two_way_by_loops(student, teacher, temperature):
    """Mean of both directions of InfoNCE, number by number."""
    cosines = np.array(
        [
            [s @ t / np.linalg.norm(s) / np.linalg.norm(t) for t in teacher]
            for s in student
        ]
    )
    powers = np.exp(cosines / temperature)
    total = 0.0
    for i, own in enumerate(np.diag(powers)):
        total -= math.log(own / sum(powers[i])) / 2
        total -= math.log(own / sum(powers[:, i])) / 2
    return total / len(student)


# lightly, test_with_values
@pytest.mark.parametrize('batch', [2, 4])
@pytest.mark.parametrize('dim', [1, 2, 16, 64])
@pytest.mark.parametrize('temperature', [0.1, 1, 10])
def test_values_of_random_rows(batch, dim, temperature):
    student, teacher = draw(2, batch, dim)
    loss = CMCLoss(temperature)
    expected = two_way_by_loops(
        student.double().numpy(), teacher.double().numpy(), temperature
    )
    assert float(loss(student, teacher)) == pytest.approx(expected, abs=1e-5)
    assert float(loss(teacher, student)) == pytest.approx(expected, abs=1e-5)


# lightly, test_forward_pass and test_forward_pass_1d
@pytest.mark.parametrize('dim', [1, 32])
def test_both_directions_together_are_symmetric(dim):
    for batch in range(2, 20):
        student, teacher = draw(2, batch, dim, seed=batch)
        torch.testing.assert_close(
            CMCLoss()(student, teacher), CMCLoss()(teacher, student)
        )


# lightly, test_with_correlated_embedding: a bank that takes rounds to fill
@pytest.mark.parametrize('batch', [1, 2, 8, 16])
@pytest.mark.parametrize('size', [0, 1, 2, 8, 15, 16, 17])
@pytest.mark.parametrize('temperature', [0.1, 1.0, 7.0])
def test_rows_of_one_direction_leave_every_candidate_as_likely(
    batch, size, temperature
):
    student, teacher = torch.rand(2, batch, 1) * torch.tensor([1.0, 2.0]) + 1
    teacher[:, 1] = 2 * teacher[:, 0]
    student[:, 1] = 2 * student[:, 0]
    losses = {
        CMCLoss(temperature, symmetric=False): batch + size,
        CMDLoss('cross', temperature, temperature): batch + size,
        CMDLoss('within', temperature, temperature): batch - 1 + size,
    }
    memory = None
    if size:
        queue = FeatureQueue(size, 2, 2)
        for _ in range(size // batch + 2):
            queue.enqueue(student, teacher, torch.arange(batch))
        memory = queue.view()
        assert len(memory.teacher) == size
    for loss, candidates in losses.items():
        if batch == 1 and not size:
            with pytest.raises(ConfigError, match='nothing to contrast'):
                loss(student, teacher, memory)
            continue
        assert float(loss(student, teacher, memory)) == pytest.approx(
            math.log(candidates), abs=1e-5
        )
    if batch > 1 or size:
        both = CMCLoss(temperature)(student, teacher, memory)
        expected = (math.log(batch + size) + math.log(batch)) / 2
        assert float(both) == pytest.approx(expected, abs=1e-5)


# lightly, test_forward_pass_memory_bank
def test_batches_of_any_size_meet_a_bank():
    queue, loss = FeatureQueue(64, 32, 32), CMCLoss(symmetric=False)
    for batch in range(1, 20):
        student, teacher = draw(2, batch, 32, seed=batch)
        memory = queue.view()
        if memory is not None:
            assert len(memory.teacher) == min(64, batch * (batch - 1) // 2)
            others = torch.cat([normalize(teacher), memory.teacher])
            expected = cross_entropy(
                normalize(student) @ others.T / 0.07, torch.arange(batch)
            )
            torch.testing.assert_close(
                loss(student, teacher, memory), expected
            )
        queue.enqueue(student, teacher, torch.arange(batch))


# lightly, test_forward_pass_neg_temp; there, zero is an error as well
@pytest.mark.parametrize('temperature', [0, 0.0, -1.0, math.nan])
def test_temperatures_that_are_not_positive_are_refused(temperature):
    for build in (
        lambda: CMCLoss(temperature),
        lambda: CMDLoss(teacher_temperature=temperature),
        lambda: CMDLoss(student_temperature=temperature),
    ):
        with pytest.raises(ConfigError, match='must be positive'):
            build()


# What the formula gives by hand, for matched, unrelated and opposite rows
@pytest.mark.parametrize('batch', [2, 3, 8])
@pytest.mark.parametrize('temperature', [0.05, 0.5, 1.0])
def test_orthonormal_teachers(batch, temperature):
    rows = torch.eye(2 * batch, dtype=torch.float64)
    teacher, unrelated = rows[:batch], rows[batch:]
    loss, others = CMCLoss(temperature), batch - 1
    for student, expected in (
        (teacher, math.log(1 + others * math.exp(-1 / temperature))),
        (unrelated, math.log(batch)),
        (-teacher, math.log(1 + others * math.exp(1 / temperature))),
    ):
        # Lengths play no part.
        value = loss(7 * student, 0.1 * teacher)
        assert float(value) == pytest.approx(expected, abs=1e-10)
    # All others are alike to a teacher: the target is uniform, and so is
    # what an orthonormal student answers.
    within = CMDLoss('within', temperature, temperature)
    assert float(within(unrelated, teacher)) == pytest.approx(math.log(others))


# PML, test_ntxent_loss_with_ref: rows at angles, pairs of labels
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_rows_at_angles_with_labels(dtype):
    angles, labels = [0, 10, 20, 50, 60, 80], [0, 0, 0, 1, 1, 2]
    turned = [angle + 7 for angle in angles]
    student, teacher = (
        torch.tensor(
            [
                [math.cos(math.radians(a)), math.sin(math.radians(a))]
                for a in side
            ],
            dtype=dtype,
        )
        for side in (angles, turned)
    )
    expected = 0.0
    for i, angle in enumerate(angles):
        scores = [
            math.cos(math.radians(angle - other)) / 0.1
            for j, other in enumerate(turned)
            if i == j or labels[i] != labels[j]
        ]
        own = math.cos(math.radians(-7)) / 0.1
        expected += math.log(sum(map(math.exp, scores))) - own
    value = CMCLoss(0.1, symmetric=False)(
        student, teacher, group_ids=torch.tensor(labels)
    )
    assert float(value) == pytest.approx(expected / 6, rel=1e-5)


# PML, test_with_no_valid_pairs
def test_labels_that_leave_no_negative_cost_nothing():
    student, teacher = draw(2, 3, 2)
    student.requires_grad_()
    labels = torch.zeros(3, dtype=torch.long)
    for loss in (CMCLoss(0.1), CMDLoss('within'), CMDLoss('cross')):
        value = loss(student, teacher, group_ids=labels)
        assert value.abs() < 1e-6
        (gradient,) = torch.autograd.grad(value, student)
        assert gradient.abs().max() < 1e-5


# PML, test_backward
@pytest.mark.parametrize('dtype', [torch.float16, torch.float32, torch.double])
def test_every_precision_has_a_gradient(dtype):
    student, teacher = draw(2, 5, 2).to(dtype)
    student.requires_grad_()
    labels = torch.tensor([0, 0, 1, 1, 2])
    for loss in (CMCLoss(0.1), CMDLoss('within'), CMDLoss('cross')):
        value = loss(student, teacher, group_ids=labels)
        (gradient,) = torch.autograd.grad(value, student)
        assert gradient.dtype == dtype
        assert gradient.isfinite().all() and gradient.abs().max() > 0


def unit_rows(batch, seed=0, dim=32):
    return normalize(draw(batch, dim, seed=seed))


# open_clip, test_chunked_matches_reference_forward and _backward, and
# test_chunked_handles_uneven_chunks (70 rows)
@pytest.mark.parametrize('batch', [64, 70])
@pytest.mark.parametrize('chunk', [64, 32, 8, 1])
def test_chunks_equal_the_whole(batch, chunk):
    student, teacher = unit_rows(batch).requires_grad_(), unit_rows(batch, 1)
    candidates = Candidates(teacher)
    values = [
        functional.plain_info_nce(student, candidates, 0.1, Keep()),
        tiled.info_nce(student, candidates, 0.1, Keep(), tile=(batch, chunk)),
    ]
    gradients = [torch.autograd.grad(value, student)[0] for value in values]
    torch.testing.assert_close(*values, rtol=0, atol=1e-5)
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-5)


# open_clip, test_chunked_all_gradients: other numbers of rows, frozen towers
@pytest.mark.parametrize('anchors,others', [(19, 0), (11, 8)])
@pytest.mark.parametrize('chunk', [1, 7, 32])
@pytest.mark.parametrize('trained', [(True, True), (False, True)])
def test_all_gradients_of_chunks(anchors, others, chunk, trained):
    student, teacher = unit_rows(anchors), unit_rows(anchors + others, 1)
    inputs = student, torch.tensor(0.1)
    for value, trains in zip(inputs, trained, strict=True):
        value.requires_grad_(trains)
    wanted = [value for value in inputs if value.requires_grad]
    arguments = student, Candidates(teacher), inputs[1], Keep(), False
    values = [
        functional.plain_info_nce(*arguments),
        tiled.info_nce(*arguments, tile=(chunk, chunk)),
    ]
    torch.testing.assert_close(*values, rtol=1e-5, atol=1e-5)
    gradients = [torch.autograd.grad(value, wanted) for value in values]
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-5)


# open_clip, test_chunked_autocast_and_optional_bias
def test_autocast_changes_nothing():
    student, teacher = draw(35, 16).requires_grad_(), draw(35, 16, seed=1)
    for loss in (CMCLoss(), CMDLoss('within'), CMDLoss('cross')):
        outside = loss(student, teacher)
        with torch.autocast('cpu', torch.bfloat16):
            inside = loss(student, teacher)
        assert torch.equal(inside, outside)
        assert torch.equal(
            *(torch.autograd.grad(x, student)[0] for x in (inside, outside))
        )


# open_clip, test_chunked_no_grad
@pytest.mark.parametrize('requires_grad', [False, True])
def test_without_gradients_the_value_is_the_same(requires_grad):
    student, teacher = draw(19, 16), draw(19, 16, seed=1)
    for loss in (CMCLoss(), CMDLoss('within'), CMDLoss('cross')):
        expected = loss(student.requires_grad_(), teacher).detach()
        student.requires_grad_(requires_grad)
        with torch.no_grad():
            value = loss(student, teacher)
        assert not value.requires_grad
        torch.testing.assert_close(value, expected)
        student = student.detach()


# open_clip, test_siglip_large_low_precision_reduction_is_finite
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_a_sum_of_many_equal_scores_in_low_precision(dtype):
    student, teacher = torch.zeros(2, 256, 4, dtype=dtype)
    for loss, candidates in (
        (CMCLoss(), 256),
        (CMDLoss('cross'), 256),
        (CMDLoss('within'), 255),
    ):
        value = loss(student, teacher)
        assert value.dtype == torch.float32
        assert float(value) == pytest.approx(math.log(candidates), rel=1e-5)


# open_clip, test_chunked_saved_activation_memory
@pytest.mark.parametrize('form', ['within', 'cross', 'two_way'])
def test_the_backward_pass_keeps_rows_and_no_matrix(form):
    batch, dim, chunk = 256, 16, (16, 32)
    student, teacher = unit_rows(batch, 0, dim), unit_rows(batch, 1, dim)
    student.requires_grad_()
    memory = Memory(
        unit_rows(500, 2, dim), unit_rows(500, 3, dim), torch.arange(500)
    )
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda rows: rows):
        students = Candidates(student, memory.student)
        teachers = Candidates(teacher, memory.teacher)
        if form == 'two_way':
            value = tiled.info_nce(student, teachers, 0.1, Keep(), tile=chunk)
        else:
            value = tiled.soft_cross_entropy(
                student,
                students if form == 'within' else teachers,
                teacher,
                teachers,
                0.1,
                0.1,
                Keep(False),
                tile=chunk,
            )
    # One gradient of the anchors and, within, one of the candidates.
    assert sum(kept.values()) <= 2 * batch * dim * 4
    assert torch.autograd.grad(value, student)[0].isfinite().all()


# Memory smaller than the batch, and as wide as the teacher alone
def test_a_bank_smaller_than_the_batch_of_another_width():
    student, teacher = draw(20, 6), draw(20, 9, seed=1)
    queue = FeatureQueue(3, 9, 6)
    queue.enqueue(student, teacher, torch.arange(20))
    memory = queue.view()
    value = CMDLoss('within', 0.1, 0.2)(
        draw(4, 6, seed=2), teacher[:4], memory
    )
    students = normalize(torch.cat([draw(4, 6, seed=2), student[17:]]))
    teachers = normalize(torch.cat([teacher[:4], teacher[17:]]))
    expected = 0.0
    for i in range(4):
        others = [j for j in range(7) if j != i]
        target = (teachers[others] @ teachers[i] / 0.1).softmax(0)
        answer = (students[others] @ students[i] / 0.2).log_softmax(0)
        expected -= float(target @ answer) / 4
    assert float(value) == pytest.approx(expected, rel=1e-5)
