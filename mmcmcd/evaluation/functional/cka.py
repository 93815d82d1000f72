"""Linear centred kernel alignment of two embeddings; imports torch only."""

from typing import NamedTuple

import torch
from torch import Tensor


class _Moments(NamedTuple):
    """Sums of products of features over rows, which subtract by parts."""

    both: Tensor
    first: Tensor
    second: Tensor

    def less(self, other: '_Moments') -> '_Moments':
        return _Moments(*(a - b for a, b in zip(self, other, strict=True)))


def linear_cka(first: Tensor, second: Tensor, debiased: bool = False) -> float:
    r"""Similarity of two embeddings of the same samples, at most 1.

    .. math::
        CKA = \frac{|X^T Y|_F^2}{|X^T X|_F\, |Y^T Y|_F}

    of centred features (Kornblith et al., *Similarity of Neural Network
    Representations Revisited*, ICML 2019). It does not change if either
    space is turned or scaled, and their widths may differ. Of N unrelated
    samples it is near 1 where the features are more than N; ``debiased``
    takes the unbiased estimate of HSIC for each of the three terms (Song et
    al., *Feature Selection via Dependence Maximization*, JMLR 2012, equation
    4, as Nguyen et al., ICLR 2021, do), and is near 0 there.

    Args:
        first (Tensor): X, (N, D); N > 3 if debiased.
        second (Tensor): Y, (N, D').
        debiased (bool): Defaults to False.

    Returns:
        float: nan where an embedding is constant, or an unbiased HSIC not
        positive.
    """
    x, y = _centred(first), _centred(second)
    return _cka(x, y, _moments(x, y), debiased)


def cka_jackknife(
    first: Tensor, second: Tensor, blocks: Tensor, debiased: bool = False
) -> tuple[float, Tensor]:
    """:func:`linear_cka` of all rows, and without each of some blocks.

    Args:
        first (Tensor): (N, D).
        second (Tensor): (N, D').
        blocks (Tensor): Integers (N, ).
        debiased (bool): Defaults to False.

    Returns:
        tuple[float, Tensor]: The figure of all, and one for each block
        (K, ), float64.
    """
    x, y = _centred(first), _centred(second)
    moments = _moments(x, y)
    found = []
    for block in blocks.unique():
        out = blocks == block
        rest = moments.less(_moments(x[out], y[out]))
        found.append(_cka(x[~out], y[~out], rest, debiased))
    value = _cka(x, y, moments, debiased)
    return value, torch.tensor(found, dtype=torch.double)


def _cka(x, y, moments, debiased):
    hsic = _unbiased_hsic if debiased else _hsic
    both = hsic(x, y, moments.both)
    own = hsic(x, x, moments.first) * hsic(y, y, moments.second)
    return float(both / own.sqrt())


def _hsic(x, y, products):
    """Up to a factor of N, which cancels in CKA."""
    products = products - torch.outer(x.sum(dim=0), y.mean(dim=0))
    return products.square().sum()


def _unbiased_hsic(x, y, products):
    """Likewise, by the products of features rather than of samples."""
    n = len(x)
    squares = [rows.square().sum(dim=1) for rows in (x, y)]
    # Sums over all other samples of their kernel.
    sums = [
        rows @ rows.sum(dim=0) - square
        for rows, square in zip((x, y), squares, strict=True)
    ]
    return (
        products.square().sum()
        - squares[0] @ squares[1]
        + sums[0].sum() * sums[1].sum() / ((n - 1) * (n - 2))
        - 2 / (n - 2) * (sums[0] @ sums[1])
    )


def _moments(x, y):
    return _Moments(x.T @ y, x.T @ x, y.T @ y)


def _centred(rows):
    rows = rows.double()
    return rows - rows.mean(dim=0)
