import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmcmcd.errors import ConfigError, DatasetError
from mmcmcd.evaluation.functional import (
    knn_votes,
    neighbour_overlap,
    retrieval,
    retrieval_figures,
)

KS = (1, 3, 5)


def naive_figures(queries, gallery, query_ids, gallery_ids, ks):
    """By ranking everything, in double precision, one query at a time."""
    unit = [x.double() / x.double().norm(dim=1)[:, None].clamp_min(1e-300)
            for x in (queries, gallery)]  # fmt: skip
    hits, precisions = dict.fromkeys(ks, 0), []
    for row, own in zip(unit[0], query_ids.tolist(), strict=True):
        # Ties: cosines equal to six digits, the irrelevant row first.
        ranked = sorted(
            (-round(float(row @ other), 6), int(other_id) == own)
            for other, other_id in zip(unit[1], gallery_ids, strict=True)
        )
        relevant = [is_relevant for _, is_relevant in ranked]
        for k in ks:
            hits[k] += any(relevant[:k])
        ranks = [i + 1 for i, found in enumerate(relevant) if found]
        found = [(i + 1) / rank for i, rank in enumerate(ranks)]
        precisions.append(sum(found) / len(found))
    figures = {f'R@{k}': 100 * hits[k] / len(queries) for k in ks}
    return figures | {'mAP': 100 * sum(precisions) / len(queries)}


@pytest.fixture(params=['blocks', 'one block', 'sorting'])
def route(request, monkeypatch):
    """Ways to the same figures."""
    if request.param != 'one block':
        monkeypatch.setattr(retrieval, '_BLOCK', 50)
    if request.param == 'sorting':
        monkeypatch.setattr(retrieval, '_FEW', 0)


CASES = dict(
    pairs=(torch.arange(30), torch.arange(30)),
    shared=(torch.arange(30) // 3, torch.arange(10)),
    many=(torch.arange(20) % 4, torch.arange(57) % 5),
    uneven=(
        torch.tensor([7, 7, -2, 9]),
        torch.tensor([9] * 12 + [7, -2, 5, 5]),
    ),
    all_relevant=(torch.zeros(4).long(), torch.zeros(7).long()),
)


@pytest.mark.parametrize('case', CASES)
def test_figures_equal_naive(case, route):
    ids = CASES[case]
    torch.manual_seed(0)
    centres = torch.randn(60, 6)
    queries, gallery = (centres[i] + 0.7 * torch.randn(len(i), 6) for i in ids)
    expected = naive_figures(queries, gallery, *ids, KS)
    found = retrieval_figures(queries, gallery, *ids, KS)
    assert found == pytest.approx(expected)
    if case == 'shared':
        assert 0 < found['R@1'] < found['R@5'] and found['mAP'] < 100


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_figures_equal_naive_with_ties(data):
    # Few different rows: nearly every similarity is tied.
    n, m = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 12))
    numbers = st.integers(-1, 1)

    def rows(count):
        row = st.lists(numbers, min_size=2, max_size=2)
        drawn = data.draw(st.lists(row, min_size=count, max_size=count))
        return torch.tensor(drawn).float()

    groups = st.lists(st.integers(0, 2), min_size=m, max_size=m)
    gallery_ids = data.draw(groups)
    wanted = st.sampled_from(sorted(set(gallery_ids)))
    query_ids = data.draw(st.lists(wanted, min_size=n, max_size=n))
    args = (rows(n), rows(m), torch.tensor(query_ids),
            torch.tensor(gallery_ids), KS)  # fmt: skip
    expected = pytest.approx(naive_figures(*args))
    with pytest.MonkeyPatch.context() as patch:
        for block, few in ((2**20, 256), (3, 256), (2**20, 0)):
            patch.setattr(retrieval, '_BLOCK', block)
            patch.setattr(retrieval, '_FEW', few)
            assert retrieval_figures(*args) == expected


def test_collapsed_embedding_scores_the_worst(route):
    rows = torch.ones(20, 4)
    ids = torch.arange(20)
    found = retrieval_figures(rows, rows, ids, ids, KS)
    assert found == pytest.approx({'R@1': 0, 'R@3': 0, 'R@5': 0, 'mAP': 5})
    # One rounding error does not lift it.
    jitter = rows + 1e-7 * torch.randn(20, 4)
    assert retrieval_figures(jitter, jitter, ids, ids, KS) == found


def test_perfect_embedding_scores_100(route):
    rows = torch.eye(8)[torch.arange(24) % 8]
    ids = torch.arange(24) % 8
    found = retrieval_figures(3 * rows, rows, ids, ids, (1,))
    assert found == {'R@1': 100, 'mAP': 100}


def test_the_whole_matrix_never_exists():
    rows = torch.randn(3000, 4)
    sizes = [
        similarity.numel()
        for _, similarity in retrieval._blocks(rows, rows, torch.arange(3000))
    ]
    assert sum(sizes) == 3000**2
    assert max(sizes) <= 2**21


def test_half_precision_is_computed_in_single():
    torch.manual_seed(0)
    rows, ids = torch.randn(50, 16).half(), torch.arange(50)
    found = retrieval_figures(rows, rows.flip(0), ids, ids)
    assert found == retrieval_figures(
        rows.float(), rows.flip(0).float(), ids, ids
    )


def test_unanswerable_questions_are_refused():
    rows, ids = torch.randn(4, 3), torch.arange(4)
    with pytest.raises(DatasetError, match='query 2 with id 9'):
        retrieval_figures(rows, rows, torch.tensor([0, 1, 9, 8]), ids)
    with pytest.raises(ConfigError, match='one id per row'):
        retrieval_figures(rows, rows, ids[:3], ids)
    for bad in (torch.nan, torch.inf):
        broken = rows.clone()
        broken[1, 1] = bad
        for pair in ((broken, rows), (rows, broken)):
            with pytest.raises(ConfigError, match='1 of 4 embeddings'):
                retrieval_figures(*pair, ids, ids)


@pytest.mark.parametrize('block', [3, 2**20])
def test_neighbour_overlap(monkeypatch, block):
    monkeypatch.setattr(retrieval, '_BLOCK', block)
    torch.manual_seed(0)
    rows = torch.randn(40, 8)
    rotation, _ = torch.linalg.qr(torch.randn(8, 8))
    assert neighbour_overlap(rows, rows @ rotation, 5) == pytest.approx(100)
    unrelated = neighbour_overlap(rows, torch.randn(40, 3), 5)
    assert unrelated < 35  # chance: 12.8


def test_neighbour_overlap_equals_naive():
    torch.manual_seed(0)
    pair = torch.randn(30, 4), torch.randn(30, 3)

    def nearest(rows, i):
        unit = rows / rows.norm(dim=1)[:, None]
        order = (unit @ unit[i]).argsort(descending=True).tolist()
        return {j for j in order if j != i and order.index(j) <= 5}

    shared = [
        len(nearest(pair[0], i) & nearest(pair[1], i)) for i in range(30)
    ]
    assert neighbour_overlap(*pair, 5) == pytest.approx(
        100 * sum(shared) / 150
    )


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs CUDA')
@pytest.mark.parametrize('case', CASES)
def test_a_gpu_finds_the_same(case, route):
    torch.manual_seed(0)
    ids = CASES[case]
    rows = [torch.randn(len(i), 16) for i in ids]
    found = retrieval_figures(*(x.cuda() for x in (*rows, *ids)), KS)
    assert found == pytest.approx(retrieval_figures(*rows, *ids, KS))
    arguments = rows[1].cuda(), ids[1].cuda().abs(), rows[0].cuda(), 3
    votes = knn_votes(*arguments, weights='distance').cpu()
    expected = knn_votes(
        *(x.cpu() if torch.is_tensor(x) else x for x in arguments),
        weights='distance',
    )
    torch.testing.assert_close(votes, expected)
