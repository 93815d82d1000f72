import math

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from mmcmcd.errors import DatasetError
from mmcmcd.evaluation.functional import (
    fit_logistic,
    held_out_accuracy,
    median_distance,
    random_signs,
    split_groups,
)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def accuracy(source, target, seed=0, permutations=0, groups=None, **kwargs):
    """Of the held-out groups (G, 1 + P), the data as it is first."""
    groups = torch.arange(len(source)) if groups is None else groups
    generator = rng(seed)
    fitted = split_groups(groups, generator)
    signs = random_signs(groups, permutations, generator)
    signs = torch.cat([torch.ones(len(source), 1), signs], dim=1)
    return held_out_accuracy(
        source, target, groups, fitted, signs, generator=generator, **kwargs
    )


@pytest.mark.parametrize('weight_decay', [0.01, 0.1])
def test_logistic_regression_is_that_of_scikit_learn(weight_decay):
    x = torch.randn(90, 5, generator=rng(), dtype=torch.double)
    noise = torch.randn(90, 3, generator=rng(1), dtype=torch.double)
    labels = (x[:, :3] + 0.3 + noise).sign()
    found = fit_logistic(x, labels, weight_decay, steps=300)
    for column in range(3):
        model = LogisticRegression(
            C=1 / (weight_decay * len(x)), tol=1e-10, max_iter=1000
        ).fit(x, labels[:, column])
        expected = [*model.coef_[0], *model.intercept_]
        assert found[:, column].tolist() == pytest.approx(expected, abs=1e-6)


def test_held_out_accuracy_is_that_of_scikit_learn():
    source = torch.randn(60, 6, generator=rng(), dtype=torch.double)
    target = torch.randn(60, 6, generator=rng(1), dtype=torch.double) + 0.5
    # Thirty pairs of groups of three, the rest alone.
    groups = torch.cat([torch.arange(30) // 3, torch.arange(10, 40)])
    fitted = split_groups(groups, rng())
    found = held_out_accuracy(
        source,
        target,
        groups,
        fitted,
        torch.ones(60, 1),
        steps=300,
    )
    train = torch.cat([source[fitted], target[fitted]])
    labels = torch.tensor([1, -1]).repeat_interleave(int(fitted.sum()))
    # As Bessel corrects it, which StandardScaler does not.
    scaler = StandardScaler().fit(train)
    scaler.scale_ = train.std(dim=0).numpy()
    model = LogisticRegression(
        C=1 / (0.01 * len(train)), tol=1e-10, max_iter=1000
    ).fit(scaler.transform(train), labels)
    expected = []
    for number in groups[~fitted].unique():
        rows = (groups == number).nonzero().flatten()
        right = [model.predict(scaler.transform(source[rows])) == 1]
        right += [model.predict(scaler.transform(target[rows])) == -1]
        expected.append(sum(r.mean() for r in right) / 2)
    assert found[:, 0].tolist() == pytest.approx(expected)


def test_no_group_is_cut_in_two():
    groups = torch.arange(300) // 7
    fitted = split_groups(groups, rng())
    assert set(groups[fitted].tolist()).isdisjoint(groups[~fitted].tolist())
    number = len(groups[fitted].unique())
    assert number == (int(groups.max()) + 1) // 2
    with pytest.raises(DatasetError, match='got 3'):
        split_groups(torch.tensor([0, 0, 1, 2]), rng())


@pytest.mark.parametrize('distance', [0.5, 1.0, 2.0])
def test_gaussians_reach_their_total_variation(distance):
    """TV of N(0, I) and N(d, I) is 2 Phi(|d| / 2) - 1."""
    source = torch.randn(6000, 4, generator=rng())
    target = torch.randn(6000, 4, generator=rng(1))
    target[:, 0] += distance
    truth = math.erf(distance / 2 / math.sqrt(2))
    bound = float(2 * accuracy(source, target).mean() - 1)
    # Three standard errors of 3,000 held-out pairs.
    assert truth - 0.05 < bound < truth + 3 * 2 / math.sqrt(12000 * 2)


def test_the_kernel_sees_what_a_line_cannot():
    """Equal means, other spread."""
    source = torch.randn(2000, 4, generator=rng())
    target = 3 * torch.randn(2000, 4, generator=rng(1))
    line = float(2 * accuracy(source, target).mean() - 1)
    kernel = float(2 * accuracy(source, target, num_random=256).mean() - 1)
    assert line < 0.15
    assert kernel > 0.6


@pytest.mark.parametrize('noise', [0.0, 1e-3])
def test_near_equal_partners_leak_nothing(noise):
    """Each target row has its partner's features: to cut pairs would show."""
    for seed in range(5):
        source = torch.randn(200, 60, generator=rng(seed))
        target = source + noise * torch.randn(
            200, 60, generator=rng(seed + 50)
        )
        for number in (0, 128):
            found = accuracy(source, target, seed, num_random=number)
            assert abs(float(2 * found.mean() - 1)) < 0.2


@pytest.mark.parametrize('depend', [False, True])
def test_equal_distributions_are_seldom_told_apart(depend):
    """Of 20 nulls the p-values spread, and the bound stays near zero."""
    p_values, bounds = [], []
    for seed in range(20):
        pooled = torch.randn(200, 8, generator=rng(seed))
        source, target = pooled[:100], pooled[100:]
        if depend:
            source, target = source + target, source - target
            shared = torch.randn(100, 8, generator=rng(seed + 100))
            source, target = source + 2 * shared, target + 2 * shared
        found = 2 * accuracy(source, target, seed, 99).mean(dim=0) - 1
        observed, permuted = found[0], found[1:]
        p_values.append((1 + int((permuted >= observed).sum())) / 100)
        bounds.append(float(observed))
    assert sum(p <= 0.05 for p in p_values) <= 4
    assert min(p_values) < 0.5 < max(p_values)
    assert abs(sum(bounds) / 20) < 0.1


def test_swaps_are_the_same_within_a_group():
    groups = torch.arange(100) // 5
    signs = random_signs(groups, 50, rng())
    assert set(signs.unique().tolist()) == {-1, 1}
    by_group = signs.reshape(20, 5, 50)
    assert torch.equal(by_group, by_group[:, :1].expand(-1, 5, -1))
    assert abs(float(signs.mean())) < 0.15


def test_to_swap_labels_is_to_swap_rows():
    source = torch.randn(40, 3, generator=rng(), dtype=torch.double)
    target = torch.randn(40, 3, generator=rng(1), dtype=torch.double) + 1
    groups = torch.arange(40)
    fitted = split_groups(groups, rng())
    signs = random_signs(groups, 1, rng(2))
    swap = signs[:, 0] < 0
    rows = source.clone(), target.clone()
    rows[0][swap], rows[1][swap] = target[swap], source[swap]
    found = held_out_accuracy(source, target, groups, fitted, signs)
    expected = held_out_accuracy(*rows, groups, fitted, torch.ones_like(signs))
    assert torch.equal(found, expected)


def test_a_constant_feature_does_not_matter():
    source = torch.randn(100, 3, generator=rng())
    target = torch.randn(100, 3, generator=rng(1)) + 1
    more = [torch.cat([r, 0 * r + 0.1], dim=1) for r in (source, target)]
    expected = accuracy(source, target)
    assert torch.equal(accuracy(*more), expected)


def test_median_distance():
    rows = torch.tensor([[0.0], [1.0], [3.0]])
    assert median_distance(rows, rng()) == 2
    assert median_distance(torch.ones(4, 2), rng()) == 1
