"""Classifier two-sample tests of paired embeddings; imports torch only.

A classifier that tells source from target rows on pairs that it has not seen
bounds the total variation of the two distributions from below.  Scikit-learn
fits one labelling at a time; a permutation test needs hundreds of the same
rows, which are fitted here together.
"""

import torch
from torch import Tensor

from mmcmcd.errors import DatasetError

# Fewest groups of pairs that can be halved, with two on either side.
_FEWEST = 4


def split_groups(groups: Tensor, generator: torch.Generator) -> Tensor:
    """Draw half of the groups at random, so that no pair is cut in two.

    Args:
        groups (Tensor): Numbers from 0 of the groups of N pairs (N, ).
        generator (torch.Generator): Of the draw.

    Returns:
        Tensor: Booleans (N, ), True for pairs to fit on.

    Raises:
        DatasetError: There are fewer than 4 groups.
    """
    number = int(groups.max()) + 1
    if number < _FEWEST:
        raise DatasetError(
            f'A held-out half needs {_FEWEST} independent groups of pairs or '
            f'more, got {number}. Pairs that share a group or a file are one '
            'group; measure more of them.'
        )
    chosen = torch.zeros(number, dtype=torch.bool)
    chosen[torch.randperm(number, generator=generator)[: number // 2]] = True
    return chosen.to(groups.device)[groups]


def fit_logistic(
    features: Tensor, labels: Tensor, weight_decay: float, steps: int
) -> Tensor:
    r"""Fit logistic regressions of several labellings of the same rows.

    Minimises, for each column y of the labels,

    .. math::
        \frac{1}{N} \sum_i \log(1 + e^{-y_i (w \cdot x_i + b)}) +
        \frac{\lambda}{2} |w|^2

    that is scikit-learn's ``LogisticRegression(C=1 / (lambda * N))``. The
    curvature is at most :math:`X^T X / 4N + \lambda` (Bohning and Lindsay,
    Annals of the Institute of Statistical Mathematics 1988), so steps with
    its inverse descend, and one factorisation serves all labellings; they
    are accelerated as in Beck and Teboulle (SIAM J. Imaging Sciences 2009).

    Args:
        features (Tensor): x, (N, D).
        labels (Tensor): y, -1 or 1, (N, P).
        weight_decay (float): :math:`\lambda`, positive.
        steps (int): How many.

    Returns:
        Tensor: w and, in the last row, b: (D + 1, P).
    """
    x = _with_one(features)
    decay = x.new_full((x.shape[1], 1), weight_decay)
    decay[-1] = 0
    bound = x.T @ x / (4 * len(x)) + torch.diagflat(decay)
    factor = torch.linalg.cholesky(bound)
    weights = ahead = x.new_zeros(x.shape[1], labels.shape[1])
    pace = 1.0
    for _ in range(steps):
        pull = labels * torch.sigmoid(-labels * (x @ ahead))
        slope = decay * ahead - x.T @ pull / len(x)
        new = ahead - torch.cholesky_solve(slope, factor)
        pace, last = (1 + (1 + 4 * pace**2) ** 0.5) / 2, pace
        ahead = new + (last - 1) / pace * (new - weights)
        weights = new
    return weights


@torch.no_grad()
def held_out_accuracy(
    source: Tensor,
    target: Tensor,
    groups: Tensor,
    fitted: Tensor,
    signs: Tensor,
    *,
    num_random: int = 0,
    generator: torch.Generator | None = None,
    weight_decay: float = 1e-2,
    steps: int = 30,
) -> Tensor:
    """Tell source from target rows on pairs that were not fitted on.

    Logistic regression on features that are standardised by the fitted
    pairs. A pair adds one row to either class: classes are balanced.

    Args:
        source (Tensor): (N, D).
        target (Tensor): (N, D); row ``i`` of both is one pair.
        groups (Tensor): Numbers from 0 of the pairs' groups, (N, ).
        fitted (Tensor): Of :func:`split_groups`.
        signs (Tensor): (N, P), 1 as it is, -1 where the two rows of a pair
            swap their labels; the same within a group.
        num_random (int): Classify so many random features of a Gaussian
            kernel (Rahimi and Recht, NeurIPS 2007), whose width is the
            median distance of fitted rows, rather than the rows. Defaults
            to 0: the rows.
        generator (torch.Generator, optional): Of the random features.
        weight_decay (float): See :func:`fit_logistic`. Defaults to 1e-2.
        steps (int): As there. Defaults to 30.

    Returns:
        Tensor: Accuracy (G, P) of each held-out group, from 0 to 1, in the
        order of their numbers. ``2 * mean - 1`` estimates a lower bound on
        the total variation (Lopez-Paz and Oquab, *Revisiting Classifier
        Two-Sample Tests*, ICLR 2017, section 3).
    """
    rows = _standardise(torch.cat([source, target]), fitted.repeat(2))
    if num_random:
        rows = _random_features(rows, fitted.repeat(2), num_random, generator)
        rows = _standardise(rows, fitted.repeat(2))
    labels = torch.cat([signs, -signs]).to(rows.dtype)
    train = fitted.repeat(2)
    weights = fit_logistic(rows[train], labels[train], weight_decay, steps)
    scores = (_with_one(rows[~train]) @ weights) * labels[~train]
    # What is undecided is right half of the time.
    right = (scores.sign() + 1) / 2
    by_pair = right.unflatten(0, (2, -1)).mean(dim=0)
    numbers, place = groups[~fitted].unique(return_inverse=True)
    total = by_pair.new_zeros(len(numbers), signs.shape[1])
    total.index_add_(0, place, by_pair)
    return total / place.bincount()[:, None]


def random_signs(
    groups: Tensor, number: int, generator: torch.Generator
) -> Tensor:
    """Draw swaps of source and target within pairs, for permutation tests.

    Pairs of one group are swapped together, because they are not
    independent.

    Args:
        groups (Tensor): Numbers from 0 of the pairs' groups, (N, ).
        number (int): P.
        generator (torch.Generator): Of the draw.

    Returns:
        Tensor: -1 or 1, (N, P), float32.
    """
    size = (int(groups.max()) + 1, number)
    coins = torch.randint(0, 2, size, generator=generator)
    return (2.0 * coins - 1).to(groups.device)[groups]


def median_distance(rows: Tensor, generator: torch.Generator) -> float:
    """Median Euclidean distance of up to 1,000 rows (N, D) drawn at random.

    The usual width of a Gaussian kernel (Gretton et al., JMLR 2012, section
    8); positive, also where most rows are equal.
    """
    chosen = torch.randperm(len(rows), generator=generator)[:1000]
    median = torch.pdist(rows[chosen.to(rows.device)]).median()
    return float(median) or 1.0


def _random_features(rows, fitted, number, generator):
    width = median_distance(rows[fitted], generator)
    waves = torch.randn(rows.shape[1], number, generator=generator) / width
    phase = 2 * torch.pi * torch.rand(number, generator=generator)
    return torch.cos(rows @ waves.to(rows) + phase.to(rows))


def _standardise(rows, fitted):
    spread = rows[fitted].std(dim=0)
    # A feature that does not vary, up to rounding, tells nothing.
    flat = spread <= 1e-6 * rows[fitted].abs().amax(dim=0)
    centred = rows - rows[fitted].mean(dim=0)
    return centred / spread.masked_fill(flat, torch.inf)


def _with_one(features):
    one = features.new_ones(len(features), 1)
    return torch.cat([features, one], dim=1)
