"""Retrieval figures of paired embeddings; imports torch only."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

# Rows of the similarity matrix that exist at a time.
_CHUNK = 1024


def recall_at_k(
    queries: Tensor,
    gallery: Tensor,
    ks: Sequence[int],
    group_ids: Tensor | None = None,
) -> list[float]:
    """Share of queries whose partner is among the k most similar rows.

    Args:
        queries (Tensor): (N, D).
        gallery (Tensor): (N, D); row ``i`` is the partner of query ``i``.
        ks (Sequence[int]): The values of k.
        group_ids (Tensor, optional): Integers (N, ); every gallery row of
            the query's group counts as a partner. Defaults to the row alone.

    Returns:
        list[float]: Recalls in percent, one per k. Ties count as misses, so
        that a collapsed embedding scores zero.
    """
    queries, gallery = (
        F.normalize(x.float(), dim=1) for x in (queries, gallery)
    )
    if group_ids is None:
        group_ids = torch.arange(len(gallery), device=gallery.device)
    hits = torch.zeros(len(ks), dtype=torch.long)
    for start in range(0, len(queries), _CHUNK):
        rows = slice(start, start + _CHUNK)
        similarity = queries[rows] @ gallery.T
        partners = group_ids[rows, None] == group_ids[None]
        best = similarity.masked_fill(~partners, -2).amax(dim=1)
        others = similarity.masked_fill(partners, -2)
        # One rounding error apart is a tie.
        rank = (others >= best[:, None] - 1e-6).sum(dim=1)
        for index, k in enumerate(ks):
            hits[index] += int((rank < k).sum())
    return [100 * hit / len(queries) for hit in hits.tolist()]


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
    """
    first, second = (F.normalize(x.float(), dim=1) for x in (first, second))
    agreed = 0
    for start in range(0, len(first), _CHUNK):
        index = torch.arange(start, min(start + _CHUNK, len(first)))
        neighbours = []
        for rows in (first, second):
            similarity = rows[index] @ rows.T
            similarity[torch.arange(len(index)), index] = -2
            neighbours.append(similarity.topk(k, dim=1).indices)
        same = neighbours[0][:, :, None] == neighbours[1][:, None, :]
        agreed += int(same.any(dim=2).sum())
    return 100 * agreed / (len(first) * k)
