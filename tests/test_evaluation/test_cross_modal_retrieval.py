import pytest
import torch
from mmpretrain.structures import DataSample

from mmcmcd.evaluation import functional
from mmcmcd.evaluation.functional import neighbour_overlap, recall_at_k
from mmcmcd.registry import METRICS


def naive_recall(queries, gallery, k, groups):
    unit = [x / x.norm(dim=1, keepdim=True) for x in (queries, gallery)]
    hits = 0
    for i, row in enumerate(unit[0]):
        scores = [float(row @ other) for other in unit[1]]
        order = sorted(range(len(scores)), key=lambda j: -scores[j])
        hits += any(groups[j] == groups[i] for j in order[:k])
    return 100 * hits / len(queries)


@pytest.mark.parametrize('chunk', [3, 1024])
@pytest.mark.parametrize(
    'groups', [list(range(10)), [0, 0, 1, 2, 2, 2, 3, 4, 5, 6]]
)
def test_recall_equals_naive(monkeypatch, chunk, groups):
    monkeypatch.setattr(functional.retrieval, '_CHUNK', chunk)
    torch.manual_seed(0)
    gallery = torch.randn(10, 6)
    queries = gallery + torch.randn(10, 6)
    expected = [naive_recall(queries, gallery, k, groups) for k in (1, 3, 5)]
    got = recall_at_k(queries, gallery, (1, 3, 5), torch.tensor(groups))
    assert got == pytest.approx(expected)
    assert 0 < got[0] < got[2]


def test_collapsed_embedding_scores_zero():
    rows = torch.ones(20, 4)
    assert recall_at_k(rows, rows, (1, 5)) == [0, 0]


@pytest.mark.parametrize('chunk', [3, 1024])
def test_neighbour_overlap(monkeypatch, chunk):
    monkeypatch.setattr(functional.retrieval, '_CHUNK', chunk)
    torch.manual_seed(0)
    rows = torch.randn(40, 8)
    rotation, _ = torch.linalg.qr(torch.randn(8, 8))
    assert neighbour_overlap(rows, rows @ rotation, 5) == pytest.approx(100)
    unrelated = neighbour_overlap(rows, torch.randn(40, 3), 5)
    assert unrelated < 35  # chance: 12.8


def make_samples(source, target):
    samples = []
    for index, (s, t) in enumerate(zip(source, target, strict=True)):
        sample = DataSample(metainfo=dict(group_index=index))
        sample.source_embedding, sample.target_embedding = s, t
        samples.append(sample)
    return samples


def test_metric_gathers_batches():
    torch.manual_seed(0)
    source = torch.randn(30, 8)
    target = torch.cat([source[:15], torch.randn(15, 8)])
    metric = METRICS.build(
        dict(type='mmcmcd.CrossModalRetrieval', topk=(1, 5))
    )
    samples = make_samples(source, target)
    for start in range(0, 30, 7):
        batch = samples[start : start + 7]
        metric.process(None, [s.to_dict() | s.metainfo for s in batch])
    figures = metric.evaluate(30)
    assert set(figures) == {
        'retrieval/R@1',
        'retrieval/R@5',
        'retrieval/neighbours@10',
    }
    assert 50 <= figures['retrieval/R@1'] <= figures['retrieval/R@5'] < 90


def test_metric_without_a_common_space_or_enough_pairs():
    metric = METRICS.build(dict(type='mmcmcd.CrossModalRetrieval'))
    samples = make_samples(torch.randn(12, 8), torch.randn(12, 4))
    metric.process(None, [s.to_dict() | s.metainfo for s in samples])
    assert list(metric.evaluate(12)) == ['retrieval/neighbours@10']
    metric.process(None, [s.to_dict() | s.metainfo for s in samples[:5]])
    assert metric.evaluate(5) == {}
