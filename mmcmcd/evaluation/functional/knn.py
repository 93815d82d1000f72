"""k-nearest-neighbour classification of embeddings; imports torch only."""

import torch
from torch import Tensor

from mmcmcd.errors import ConfigError

from .cosine import unit_rows

WEIGHTS = ('uniform', 'distance', 'softmax')
# Rows of the bank, and similarities, that are in double precision at a time.
_BANK_ROWS = 4096
_BLOCK = 2**20
# Distances below are those of equal embeddings.
_SAME = 1e-12


def knn_predict(*args, **kwargs) -> Tensor:
    """Classify embeddings by the votes of their nearest neighbours.

    Args:
        *args: See :func:`knn_votes`.
        **kwargs: See :func:`knn_votes`.

    Returns:
        Tensor: Classes (N, ); of classes with equally many votes the lowest,
        as in scikit-learn.
    """
    return knn_votes(*args, **kwargs).argmax(dim=1)


@torch.no_grad()
def knn_votes(
    bank: Tensor,
    bank_labels: Tensor,
    queries: Tensor,
    k: int,
    num_classes: int | None = None,
    weights: str = 'uniform',
    temperature: float = 0.07,
) -> Tensor:
    """Votes of the k labelled embeddings with the largest cosine.

    They are those of scikit-learn's ``KNeighborsClassifier(k, metric='cosine',
    algorithm='brute', weights=weights).predict_proba`` on float64 input:
    similarities are computed in float64, since in float32 rounding decides
    between near neighbours. Which of several *equally* distant rows take the
    last of the k places is left open, here as there.

    Args:
        bank (Tensor): Labelled embeddings (M, D), M >= k.
        bank_labels (Tensor): Their classes (M, ), integers from 0.
        queries (Tensor): (N, D), on the same device.
        k (int): Number of neighbours.
        num_classes (int, optional): C. Defaults to None: the largest label
            of the bank plus one.
        weights (str): ``'uniform'``; ``'distance'``, the inverse of
            ``1 - cosine``, where neighbours at distance zero (below 1e-12)
            outvote all others; or ``'softmax'``, ``exp(cosine /
            temperature)`` as in Wu et al., *Unsupervised Feature Learning
            via Non-Parametric Instance Discrimination*, CVPR 2018, section
            3.4. Defaults to 'uniform'.
        temperature (float): Of ``'softmax'``. Defaults to 0.07.

    Returns:
        Tensor: Shares (N, C) in float64; each row sums to 1.

    Raises:
        ConfigError: An argument is out of range.
    """
    check_knn(k, weights, temperature, len(bank))
    largest = int(bank_labels.max())
    num_classes = largest + 1 if num_classes is None else num_classes
    if int(bank_labels.min()) < 0 or largest >= num_classes:
        raise ConfigError(
            f'bank_labels lie in [{int(bank_labels.min())}, {largest}]; '
            f'expected [0, {num_classes - 1}] for num_classes={num_classes}.'
        )
    similarity, index = _nearest(bank, queries, k)
    strength = _strength(similarity, weights, temperature)
    strength /= strength.sum(dim=1, keepdim=True)
    votes = strength.new_zeros(len(queries), num_classes)
    return votes.scatter_add_(1, bank_labels.long()[index], strength)


def check_knn(
    k: int, weights: str, temperature: float, bank_size: int
) -> None:
    """Refuse settings that no bank, or not this one, allows.

    Args:
        k (int): See :func:`knn_votes`.
        weights (str): See :func:`knn_votes`.
        temperature (float): See :func:`knn_votes`.
        bank_size (int): Number of labelled embeddings.

    Raises:
        ConfigError: One of them is out of range.
    """
    if not 1 <= k <= bank_size:
        raise ConfigError(
            f'k={k} neighbours of a bank of {bank_size} labelled samples: '
            f'expected 1 to {bank_size}. Lower k, or enlarge the bank.'
        )
    if weights not in WEIGHTS:
        raise ConfigError(
            f"weights='{weights}' is unknown; expected one of {WEIGHTS}."
        )
    if temperature <= 0:
        raise ConfigError(f'temperature={temperature} must be positive.')


def _nearest(bank: Tensor, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the k largest cosines (N, k) and whose they are (N, k)."""
    best = queries.new_full((len(queries), k), -torch.inf, dtype=torch.double)
    index = torch.zeros_like(best, dtype=torch.long)
    # One buffer for all blocks: freed ones would leave holes in the heap.
    step = max(1, _BLOCK // _BANK_ROWS)
    buffer = best.new_empty(step, min(_BANK_ROWS, len(bank)))
    # The bank goes outside, so that no whole copy of it is in float64.
    for start in range(0, len(bank), _BANK_ROWS):
        tile = unit_rows(bank[start : start + _BANK_ROWS].double())
        for first in range(0, len(queries), step):
            rows = slice(first, first + step)
            unit = unit_rows(queries[rows].double())
            cosines = buffer[: len(unit), : len(tile)]
            torch.mm(unit, tile.T, out=cosines)
            found = cosines.topk(min(k, len(tile)), dim=1)
            values = torch.cat([best[rows], found.values], dim=1)
            columns = torch.cat([index[rows], found.indices + start], dim=1)
            best[rows], places = values.topk(k, dim=1)
            index[rows] = columns.gather(1, places)
    return best, index


def _strength(similarity: Tensor, weights: str, temperature: float) -> Tensor:
    """Weight (N, k) of each neighbour's vote, up to a factor of its row."""
    if weights == 'uniform':
        return torch.ones_like(similarity)
    if weights == 'softmax':
        # Relative to the nearest: exp() of a small temperature overflows.
        nearest = similarity.amax(dim=1, keepdim=True)
        return ((similarity - nearest) / temperature).exp_()
    distance = 1 - similarity
    same = distance < _SAME
    inverse = 1 / distance.clamp_min(_SAME)
    return torch.where(same.any(dim=1, keepdim=True), same, inverse)
