"""Whitening of a teacher's rows."""

import itertools

import pytest
import torch
from sklearn.decomposition import PCA

from mmcmcd.errors import ConfigError
from mmcmcd.models.distillers import Whiten
from mmcmcd.models.distillers.source_norm import (
    apply_source_norm,
    build_source_norm,
)

DIM = 6


def make_norm(momentum=1.0, shrinkage=0.0, **kwargs):
    return Whiten(DIM, momentum, shrinkage, **kwargs).double()


def draw(count=200, seed=0):
    """Correlated rows of different scales around a mean."""
    gen = torch.Generator().manual_seed(seed)
    rows = torch.randn(count, DIM, generator=gen, dtype=torch.double)
    mixing = torch.randn(
        DIM, DIM, generator=torch.Generator().manual_seed(99)
    ).double()
    return rows @ mixing * torch.tensor([1, 2, 5, 10, 0.3, 1]) + 7


def covariance(rows):
    return rows.T.cov(correction=0)


def test_output_is_white_and_centred():
    white = make_norm()(draw())
    identity = torch.eye(DIM, dtype=torch.double)
    torch.testing.assert_close(covariance(white), identity)
    torch.testing.assert_close(white.mean(0), 0 * white[0])


def test_it_is_the_whitening_of_pca_up_to_a_rotation():
    rows = draw()
    white = make_norm()(rows)
    pca = torch.from_numpy(PCA(whiten=True).fit_transform(rows.numpy()))
    pca = pca * (len(rows) / (len(rows) - 1)) ** 0.5  # sklearn's n - 1
    torch.testing.assert_close(white @ white.T, pca @ pca.T)


def test_the_matrix_is_symmetric_and_positive():
    """Which makes it that of ZCA, as close to the rows as can be."""
    norm = make_norm()
    norm(draw())
    torch.testing.assert_close(norm.matrix, norm.matrix.T)
    assert torch.linalg.eigvalsh(norm.matrix).min() > 0


@pytest.mark.parametrize('shrinkage', [0.1, 0.5, 1.0])
def test_shrinkage_is_towards_equal_variances(shrinkage):
    rows = draw()
    norm = make_norm(shrinkage=shrinkage)
    white = norm(rows)
    cov = covariance(rows)
    variance = cov.trace() / DIM
    identity = torch.eye(DIM, dtype=torch.double)
    shrunk = (1 - shrinkage) * cov + shrinkage * variance * identity
    torch.testing.assert_close(norm.matrix @ shrunk @ norm.matrix, identity)
    if shrinkage == 1:
        expected = (rows - rows.mean(0)) / variance.sqrt()
        torch.testing.assert_close(white, expected)


@pytest.mark.parametrize('shrinkage', [0.0, 0.1])
@pytest.mark.parametrize('count', [1, 3])
def test_fewer_rows_than_features_stay_finite(shrinkage, count):
    norm = Whiten(DIM, shrinkage=shrinkage)
    white = norm(draw(count).float())
    assert white.isfinite().all()
    # Nothing is blown up: rows are at most as far out as they can be.
    assert white.abs().max() < 10


def test_statistics_are_averages_of_batches():
    norm = make_norm(momentum=0.4)
    batches = [draw(30, seed) for seed in range(4)]
    means, covs = (
        [f(rows) for rows in batches]
        for f in (lambda r: r.mean(0), covariance)
    )
    for rows in batches:
        norm(rows)
    # The first are averaged evenly, until a batch's share is the momentum.
    for found, values in (
        (norm.running_mean, means),
        (norm.running_cov, covs),
    ):
        expected = 0.6 * (0.6 * (values[0] + values[1]) / 2 + 0.4 * values[2])
        expected = expected + 0.4 * values[3]
        torch.testing.assert_close(found, expected)
    torch.testing.assert_close(
        covariance((draw(99) - norm.running_mean) @ norm.matrix),
        covariance(norm.eval()(draw(99))),
    )


def test_evaluation_changes_nothing():
    norm = make_norm(momentum=0.1).eval()
    assert torch.equal(norm(draw()), draw())  # before any training
    norm.train()(draw())
    before = {k: v.clone() for k, v in norm.state_dict().items()}
    norm.eval()(draw(seed=1))
    torch.testing.assert_close(norm.state_dict(), before, rtol=0, atol=0)


def test_checkpoints_continue_the_averages():
    norms = [make_norm(momentum=0.1, interval=3) for _ in range(2)]
    for seed in range(2):
        norms[0](draw(seed=seed))
    norms[1].load_state_dict(norms[0].state_dict())
    for seed in range(2, 5):
        outputs = [norm(draw(seed=seed)) for norm in norms]
        assert torch.equal(*outputs)


def test_the_matrix_is_renewed_at_intervals():
    norm = make_norm(momentum=0.5, interval=3)
    matrices = []
    for seed in range(7):
        norm(draw(seed=seed))
        matrices.append(norm.matrix.clone())
    renewed = [not torch.equal(a, b) for a, b in itertools.pairwise(matrices)]
    assert renewed == [False, False, True, False, False, True]


def test_a_batch_that_overflowed_is_forgotten():
    norm = make_norm(momentum=0.1)
    norm(draw())
    before = norm.running_cov.clone()
    rows = draw(seed=1)
    rows[3, 2] = torch.inf
    norm(rows)
    assert torch.equal(norm.running_cov, before)


def test_it_is_a_source_norm():
    cfg = dict(type='mmcmcd.Whiten', num_features=DIM)
    norm = build_source_norm(cfg, 'source_norm')
    rows = apply_source_norm(norm, draw().half(), 'source_norm')
    assert rows.dtype == torch.float32
    with pytest.raises(ConfigError, match='num_features=6, but'):
        apply_source_norm(norm, draw()[:, :3], 'source_norm')


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(shrinkage=1.5), 'shrinkage must be from 0 to 1'),
        (dict(interval=0), 'interval must be at least 1'),
    ],
)
def test_values_out_of_range(change, message):
    with pytest.raises(ConfigError, match=message):
        Whiten(DIM, **change)
