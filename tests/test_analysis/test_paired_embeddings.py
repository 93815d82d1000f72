import numpy as np
import pytest
import torch

from mmcmcd.analysis import paired_embeddings, rank_partners, unique_files
from mmcmcd.errors import ConfigError


def pair(source, target, source_row, target_row, label=None):
    return dict(
        source=source,
        target=target,
        label=label,
        source_row=torch.tensor(source_row, dtype=torch.float32),
        target_row=torch.tensor(target_row, dtype=torch.float32),
    )


def random_pairs(num_photos=7, sketches=3, dim=5):
    rng = np.random.default_rng(0)
    photos = rng.normal(size=(num_photos, dim))
    return unique_files(
        [
            pair(f'p{i}', f's{i}-{j}', photos[i], rng.normal(size=dim), i)
            for i in range(num_photos)
            for j in range(sketches)
        ],
        [f'class {i}' for i in range(num_photos)],
    )


def naive_rank(pairs, query_side, gallery_side, query):
    """Partners by name; rank of the best one, and all files by cosine."""
    queries, gallery = (pairs.sides[s] for s in (query_side, gallery_side))
    cosines = [
        float(queries.embeddings[query] @ row) for row in gallery.embeddings
    ]

    def photo(file):
        return file.split('-')[0][1:]

    mine = photo(queries.files[query])
    partners = [photo(file) == mine for file in gallery.files]
    best = max(c for c, p in zip(cosines, partners, strict=True) if p)
    ahead = sum(
        c > best for c, p in zip(cosines, partners, strict=True) if not p
    )
    order = sorted(range(len(cosines)), key=lambda i: -cosines[i])
    return 1 + ahead, order, partners


@pytest.mark.parametrize('sides', [('target', 'source'), ('source', 'target')])
@pytest.mark.parametrize('chunk', [4, 1000])
def test_ranking_is_that_of_a_loop(sides, chunk, monkeypatch):
    monkeypatch.setattr(paired_embeddings, '_CHUNK', chunk)
    pairs = random_pairs()
    ranking = rank_partners(pairs, *sides, topk=4)
    ranks = []
    for query in range(len(pairs.sides[sides[0]].files)):
        rank, order, partners = naive_rank(pairs, *sides, query)
        ranks.append(rank)
        assert ranking.rank[query] == rank
        assert ranking.top[query].tolist() == order[:4]
        assert partners[ranking.partner[query]]
        assert ranking.is_partner[query].tolist() == [
            partners[i] for i in order[:4]
        ]
    assert min(ranks) == 1 < max(ranks)


def test_shared_files_are_there_once():
    pairs = random_pairs(num_photos=3, sketches=4)
    assert pairs.sides['source'].files == ['p0', 'p1', 'p2']
    assert len(pairs.sides['target'].files) == 12
    assert pairs.links['source'].tolist() == [0] * 4 + [1] * 4 + [2] * 4
    norms = pairs.sides['target'].embeddings.norm(dim=1)
    assert torch.allclose(norms, torch.ones(12))


def test_ties_count_against_the_partner():
    rows = [pair(f'p{i}', f's{i}', [1, 0], [1, 0]) for i in range(5)]
    ranking = rank_partners(unique_files(rows), 'target', 'source', 9)
    assert ranking.rank.tolist() == [5] * 5
    assert ranking.top.shape == (5, 5)


def test_subset_keeps_pairs_together():
    pairs = random_pairs(num_photos=4, sketches=2)
    part = pairs.subset(np.array([1, 6, 7]))
    assert part.sides['source'].files == ['p0', 'p3']
    assert part.sides['target'].files == ['s0-1', 's3-0', 's3-1']
    assert part.links['source'].tolist() == [0, 1, 1]
    assert part.labels.tolist() == [0, 3, 3]
    assert torch.equal(
        part.sides['source'].embeddings[1], pairs.sides['source'].embeddings[3]
    )


def test_one_unknown_class_makes_all_unknown():
    rows = [pair('p0', 's0', [1], [1], 0), pair('p1', 's1', [1], [1])]
    assert unique_files(rows).labels is None


def test_spaces_of_different_size_are_refused():
    with pytest.raises(ConfigError, match='3 dimensions and the student in 2'):
        unique_files([pair('p', 's', [1, 0, 0], [1, 0])])
