import os

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import KNeighborsClassifier

from mmcmcd.errors import ConfigError
from mmcmcd.evaluation.functional import knn, knn_predict, knn_votes


def sklearn_votes(bank, labels, queries, k, weights):
    """What scikit-learn predicts, in float64."""
    if weights == 'softmax':
        # Distance is 1 - cosine, and a common factor changes no share.
        def weights(distance):
            return np.exp(-distance / 0.07)

    model = KNeighborsClassifier(
        k, weights=weights, metric='cosine', algorithm='brute'
    ).fit(bank.double(), labels)
    return model.predict_proba(queries.double()), model.predict(
        queries.double()
    )


def assert_equal_to_sklearn(bank, labels, queries, k, weights):
    shares, classes = sklearn_votes(bank, labels, queries, k, weights)
    got = knn_votes(bank, labels, queries, k, weights=weights)
    # scikit-learn has no column for a class without sample.
    got = got[:, labels.unique()]
    np.testing.assert_allclose(got, shares, rtol=0, atol=1e-12)
    got = knn_predict(bank, labels, queries, k, weights=weights)
    np.testing.assert_array_equal(got, classes)


@pytest.fixture(params=['blocks', 'one block'])
def route(request, monkeypatch):
    if request.param == 'blocks':
        monkeypatch.setattr(knn, '_BANK_ROWS', 13)
        monkeypatch.setattr(knn, '_BLOCK', 40)


@pytest.mark.parametrize('weights', ['uniform', 'distance', 'softmax'])
@pytest.mark.parametrize('k', [1, 4, 60])
def test_votes_are_those_of_sklearn(weights, k, route):
    rng = torch.manual_seed(0)
    bank = torch.randn(60, 8, generator=rng)
    labels = torch.randint(0, 6, (60,), generator=rng)
    labels[labels == 2] = 3  # a class without sample
    queries = torch.randn(47, 8, generator=rng)
    assert_equal_to_sklearn(bank, labels, queries, k, weights)


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    size=st.integers(1, 40),
    count=st.integers(1, 20),
    width=st.integers(2, 9),
    classes=st.integers(1, 7),
    weights=st.sampled_from(['uniform', 'distance', 'softmax']),
    data=st.data(),
)
def test_votes_are_those_of_sklearn_for_any_size(
    seed, size, count, width, classes, weights, data
):
    rng = torch.Generator().manual_seed(seed)
    bank = torch.randn(size, width, generator=rng)
    labels = torch.randint(0, classes, (size,), generator=rng)
    queries = torch.randn(count, width, generator=rng)
    k = data.draw(st.integers(1, size))
    assert_equal_to_sklearn(bank, labels, queries, k, weights)


def test_equally_many_votes_go_to_the_lowest_class():
    bank = torch.tensor([[1.0, 0.1], [1.0, 0.2], [1.0, 0.3], [1.0, 0.4]])
    labels = torch.tensor([3, 1, 1, 3])
    queries = torch.tensor([[1.0, 0.0], [1.0, 0.5]])
    assert_equal_to_sklearn(bank, labels, queries, 4, 'uniform')
    assert knn_predict(bank, labels, queries, 4).tolist() == [1, 1]


def test_duplicates_of_the_query_outvote_all_others():
    # Along the axes, where no rounding blurs a distance of zero.
    bank = torch.eye(3)[[0, 0, 1, 2]]
    labels = torch.tensor([2, 0, 1, 1])
    queries = torch.tensor([[5.0, 0.0, 0.0], [0.0, 1.0, 1.0]])
    assert_equal_to_sklearn(bank, labels, queries, 4, 'distance')
    votes = knn_votes(bank, labels, queries, 4, weights='distance')
    assert votes[0].tolist() == [0.5, 0, 0.5]
    # Here rounding does: scikit-learn's answer depends on it, ours not.
    torch.manual_seed(0)
    row = torch.randn(1, 50)
    bank = torch.cat([row, 3 * row, torch.randn(5, 50)])
    labels = torch.arange(7)
    votes = knn_votes(bank, labels, row / 7, 7, weights='distance')
    assert votes[0, :2].tolist() == [0.5, 0.5]


@pytest.mark.skipif(
    'MMCMCD_REALDATA' not in os.environ, reason='needs MMCMCD_REALDATA'
)
@pytest.mark.parametrize('weights', ['uniform', 'distance', 'softmax'])
def test_votes_are_those_of_sklearn_on_real_features(weights):
    """Thumbnails of photos, every one of which has many sketches."""
    import csv
    from pathlib import Path

    import cv2

    root = Path(os.environ['MMCMCD_REALDATA']) / 'sketchy125'
    rows = list(csv.DictReader((root / 'pairs.csv').open()))
    photos = {r['photo']: r for r in rows}.values()
    classes = sorted({r['class'] for r in rows})
    features = {'train': [], 'test': []}
    labels = {'train': [], 'test': []}
    for row in photos:
        image = cv2.imread(str(root / row['photo']), cv2.IMREAD_GRAYSCALE)
        thumbnail = cv2.resize(image, (12, 12), interpolation=cv2.INTER_AREA)
        features[row['split']].append(thumbnail.ravel().astype(np.float32))
        labels[row['split']].append(classes.index(row['class']))
    bank, queries = (
        torch.from_numpy(np.stack(features[s])) for s in ('train', 'test')
    )
    # Every photo three times in the bank: k is a multiple of three, so that
    # no duplicate competes for the last place.
    bank = bank.repeat(3, 1)
    label = torch.tensor(labels['train']).repeat(3)
    for k in (3, 21):
        assert_equal_to_sklearn(bank, label, queries, k, weights)


def test_a_small_temperature_does_not_overflow():
    bank, labels = torch.eye(3), torch.arange(3)
    queries = torch.tensor([[1.0, 0.9, 0.0]])
    votes = knn_votes(
        bank, labels, queries, 3, weights='softmax', temperature=1e-5
    )
    assert votes.tolist() == [[1, 0, 0]]


@pytest.mark.parametrize(
    'change, message',
    [
        (dict(k=6), 'k=6 neighbours of a bank of 5'),
        (dict(k=0), 'expected 1 to 5'),
        (dict(weights='gauss'), "weights='gauss' is unknown"),
        (dict(temperature=0), 'must be positive'),
        (dict(num_classes=4), r'bank_labels lie in \[0, 4\]'),
        (dict(queries=torch.full((2, 3), torch.nan)), 'hold NaN'),
    ],
)
def test_wrong_arguments_are_named(change, message):
    arguments = dict(
        bank=torch.randn(5, 3),
        bank_labels=torch.arange(5),
        queries=torch.randn(2, 3),
        k=3,
    )
    with pytest.raises(ConfigError, match=message):
        knn_votes(**{**arguments, **change})
