"""Softmax over candidates that come in tiles."""

from collections.abc import Callable

import torch
from torch import Tensor

from ..candidates import TileMask
from .tiles import Anchors, exp_, visit

# exp(+-40) and sums of 1e20 such terms fit into single precision.
SAFE_SCALE = 40.0


def needs_peak(scale: float | Tensor) -> bool:
    """Tell whether scores up to a scale may be too large to exponentiate.

    A tensor counts as one: a GPU would have to be waited for to know it.
    """
    return torch.is_tensor(scale) or scale > SAFE_SCALE


class OnlineSoftmax:
    """Sums of exponentials, and weighted means, of N anchors.

    Args:
        anchors (Tensor): Rows (N, D), for their number, type and device.
        keep_peak (bool): Whether to subtract the maximum from scores, see
            :func:`needs_peak`.
    """

    def __init__(self, anchors: Tensor, keep_peak: bool) -> None:
        self._total = anchors.new_zeros(len(anchors), 1)
        self._sum = None
        self._peak = None
        if keep_peak:
            lowest = torch.finfo(anchors.dtype).min
            self._peak = torch.full_like(self._total, lowest)

    @property
    def keeps_peak(self) -> bool:
        """Whether the maximum is subtracted from scores."""
        return self._peak is not None

    def weigh_(self, at: slice, scores: Tensor) -> Tensor:
        """Count scores; return their exponentials, not normalised.

        Args:
            at (slice): Anchors.
            scores (Tensor): (n, m); overwritten.
        """
        if self._peak is None:
            weights = scores.exp_()
        else:
            old = self._peak[at]
            new = torch.maximum(old, scores.amax(dim=1, keepdim=True))
            shrink = (old - new).exp_()
            self._total[at] *= shrink
            if self._sum is not None:
                self._sum[at] *= shrink
            self._peak[at] = new
            weights = exp_(scores.sub_(new))
        self._total[at] += weights.sum(dim=1, keepdim=True)
        return weights

    def show(
        self,
        anchors: Anchors,
        keys: Tensor,
        section: str,
        mask: TileMask,
        tile: tuple[int, int],
        values: Tensor | None = None,
    ) -> None:
        """Count candidates, and sum up their rows.

        Args:
            anchors (Anchors): N of them.
            keys (Tensor): Candidates (M, D) that anchors are compared with.
            section (str): ``'batch'`` or ``'memory'``, which they are of.
            mask (TileMask): What is hidden.
            tile (tuple[int, int]): Anchors and candidates at once.
            values (Tensor, optional): What is summed up in place of ``keys``,
                (M, D').
        """
        values = keys if values is None else values
        if self._sum is None:
            self._sum = self._total.new_zeros(
                len(self._total), values.shape[1]
            )
        for at, across, _, scores in visit(anchors, keys, section, mask, tile):
            weights = self.weigh_(at, scores)
            self._sum[at].addmm_(weights, values[across].to(weights.dtype))

    def count_weights(self, at: slice, weights: Tensor) -> None:
        """Count exponentials (m, ) from which no maximum was subtracted."""
        self._total[at] += weights[:, None]

    def merge(self, all_reduce: Callable) -> None:
        """Add what other processes counted."""
        if self._peak is not None:
            peak = all_reduce(self._peak, 'max')
            self._total *= (self._peak - peak).exp_()
            self._peak = peak
        self._total = all_reduce(self._total, 'sum')

    def ignore_all_but(self, at: slice) -> None:
        """Give no share to candidates of the other anchors."""
        self._total[: at.start] = torch.inf
        self._total[at.stop :] = torch.inf

    def total(self, at: slice = slice(None)) -> Tensor:
        """Sums of exponentials (n, 1); one where there is no candidate."""
        total = self._total[at]
        return total + (total == 0)

    @property
    def log_total(self) -> Tensor:
        """Log-sum-exp of the scores (N, ); zero where there is none."""
        logs = self.total().log()
        if self._peak is not None:
            logs = torch.where(self._total > 0, logs + self._peak, logs)
        return logs[:, 0]

    def take_mean(self) -> Tensor | None:
        """Weighted mean of the candidates that were added, (N, D).

        It takes the place of the sum, which is gone; None if there was none.
        """
        mean, self._sum = self._sum, None
        return None if mean is None else mean.div_(self.total())
