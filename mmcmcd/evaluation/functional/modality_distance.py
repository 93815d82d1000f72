"""How far apart two modalities lie in one embedding; torch, scipy's graphs.

Rows are of unit length, as the losses compare them
(:func:`mmcmcd.evaluation.functional.cosine.unit_rows`); row ``i`` of source
and target is one pair.  Functions that end in ``_rows`` give one value for
each pair, whose mean is the figure.
"""

from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from mmcmcd.errors import DatasetError

# Entries of a kernel matrix that exist at a time: 16 MiB.
_BLOCK = 2**22


class PairMean(NamedTuple):
    """A mean over pairs of pairs.

    Attributes:
        value (float): The figure.
        influence (Tensor): How far each pair moves it, (N, ); the variance
            of the figure is about that of their mean.
        signed (Tensor): The figure after each swap, (P, ).
    """

    value: float
    influence: Tensor
    signed: Tensor


def join_groups(*partitions: Sequence[Hashable]) -> Tensor:
    """Number pairs (N, ) from 0, equally where they share any value.

    Args:
        *partitions (Sequence): For instance groups, source files and target
            files of N pairs.

    Returns:
        Tensor: Integers (N, ), 0 to G - 1.
    """
    size = len(partitions[0])
    rows, columns, width = [], [], size
    for values in partitions:
        seen = {}
        rows += range(size)
        columns += [width + seen.setdefault(v, len(seen)) for v in values]
        width += len(seen)
    links = coo_array((np.ones(len(rows)), (rows, columns)), (width, width))
    _, numbers = connected_components(links, directed=False)
    _, numbers = np.unique(numbers[:size], return_inverse=True)
    return torch.from_numpy(numbers)


def tv_similarity_rows(
    source: Tensor,
    target: Tensor,
    groups: Tensor,
    form: str = 'within',
    teacher_temperature: float = 0.1,
    student_temperature: float = 0.2,
) -> tuple[Tensor, Tensor]:
    r"""Total variation between the distributions that CMD compares.

    .. math::
        TV_i = \tfrac12 \sum_j |p_{ij} - q_{ij}|,\quad
        p_i = \mathrm{softmax}_j(t_i \cdot t_j / \tau_t)

    and :math:`q_i` of :math:`s_i \cdot s_j / \tau_s` (within, without
    :math:`j = i`) or :math:`s_i \cdot t_j / \tau_s` (cross, with it).
    Others of a pair's group are no candidates. By the inequalities of
    Pinsker and Jensen the mean of TV is at most ``sqrt(mean(KL) / 2)``, and
    the mean of KL is the cross-entropy of CMD less the entropy of p.

    Args:
        source (Tensor): t, unit rows (B, D).
        target (Tensor): s, unit rows (B, D'); D' = D in the cross form.
        groups (Tensor): Integers (B, ).
        form (str): 'within' or 'cross'. Defaults to 'within'.
        teacher_temperature (float): :math:`\tau_t`. Defaults to 0.1.
        student_temperature (float): :math:`\tau_s`. Defaults to 0.2.

    Returns:
        tuple[Tensor, Tensor]: TV and Kullback-Leibler divergence
        KL(p || q) in nats, (B, ) each; nan for a pair without a candidate.
    """
    hidden = groups[:, None] == groups
    hidden.fill_diagonal_(form == 'within')
    candidates = target if form == 'within' else source
    log_p, log_q = (
        scores.masked_fill(hidden, -torch.inf).log_softmax(dim=1)
        for scores in (
            source @ source.T / teacher_temperature,
            target @ candidates.T / student_temperature,
        )
    )
    p = log_p.exp()
    kl = (p * (log_p - log_q)).masked_fill(hidden, 0).sum(dim=1)
    return (p - log_q.exp()).abs().sum(dim=1) / 2, kl


def alignment_rows(source: Tensor, target: Tensor) -> Tensor:
    """Squared distance of partners (N, ), from 0 to 4.

    Its mean is the alignment of Wang and Isola, *Understanding Contrastive
    Representation Learning through Alignment and Uniformity on the
    Hypersphere*, ICML 2020, with exponent 2.

    Args:
        source (Tensor): Unit rows (N, D).
        target (Tensor): Unit rows (N, D).
    """
    return (source - target).square().sum(dim=1)


def uniformity(rows: Tensor, groups: Tensor) -> PairMean:
    r"""Log mean of :math:`e^{-2 |x - y|^2}` over rows of different groups.

    Wang and Isola, as above, with their t = 2: 0 if all rows are equal, and
    the lower the more evenly they fill the sphere.

    Args:
        rows (Tensor): Unit rows (N, D).
        groups (Tensor): Integers (N, ).

    Returns:
        PairMean: Without swaps.

    Raises:
        DatasetError: All pairs are of one group.
    """

    def kernel(part, right):
        return _squared_distances(rows[part], rows[right]).mul_(-2).exp_()

    mean = _mean_over_pairs(kernel, groups, rows)
    influence = mean.influence / mean.value
    return PairMean(float(np.log(mean.value)), influence, mean.signed)


def mmd_squared(
    source: Tensor,
    target: Tensor,
    groups: Tensor,
    width: float,
    signs: Tensor | None = None,
) -> PairMean:
    r"""Squared maximum mean discrepancy of a Gaussian kernel, unbiased.

    .. math::
        h_{ij} = k(s_i, s_j) + k(t_i, t_j) - k(s_i, t_j) - k(s_j, t_i),\quad
        k(x, y) = e^{-|x - y|^2 / 2 \sigma^2}

    averaged over i and j of different groups (Gretton et al., *A Kernel
    Two-Sample Test*, JMLR 2012, equation 4, which leaves out i = j): partners
    may depend on each other. To swap the rows of pair i multiplies
    :math:`h_{ij}` by -1.

    Args:
        source (Tensor): Unit rows (N, D).
        target (Tensor): Unit rows (N, D).
        groups (Tensor): Integers (N, ).
        width (float): :math:`\sigma`.
        signs (Tensor, optional): Swaps (N, P), see
            :func:`~mmcmcd.evaluation.functional.two_sample.random_signs`.

    Returns:
        PairMean: May be negative where the distributions are equal.

    Raises:
        DatasetError: All pairs are of one group.
    """
    scale = -1 / (2 * width**2)

    def kernel(part, right):
        total = torch.zeros((), device=source.device)
        for first, second, sign in (
            (source, source, 1),
            (target, target, 1),
            (source, target, -1),
            (target, source, -1),
        ):
            distances = _squared_distances(first[part], second[right])
            total = distances.mul_(scale).exp_().mul_(sign).add_(total)
        return total

    return _mean_over_pairs(kernel, groups, source, signs)


def centroid_gap(source: Tensor, target: Tensor) -> tuple[float, Tensor]:
    """Distance of the two means, the modality gap.

    Liang et al., *Mind the Gap: Understanding the Modality Gap in
    Multi-modal Contrastive Representation Learning*, NeurIPS 2022, section 2.

    Args:
        source (Tensor): Unit rows (N, D).
        target (Tensor): Unit rows (N, D).

    Returns:
        tuple[float, Tensor]: The distance, from 0 to 2, and how far each
        pair moves it, (N, ).
    """
    apart = source - target
    gap = apart.mean(dim=0)
    distance = torch.linalg.vector_norm(gap)
    along = apart @ (gap / distance.clamp_min(1e-12))
    return float(distance), along - distance


def _mean_over_pairs(
    kernel: Callable, groups: Tensor, like: Tensor, signs: Tensor | None = None
) -> PairMean:
    """Average a symmetric kernel over pairs of different groups.

    Args:
        kernel (Callable): Of slices of M and of K rows, (M, K) entries.
        groups (Tensor): Integers (N, ).
        like (Tensor): Of the dtype of the entries.
        signs (Tensor, optional): Swaps (N, P).
    """
    size = len(groups)
    counts = groups.unique(return_counts=True)[1]
    number = size**2 - int(counts.square().sum())
    if not number:
        raise DatasetError(
            f'All {size} pairs are of one group: there are no two to '
            'compare. Measure pairs of different groups.'
        )
    signs = groups.new_ones(size, 0) if signs is None else signs
    signs = signs.to(like)
    sums = signs.new_zeros(size, dtype=torch.double)
    signed = sums.new_zeros(signs.shape[1])
    step = max(1, _BLOCK // size)
    # Of each two symmetric entries one is computed.
    for start in range(0, size, step):
        part, right = slice(start, start + step), slice(start, size)
        entries = kernel(part, right)
        entries.masked_fill_(groups[part, None] == groups[right], 0)
        sums[part] += entries.sum(dim=1, dtype=torch.double)
        own, beyond = entries.tensor_split([step], dim=1)
        sums[start + step :] += beyond.sum(dim=0, dtype=torch.double)
        drawn = own @ signs[part] + 2 * (beyond @ signs[start + step :])
        signed += (signs[part] * drawn).sum(dim=0)
    value = float(sums.sum()) / number
    influence = 2 * (sums * (size / number) - value)
    return PairMean(value, influence, signed / number)


def _squared_distances(first: Tensor, second: Tensor) -> Tensor:
    """Of unit rows (N, D) and (M, D): (N, M)."""
    return (first @ second.T).mul_(-2).add_(2).clamp_(min=0)
