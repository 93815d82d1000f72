import math

import pytest
import torch

from mmcmcd.errors import DatasetError
from mmcmcd.evaluation.functional import (
    alignment_rows,
    centroid_gap,
    cka_jackknife,
    join_groups,
    linear_cka,
    mmd_squared,
    random_signs,
    tv_similarity_rows,
    uniformity,
)
from mmcmcd.evaluation.functional.cosine import unit_rows
from mmcmcd.models.losses import CMDLoss

GROUPS = torch.tensor([0, 1, 2, 2, 3, 4, 0, 5, 6])


def rows(size, width, seed=0, shift=0.0):
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(size, width, generator=generator, dtype=torch.double)
    return unit_rows(drawn + shift)


def test_groups_are_joined_by_anything_shared():
    joined = join_groups(
        [7, 8, 9, 10, 11], ['a', 'b', 'b', 'c', 'd'], ['x', 'y', 'z', 'z', 'w']
    )
    assert joined.tolist() == [0, 1, 1, 1, 2]
    assert join_groups([5, 3, 5]).tolist() == [0, 1, 0]


def naive_tv(source, target, groups, form, tau_t, tau_s):
    tv, kl = [], []
    for i in range(len(source)):
        weights = []
        for j in range(len(source)):
            if form == 'within' and i == j:
                continue
            if i != j and groups[i] == groups[j]:
                continue
            other = target[j] if form == 'within' else source[j]
            weights.append(
                (
                    math.exp(float(source[i] @ source[j]) / tau_t),
                    math.exp(float(target[i] @ other) / tau_s),
                )
            )
        p, q = ([w / sum(a) for w in a] for a in zip(*weights, strict=True))
        pairs = list(zip(p, q, strict=True))
        tv.append(sum(abs(a - b) for a, b in pairs) / 2)
        kl.append(sum(a * math.log(a / b) for a, b in pairs))
    return tv, kl


@pytest.mark.parametrize('form', ['within', 'cross'])
def test_tv_of_similarities(form):
    source, target = rows(9, 4), rows(9, 4, 1)
    found = tv_similarity_rows(source, target, GROUPS, form, 0.1, 0.3)
    expected = naive_tv(source, target, GROUPS, form, 0.1, 0.3)
    for values, wanted in zip(found, expected, strict=True):
        assert values.tolist() == pytest.approx(wanted)
    tv, kl = (values.mean() for values in found)
    assert tv <= (kl / 2).sqrt()


@pytest.mark.parametrize('form', ['within', 'cross'])
def test_the_divergence_is_cmd_less_the_entropy(form):
    source, target = rows(9, 4), rows(9, 4, 1)
    groups = torch.arange(9)
    cmd = CMDLoss(form, 0.1, 0.3)(target, source, None, groups)
    own = CMDLoss(form, 0.1, 0.1)(source, source, None, groups)
    _, kl = tv_similarity_rows(source, target, groups, form, 0.1, 0.3)
    assert float(cmd - own) == pytest.approx(float(kl.mean()))


def test_tv_of_similarities_does_not_see_a_rotation():
    source = rows(20, 6)
    turned = source @ torch.linalg.qr(rows(6, 6, 1)).Q
    groups = torch.arange(20)
    tv, _ = tv_similarity_rows(source, turned, groups, 'within', 0.1, 0.1)
    assert float(tv.max()) < 1e-12
    tv, _ = tv_similarity_rows(source, turned, groups, 'cross', 0.1, 0.1)
    assert float(tv.mean()) > 0.1


def test_without_a_candidate_there_is_no_tv():
    groups = torch.tensor([0, 0, 0])
    tv, _ = tv_similarity_rows(rows(3, 2), rows(3, 2, 1), groups)
    assert tv.isnan().all()


def naive_mmd(source, target, groups, width):
    def k(x, y):
        return math.exp(-float((x - y).square().sum()) / (2 * width**2))

    values = []
    for i in range(len(source)):
        for j in range(len(source)):
            if groups[i] != groups[j]:
                values.append(
                    k(source[i], source[j])
                    + k(target[i], target[j])
                    - k(source[i], target[j])
                    - k(source[j], target[i])
                )
    return sum(values) / len(values)


def test_mmd_and_its_swaps(monkeypatch):
    # Two rows of the kernel at a time.
    module = 'mmcmcd.evaluation.functional.modality_distance._BLOCK'
    monkeypatch.setattr(module, 18)
    source, target = rows(9, 4), rows(9, 4, 1, shift=0.5)
    signs = random_signs(GROUPS, 6, torch.Generator().manual_seed(0))
    found = mmd_squared(source, target, GROUPS, 0.7, signs)
    assert found.value == pytest.approx(naive_mmd(source, target, GROUPS, 0.7))
    for column, value in zip(signs.T, found.signed, strict=True):
        swap = (column < 0)[:, None]
        swapped = (
            torch.where(swap, target, source),
            torch.where(swap, source, target),
        )
        assert float(value) == pytest.approx(naive_mmd(*swapped, GROUPS, 0.7))
    assert abs(float(found.influence.mean())) < 1e-12


def test_mmd_is_unbiased_and_tests_hold_their_level():
    values, rejected = [], 0
    groups = torch.arange(40)
    for seed in range(100):
        source, target = rows(40, 3, seed), rows(40, 3, seed + 1000)
        # Partners depend on each other, their distributions are equal.
        source, target = (
            unit_rows(source + target),
            unit_rows(source + rows(40, 3, seed + 2000)),
        )
        generator = torch.Generator().manual_seed(seed)
        signs = random_signs(groups, 99, generator)
        found = mmd_squared(source, target, groups, 1.0, signs)
        values.append(found.value)
        p = (1 + int((found.signed >= found.value).sum())) / 100
        rejected += p <= 0.05
    values = torch.tensor(values)
    assert abs(float(values.mean())) < 3 * float(values.std()) / 10
    assert rejected <= 12  # of 5 expected: P(more) is about 0.1 %


def test_mmd_sees_a_shift():
    groups = torch.arange(100)
    source, target = rows(100, 3), rows(100, 3, 1, shift=1.0)
    generator = torch.Generator().manual_seed(0)
    signs = random_signs(groups, 99, generator)
    found = mmd_squared(source, target, groups, 1.0, signs)
    assert found.value > 5 * float(found.signed.abs().max())


def test_uniformity():
    points = rows(9, 4)
    terms = [
        math.exp(-2 * float((points[i] - points[j]).square().sum()))
        for i in range(9)
        for j in range(9)
        if GROUPS[i] != GROUPS[j]
    ]
    expected = math.log(sum(terms) / len(terms))
    assert uniformity(points, GROUPS).value == pytest.approx(expected)
    same = points[:1].expand(9, -1)
    assert uniformity(same, GROUPS).value == pytest.approx(0)
    with pytest.raises(DatasetError, match='one group'):
        uniformity(points, torch.zeros(9))


def test_the_influence_gives_the_error_of_uniformity():
    found = [uniformity(rows(100, 3, s), torch.arange(100)) for s in range(60)]
    truth = torch.tensor([f.value for f in found]).std()
    guess = sum(f.influence.square().mean() / 100 for f in found) / 60
    # The part of single rows vanishes on a sphere: it errs on the safe side.
    assert 0.8 * truth < guess.sqrt() < 2.5 * truth


def test_alignment_and_centroids():
    source, target = rows(9, 4), rows(9, 4, 1, shift=1.0)
    expected = [
        sum(float(a - b) ** 2 for a, b in zip(s, t, strict=True))
        for s, t in zip(source, target, strict=True)
    ]
    assert alignment_rows(source, target).tolist() == pytest.approx(expected)
    distance, influence = centroid_gap(source, target)
    gap = [float(source[:, d].mean() - target[:, d].mean()) for d in range(4)]
    assert distance == pytest.approx(math.hypot(*gap))
    assert float(influence.mean()) == pytest.approx(0, abs=1e-12)
    # A pair that counts a little more moves the distance by its influence.
    weights = torch.full((9, 1), 1 / 9, dtype=torch.double)
    weights[3] += 1e-6
    moved = (weights / weights.sum() * (source - target)).sum(dim=0).norm()
    assert float(moved) - distance == pytest.approx(
        1e-6 * float(influence[3]), rel=1e-3
    )
    assert centroid_gap(source, source)[0] == 0


def hsic(k, other):
    """Biased, by kernels: tr(K H L H)."""
    n = len(k)
    h = torch.eye(n, dtype=k.dtype) - 1 / n
    return torch.trace(k @ h @ other @ h)


def unbiased_hsic(k, other):
    """Song et al., equation 4, up to 1 / (n (n - 3)), by loops."""
    n = len(k)
    k, other = k.clone().fill_diagonal_(0), other.clone().fill_diagonal_(0)
    trace = sum(k[i, j] * other[j, i] for i in range(n) for j in range(n))
    cross = sum(
        k[i, j] * other[j, m]
        for i in range(n)
        for j in range(n)
        for m in range(n)
    )
    return (
        trace
        + k.sum() * other.sum() / ((n - 1) * (n - 2))
        - 2 / (n - 2) * cross
    )


@pytest.mark.parametrize('debiased', [False, True])
def test_cka_by_kernels(debiased):
    x, y = rows(9, 4), 0.5 * rows(9, 4) @ rows(4, 6, 1) + rows(9, 6, 2)
    k, other = x @ x.T, y @ y.T
    form = unbiased_hsic if debiased else hsic
    expected = form(k, other) / (form(k, k) * form(other, other)).sqrt()
    found = linear_cka(x, y, debiased)
    assert found == pytest.approx(float(expected))
    blocks = torch.arange(9) % 3
    value, without = cka_jackknife(x, y, blocks, debiased)
    assert value == found
    for block, figure in enumerate(without.tolist()):
        kept = blocks != block
        assert figure == pytest.approx(linear_cka(x[kept], y[kept], debiased))


@pytest.mark.parametrize('debiased', [False, True])
def test_cka_does_not_see_rotation_scale_and_place(debiased):
    x, y = rows(30, 5), rows(30, 4, 1)
    moved = 3 * x @ torch.linalg.qr(rows(5, 5, 2)).Q + 7
    expected = linear_cka(x, y, debiased)
    assert linear_cka(moved, y, debiased) == pytest.approx(expected)
    assert linear_cka(x, moved, debiased) == pytest.approx(1)


def test_cka_of_unrelated_wide_features():
    x, y = rows(20, 200), rows(20, 200, 1)
    assert linear_cka(x, y) > 0.8
    assert abs(linear_cka(x, y, debiased=True)) < 0.1


def test_cka_of_a_constant_is_unknown():
    assert math.isnan(linear_cka(rows(9, 3), rows(9, 3)[:1].expand(9, -1)))
