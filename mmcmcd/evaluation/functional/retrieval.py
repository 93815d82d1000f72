"""Retrieval figures of embeddings; imports torch only.

Matrices of similarities exist in blocks of some rows only, so that the memory
does not depend on the number of queries.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from mmcmcd.errors import ConfigError, DatasetError

from .cosine import row_norms, unit_rows

# Similarities that exist at a time: 8 MiB, which stay in the cache.
_BLOCK = 2**21
# More relevant rows than this are counted faster by sorting.
_FEW = 256
# Cosines that differ by less are one rounding error apart.
_TIE = 1e-6


@torch.no_grad()
def retrieval_figures(
    queries: Tensor,
    gallery: Tensor,
    query_ids: Tensor,
    gallery_ids: Tensor,
    ks: Sequence[int] = (1, 5, 10),
) -> dict[str, float]:
    """Recall at k and mean average precision of retrieval by cosine.

    Recall at k is the share of queries with a relevant row among the k most
    similar ones. Average precision of a query with m relevant rows is
    ``sum_i i / rank_i / m`` with the rank of its i-th best relevant row, over
    the whole gallery without interpolation (Manning et al., *Introduction to
    Information Retrieval*, 2008, section 8.4).

    Ties are resolved to the query's disadvantage: an irrelevant row that is
    as similar as a relevant one is ranked before it, so that a collapsed
    embedding scores the worst.

    Args:
        queries (Tensor): (N, D).
        gallery (Tensor): (M, D), on the same device.
        query_ids (Tensor): Integers (N, ).
        gallery_ids (Tensor): Integers (M, ). A row is relevant to a query
            with the same number.
        ks (Sequence[int]): The values of k. Defaults to (1, 5, 10).

    Returns:
        dict[str, float]: ``R@<k>`` for each k, and ``mAP``, in percent.

    Raises:
        ConfigError: Shapes do not fit, or an embedding is not finite.
        DatasetError: A query has no relevant row.
    """
    if (len(queries), len(gallery)) != (len(query_ids), len(gallery_ids)):
        raise ConfigError(
            f'{len(queries)} queries with {len(query_ids)} ids and '
            f'{len(gallery)} gallery rows with {len(gallery_ids)} ids: '
            'expected one id per row.'
        )
    order, first, number = _relevant_rows(query_ids, gallery_ids)
    hits = torch.zeros(len(ks), dtype=torch.long, device=queries.device)
    ks = torch.tensor(ks, device=queries.device)
    total = hits.new_zeros((), dtype=torch.double)
    # Queries with about as many relevant rows go together.
    for rows, similarity in _blocks(queries, gallery, number.argsort()):
        step = torch.arange(int(number[rows].max()), device=queries.device)
        last = number[rows, None] - 1
        # Shorter lists repeat their last row, and do not count it.
        relevant = order[first[rows, None] + torch.minimum(step, last)]
        before = _irrelevant_before(similarity, relevant, step <= last)
        precision = (step + 1) / (step + 1 + before).double()
        precision.masked_fill_(step > last, 0)
        total += (precision.sum(dim=1) / number[rows]).sum()
        hits += (before[:, :1] < ks).sum(dim=0)
    figures = {
        f'R@{k}': 100 * hit / len(queries)
        for k, hit in zip(ks.tolist(), hits.tolist(), strict=True)
    }
    return {**figures, 'mAP': 100 * float(total) / len(queries)}


@torch.no_grad()
def neighbour_overlap(first: Tensor, second: Tensor, k: int) -> float:
    """Mean share of k nearest neighbours that two embeddings agree on.

    It compares similarity structures, so the two spaces may differ in
    dimension and orientation.

    Args:
        first (Tensor): (N, D).
        second (Tensor): (N, D') of the same N samples, N > k.
        k (int): Number of neighbours, the sample itself left out.

    Returns:
        float: Percent; chance is ``100 * k / (N - 1)``.

    Raises:
        ConfigError: An embedding is not finite.
    """
    everyone = torch.arange(len(first), device=first.device)
    agreed = 0
    for one, other in zip(
        _blocks(first, first, everyone),
        _blocks(second, second, everyone),
        strict=True,
    ):
        neighbours = []
        for rows, similarity in (one, other):
            similarity.scatter_(1, rows[:, None], -torch.inf)
            neighbours.append(similarity.topk(k, dim=1).indices)
        same = neighbours[0][:, :, None] == neighbours[1][:, None, :]
        agreed += int(same.any(dim=2).sum())
    return 100 * agreed / (len(first) * k)


@torch.no_grad()
def location_errors(
    queries: Tensor, gallery: Tensor, cells: Tensor
) -> tuple[Tensor, Tensor]:
    """Tell how far from home the locations of one map find themselves.

    Each location of one map asks the other map of the same image for itself,
    by cosine. Ties go against it: an equally similar location is ranked
    before its own, and of equally similar best ones the farthest counts.

    Args:
        queries (Tensor): (L, D), L > 0.
        gallery (Tensor): (L, D), of the same cells.
        cells (Tensor): Row and column (L, 2) of both.

    Returns:
        tuple[Tensor, Tensor]: Rank (L, ) of the own cell, from 1, and
        Euclidean distance (L, ) from it to the most similar one, in cells.

    Raises:
        ConfigError: An embedding is not finite.
    """
    everyone = torch.arange(len(queries), device=queries.device)
    parts = []
    for rows, similarity in _blocks(queries, gallery, everyone):
        own = similarity.gather(1, rows[:, None])
        best = similarity.amax(dim=1, keepdim=True)
        away = (cells[rows, None] - cells).float()
        away = torch.linalg.vector_norm(away, dim=2)
        away.masked_fill_(similarity < best - _TIE, 0)
        ranks = (similarity >= own - _TIE).sum(dim=1)
        parts.append((ranks, away.amax(dim=1)))
    ranks, distances = map(torch.cat, zip(*parts, strict=True))
    return ranks, distances


def _blocks(
    queries: Tensor, gallery: Tensor, order: Tensor
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield indices (R, ) of queries and their cosines (R, M).

    The cosines lie in one buffer for all blocks.
    """
    gallery = gallery.float()
    # Scaling the product spares a normalised copy of the gallery.
    scale = 1 / row_norms(gallery)
    step = max(1, _BLOCK // len(gallery))
    buffer = gallery.new_empty(min(step, len(order)), len(gallery))
    for rows in order.split(step):
        unit = unit_rows(queries[rows].float())
        similarity = torch.mm(unit, gallery.T, out=buffer[: len(rows)])
        yield rows, similarity.mul_(scale)


def _relevant_rows(
    query_ids: Tensor, gallery_ids: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Look the relevant rows of every query up.

    Returns:
        tuple[Tensor, Tensor, Tensor]: Gallery indices (M, ) in the order of
        their ids; where in it those of each query begin (N, ), and how many
        they are (N, ).
    """
    ids, order = gallery_ids.sort()
    first = torch.searchsorted(ids, query_ids)
    number = torch.searchsorted(ids, query_ids, right=True) - first
    lonely = (number == 0).nonzero().flatten()
    if len(lonely):
        query = int(lonely[0])
        raise DatasetError(
            f'{len(lonely)} of {len(query_ids)} queries have no relevant row '
            f'in the gallery, the first is query {query} with id '
            f'{int(query_ids[query])}. Leave them out, or add what they '
            'shall find to the gallery.'
        )
    return order, first, number


def _irrelevant_before(
    similarity: Tensor, relevant: Tensor, valid: Tensor
) -> Tensor:
    """Count what is ranked before the i-th best relevant row.

    Args:
        similarity (Tensor): (R, M); the relevant entries are overwritten.
        relevant (Tensor): Columns (R, m) of the relevant rows.
        valid (Tensor): Which of them count (R, m), the first ones.

    Returns:
        Tensor: Numbers (R, m) of irrelevant rows, ascending; arbitrary where
        not valid.
    """
    scores = similarity.gather(1, relevant).masked_fill_(~valid, -torch.inf)
    scores = scores.sort(dim=1, descending=True).values.sub_(_TIE)
    similarity.scatter_(1, relevant, -torch.inf)
    if relevant.shape[1] > _FEW:
        return _count_by_sorting(similarity, scores)
    return _count_by_comparing(similarity, scores)


def _count_by_comparing(similarity: Tensor, scores: Tensor) -> Tensor:
    counts = torch.empty_like(scores, dtype=torch.long)
    # Summing floats is several times as fast as summing booleans, and exact
    # up to 2^24.
    reached = torch.empty_like(similarity)
    for index in range(scores.shape[1]):
        torch.ge(similarity, scores[:, index : index + 1], out=reached)
        counts[:, index] = reached.sum(dim=1)
    return counts


def _count_by_sorting(similarity: Tensor, scores: Tensor) -> Tensor:
    ascending = similarity.sort(dim=1).values
    return similarity.shape[1] - torch.searchsorted(ascending, scores)
