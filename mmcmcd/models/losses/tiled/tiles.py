"""Scores of anchors and candidates, a tile at a time."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..candidates import TileMask

# Anchors and candidates at once on a CPU, measured.
_CPU_TILE = (1024, 4096)
# Elsewhere what keeps a GPU busy: anchors, and numbers in a tile.
_GPU_ROWS, _GPU_NUMBERS = 8192, 2**26
# Fewer anchors at once would waste the matrix product.
LEAST_ROWS = 128


class Anchors(NamedTuple):
    """Rows whose products with candidates are scaled.

    Attributes:
        rows (Tensor): (N, D).
        scale (float | Tensor): Inverse temperature.
    """

    rows: Tensor
    scale: float | Tensor

    def scores(self, at: slice, keys: Tensor, buffer: Tensor) -> Tensor:
        """Scores of some anchors and keys (m, D), written into ``buffer``."""
        anchors = self.rows[at]
        out = shaped(buffer, len(anchors), len(keys))
        if torch.is_tensor(self.scale):
            return torch.mm(anchors, keys.T, out=out).mul_(self.scale)
        return torch.addmm(
            out, anchors, keys.T, beta=0, alpha=self.scale, out=out
        )

    def scores_with(self, partners: Tensor) -> Tensor:
        """Scores (N, ) of each anchor with its own partner (N, D)."""
        return torch.linalg.vecdot(self.rows, partners) * self.scale


def visit(
    anchors: Anchors,
    candidates: Tensor,
    section: str,
    mask: TileMask,
    tile: tuple[int, int],
) -> Iterator[tuple[slice, slice, Tensor, Tensor]]:
    """Visit all scores but those of tiles that are hidden altogether.

    Args:
        anchors (Anchors): N of them.
        candidates (Tensor): Rows (M, D).
        section (str): ``'batch'`` or ``'memory'``, which they are of.
        mask (TileMask): What is hidden.
        tile (tuple[int, int]): Anchors and candidates at once.

    Yields:
        tuple: Which anchors and candidates, these candidates (m, D) in the
        anchors' precision, and the scores (n, m), which may be overwritten.
    """
    buffer = tile_buffer(anchors.rows, tile)
    for across in slices(len(candidates), tile[1]):
        # Half-precision rows are widened a tile at a time.
        keys = candidates[across].to(anchors.rows.dtype)
        for at in slices(len(anchors.rows), tile[0]):
            seen = mask.seen(at, across)
            if seen.start == seen.stop:
                continue
            part = keys[seen.start - across.start : seen.stop - across.start]
            scores = anchors.scores(at, part, buffer)
            mask.hide_(scores, section, at, seen)
            yield at, seen, part, scores


def choose_tile(anchors: Tensor, num_candidates: int) -> tuple[int, int]:
    """Return how many anchors and candidates to take at once."""
    rows, columns = _CPU_TILE
    if anchors.device.type != 'cpu':
        rows = min(len(anchors), _GPU_ROWS)
        columns = _GPU_NUMBERS // rows
    return min(len(anchors), rows), min(num_candidates, columns)


def slices(length: int, step: int) -> Iterator[slice]:
    """Cut a range into slices."""
    for start in range(0, length, step):
        yield slice(start, min(start + step, length))


def tile_buffer(like: Tensor, tile: tuple[int, int]) -> Tensor:
    """Return room for a tile.

    It is shared by all tiles: fresh memory for each of them would cost page
    faults.
    """
    return like.new_empty(tile[0] * tile[1])


def shaped(buffer: Tensor, rows: int, columns: int) -> Tensor:
    """Return the first numbers of a tile's buffer as a matrix."""
    return buffer[: rows * columns].view(rows, columns)


def exp_(scores: Tensor) -> Tensor:
    """Exponentiate in place; what is no normal number becomes zero.

    Scores far below their maximum give denormal numbers, which are slow.
    """
    lowest = math.log(torch.finfo(scores.dtype).tiny)
    return F.threshold_(scores, lowest, -torch.inf).exp_()


def refuse_second_derivative() -> None:
    """Stop a backward pass that is to be differentiated.

    Raises:
        RuntimeError: Autograd was asked for ``create_graph=True``.
    """
    if torch.is_grad_enabled():
        raise RuntimeError(
            'A loss computed by tiles cannot be differentiated twice: leave '
            'out create_graph=True, or use the plain formulas of '
            'mmcmcd.models.losses.functional.'
        )
