import itertools
import math

import pytest
import torch

from mmcmcd.errors import ConfigError
from mmcmcd.evaluation.functional.generalization import (
    confidence_term,
    margin_loss,
    rademacher_linear,
    rademacher_linear_monte_carlo,
    relational_discrepancy,
)


def rows(count, width, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, width, generator=generator).double()


def exact_complexity(features, radius, outputs):
    """Over all signs, of the supremum over all heads of a ball."""
    number = len(features)
    total = count = 0
    for flat in itertools.product((-1.0, 1.0), repeat=number * outputs):
        signs = torch.tensor(flat).reshape(number, outputs)
        best = 0.0
        for output in range(outputs):
            summed = sum(
                sign * row
                for sign, row in zip(signs[:, output], features, strict=True)
            )
            best += float(summed @ summed)
        total += radius * math.sqrt(best) / number
        count += 1
    return total / count


@pytest.mark.parametrize('outputs', [1, 2])
@pytest.mark.parametrize('width', [1, 3])
def test_the_two_estimates_of_the_complexity_agree(outputs, width):
    features = rows(5, width)
    exact = exact_complexity(features, 1.7, outputs)
    closed = rademacher_linear(features, 1.7, outputs)
    sampled, error = rademacher_linear_monte_carlo(
        features, 1.7, outputs, draws=4000
    )
    assert abs(sampled - exact) < 4 * error < 0.1 * exact
    assert exact <= closed <= math.sqrt(2) * exact


def test_orthogonal_features_make_the_closed_form_exact():
    features = 3 * torch.eye(6)
    closed = rademacher_linear(features, 2)
    sampled, error = rademacher_linear_monte_carlo(features, 2, draws=10)
    assert closed == pytest.approx(2 * 3 / math.sqrt(6))
    assert sampled == pytest.approx(closed)
    assert error == pytest.approx(0, abs=1e-12)


def test_one_repeated_feature_is_at_the_constant_of_khintchine():
    features = torch.ones(2, 1)
    closed = rademacher_linear(features, 1)
    exact = exact_complexity(features, 1, 1)
    assert closed == pytest.approx(math.sqrt(2) * exact)


def test_draws_in_blocks_are_as_many_as_asked():
    one = rademacher_linear_monte_carlo(rows(9, 4), 1, draws=1000, seed=3)
    assert one == rademacher_linear_monte_carlo(rows(9, 4), 1, seed=3)
    few = rademacher_linear_monte_carlo(rows(9, 4), 1, draws=250, seed=3)
    assert few[1] == pytest.approx(2 * one[1], rel=0.2)


def test_the_confidence_term():
    expected = 3 * math.sqrt(math.log(2 / 0.1) / 100)
    assert confidence_term(50, 0.1) == pytest.approx(expected)


def test_the_margin_loss_bounds_the_error():
    scores, labels = rows(200, 3), torch.arange(200) % 3
    naive, errors = 0.0, 0
    for row, label in zip(scores.tolist(), labels.tolist(), strict=True):
        other = max(v for k, v in enumerate(row) if k != label)
        naive += min(1, max(0, 1 - (row[label] - other)))
        errors += other >= row[label]
    assert margin_loss(scores, labels) == pytest.approx(naive / 200)
    assert margin_loss(scores, labels) >= errors / 200


def naive_discrepancy(teacher, student):
    cosines = [[], []]
    for i in range(len(teacher)):
        for j in range(i):
            for side, found in zip((teacher, student), cosines, strict=True):
                dot = float(side[i] @ side[j])
                found.append(dot / float(side[i].norm() * side[j].norm()))
    a, b = (torch.tensor(c) - sum(c) / len(c) for c in cosines)
    return 1 - float((a @ b) / (a.norm() * b.norm()))


def test_the_discrepancy_against_loops():
    teacher, student = rows(12, 4), rows(12, 7, seed=1)
    student[:, :4] += teacher
    found = relational_discrepancy(teacher, student)
    assert found == pytest.approx(naive_discrepancy(teacher, student))
    assert 0.1 < found < 0.9
    turned, _ = torch.linalg.qr(rows(7, 7, seed=2))
    assert relational_discrepancy(
        teacher, 5 * student @ turned
    ) == pytest.approx(found)
    assert relational_discrepancy(teacher, teacher) == pytest.approx(0)


@pytest.mark.parametrize(
    ('call', 'message'),
    [
        (lambda: rademacher_linear(torch.zeros(0, 3), 1), 'shape'),
        (lambda: rademacher_linear(torch.full((2, 2), torch.nan), 1), 'NaN'),
        (
            lambda: rademacher_linear_monte_carlo(rows(3, 2), 1, draws=1),
            'draws=1',
        ),
        (lambda: confidence_term(10, 1.0), 'delta'),
        (lambda: confidence_term(0), 'count'),
        (lambda: relational_discrepancy(rows(4, 2), rows(3, 2)), '4 and 3'),
        (
            lambda: relational_discrepancy(rows(4, 2), torch.ones(4, 2)),
            'equally similar',
        ),
    ],
    ids=['empty', 'nan', 'draws', 'delta', 'count', 'rows', 'constant'],
)
def test_what_makes_no_sense_is_refused(call, message):
    with pytest.raises(ConfigError, match=message):
        call()
