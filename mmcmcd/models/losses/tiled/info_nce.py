from collections.abc import Callable

import torch
from torch import Tensor

from ..candidates import Candidates, Keep, TileMask
from . import tiles
from .softmax import OnlineSoftmax, needs_peak


# Compilers would unroll the loops over tiles: minutes for what is a few large
# operations anyway.
@torch.compiler.disable
def info_nce(
    anchors: Tensor,
    candidates: Candidates,
    temperature: float | Tensor,
    keep: Keep,
    symmetric: bool = True,
    all_reduce: Callable | None = None,
    tile: tuple[int, int] | None = None,
) -> Tensor:
    """See :func:`functional.info_nce`.

    Args:
        anchors (Tensor): Unit rows (N, D).
        candidates (Candidates): Constant unit rows.
        temperature (float | Tensor): May be trained.
        keep (Keep): What an anchor keeps.
        symmetric (bool): Whether both directions are averaged.
        all_reduce (Callable, optional): Sum or maximum over processes.
        tile (tuple[int, int], optional): Anchors and candidates at once.
            Defaults to None: chosen by the device.

    Returns:
        Tensor: The scalar mean over anchors; cannot be differentiated twice.
    """
    return _InfoNCE.apply(
        anchors,
        1 / temperature,
        candidates,
        keep,
        symmetric,
        all_reduce,
        tile or tiles.choose_tile(anchors, candidates.number),
    )


class _InfoNCE(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx, rows, scale, candidates, keep, symmetric, all_reduce, tile
    ):
        batch, memory = candidates
        mask = TileMask(keep)
        anchors = tiles.Anchors(rows, scale)
        place = slice(keep.start, keep.start + len(rows))
        own = batch[place]
        softmax = OnlineSoftmax(rows, needs_peak(scale))
        if memory is not None:
            softmax.show(anchors, memory, 'memory', mask, tile)
        if symmetric:
            columns = OnlineSoftmax(batch, needs_peak(scale))
            _count(softmax, columns, anchors, batch, mask, tile)
            if all_reduce is None:
                columns.ignore_all_but(place)
            else:
                columns.merge(all_reduce)
            logs = (softmax.log_total + columns.log_total[place]) / 2
        else:
            softmax.show(anchors, batch, 'batch', mask, tile)
            logs = softmax.log_total
        loss = (logs - anchors.scores_with(own)).mean()
        if any(ctx.needs_input_grad):
            pull = (
                _pull(softmax, columns, anchors, batch, mask, tile)
                if symmetric
                else softmax.take_mean()
            )
            slope = pull.sub_(own).div_(len(rows))
            by_scale = None
            if torch.is_tensor(scale):
                by_scale = torch.linalg.vecdot(rows, slope).sum()
            ctx.save_for_backward(slope.mul_(scale), by_scale)
        return loss

    @staticmethod
    def backward(ctx, grad):
        tiles.refuse_second_derivative()
        by_rows, by_scale = ctx.saved_tensors
        return (
            grad * by_rows,
            None if by_scale is None else grad * by_scale,
            *[None] * 5,
        )


def _count(rows, columns, anchors, batch, mask, tile):
    """Count the scores of a batch in both directions."""
    for at, across, _, scores in tiles.visit(
        anchors, batch, 'batch', mask, tile
    ):
        if rows.keeps_peak:
            columns.weigh_(across, scores.T.clone())
            rows.weigh_(at, scores)
        else:
            weights = rows.weigh_(at, scores)
            columns.count_weights(across, weights.sum(dim=0))


def _pull(rows, columns, anchors, batch, mask, tile):
    """Mean of the weighted means of both directions, for each anchor."""
    pull = rows.take_mean()
    if pull is None:
        pull = torch.zeros_like(anchors.rows)
    by_row, by_column = 1 / rows.total(), 1 / columns.total().T
    row_logs, column_logs = rows.log_total[:, None], columns.log_total
    spare = tiles.tile_buffer(batch, tile)
    for at, across, keys, scores in tiles.visit(
        anchors, batch, 'batch', mask, tile
    ):
        other = tiles.shaped(spare, *scores.shape)
        if rows.keeps_peak:
            torch.sub(scores, column_logs[across], out=other)
            weights = tiles.exp_(scores.sub_(row_logs[at]))
            weights += tiles.exp_(other)
        else:
            torch.add(by_row[at], by_column[:, across], out=other)
            weights = scores.exp_().mul_(other)
        pull[at].addmm_(weights, keys)
    return pull.div_(2)
