import torch
from torch import Tensor

from ..candidates import Candidates, Keep, TileMask
from . import tiles
from .softmax import OnlineSoftmax


# As info_nce.
@torch.compiler.disable
def nce(
    students: Tensor,
    teachers: Candidates,
    student_memory: Tensor | None,
    temperature: float,
    offsets: Tensor,
    keep: Keep,
    tile: tuple[int, int] | None = None,
) -> Tensor:
    """See :func:`functional.nce`.

    Args:
        students (Tensor): Unit rows (N, D).
        teachers (Candidates): Constant unit rows.
        student_memory (Tensor, optional): Constant unit rows (K, D).
        temperature (float): Of the similarities.
        offsets (Tensor): Of both directions, constant and finite, (2, B).
        keep (Keep): Which negatives count.
        tile (tuple[int, int], optional): As in :func:`info_nce`.

    Returns:
        Tensor: The scalar mean over students; cannot be differentiated twice.
    """
    return _NCE.apply(
        students,
        1 / temperature,
        teachers,
        student_memory,
        offsets,
        keep._replace(include_self=False),
        tile or tiles.choose_tile(students, teachers.number),
    )


@torch.compiler.disable
@torch.no_grad()
def log_sum_exp(
    students: Tensor,
    teachers: Candidates,
    student_memory: Tensor | None,
    temperature: float,
    keep: Keep,
    tile: tuple[int, int] | None = None,
) -> Tensor:
    """Sum the exponentials of all scores that :func:`nce` looks at.

    Args:
        students (Tensor): Unit rows (N, D).
        teachers (Candidates): Unit rows.
        student_memory (Tensor, optional): Unit rows (K, D).
        temperature (float): Of the similarities.
        keep (Keep): Which negatives count; positives do.
        tile (tuple[int, int], optional): As in :func:`info_nce`.

    Returns:
        Tensor: Logarithms of the sums over student anchors and over teacher
        anchors, (2, ).
    """
    tile = tile or tiles.choose_tile(students, teachers.number)
    batch, teacher_memory = teachers
    mask = TileMask(keep)
    own = batch[keep.start : keep.start + len(students)]
    scale = 1 / temperature
    pairs = tiles.Anchors(students, scale), batch, 'batch'
    logs = []
    for anchors, memory in (students, teacher_memory), (own, student_memory):
        softmax = OnlineSoftmax(students, keep_peak=True)
        # Pairs of the batch are the same in both directions.
        sections = [pairs]
        if memory is not None:
            sections.append((tiles.Anchors(anchors, scale), memory, 'memory'))
        for section in sections:
            for at, _, _, scores in tiles.visit(*section, mask, tile):
                softmax.weigh_(at, scores)
        logs.append(softmax.log_total.logsumexp(dim=0))
    return torch.stack(logs)


class _NCE(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx,
        students,
        scale,
        candidates,
        student_memory,
        offsets,
        keep,
        tile,
    ):
        batch, memory = candidates
        mask = TileMask(keep)
        anchors = tiles.Anchors(students, scale)
        place = slice(keep.start, keep.start + len(students))
        own, own_offsets = batch[place], offsets[:, place]
        gaps = own_offsets - anchors.scores_with(own)
        total = torch.logaddexp(gaps, gaps.new_zeros(())).sum()
        pull = gaps.sigmoid_().sum(dim=0)[:, None] * -own
        total += _reject_batch(
            anchors, batch, own_offsets[0], offsets[1], pull, mask, tile
        )
        if memory is not None:
            total += _reject_memory(
                anchors, memory, own_offsets[0], pull, mask, tile
            )
            # Neither teachers nor stored students take a gradient.
            teachers = tiles.Anchors(own, scale)
            total += _reject_memory(
                teachers, student_memory, own_offsets[1], None, mask, tile
            )
        num = len(students)
        ctx.save_for_backward(pull.mul_(scale / num))
        return total / num

    @staticmethod
    def backward(ctx, grad):
        tiles.refuse_second_derivative()
        (by_students,) = ctx.saved_tensors
        return (grad * by_students, *[None] * 6)


def _softplus_sum(scores, buffer):
    losses = tiles.shaped(buffer, *scores.shape)
    return torch.logaddexp(scores, scores.new_zeros(()), out=losses).sum()


def _reject_batch(anchors, batch, by_row, by_column, pull, mask, tile):
    """Loss of the negatives of a batch in both directions.

    Args:
        anchors (Anchors): N of them.
        batch (Tensor): Rows (B, D).
        by_row (Tensor): Offsets where anchors look at the batch, (N, ).
        by_column (Tensor): Offsets where the batch looks at anchors, (B, ).
        pull (Tensor): Slopes of the anchors (N, D), which are added to.
        mask (TileMask): What is hidden.
        tile (tuple[int, int]): Anchors and candidates at once.
    """
    total = pull.new_zeros(())
    other_buffer, spare = (tiles.tile_buffer(batch, tile) for _ in range(2))
    for at, across, keys, scores in tiles.visit(
        anchors, batch, 'batch', mask, tile
    ):
        others = tiles.shaped(other_buffer, *scores.shape)
        torch.sub(scores, by_column[across], out=others)
        scores -= by_row[at, None]
        total += _softplus_sum(scores, spare)
        total += _softplus_sum(others, spare)
        pull[at].addmm_(scores.sigmoid_().add_(others.sigmoid_()), keys)
    return total


def _reject_memory(anchors, memory, offsets, pull, mask, tile):
    """Loss of the negatives of a memory; without ``pull`` no slopes."""
    total = offsets.new_zeros(())
    spare = tiles.tile_buffer(offsets, tile)
    for at, _, keys, scores in tiles.visit(
        anchors, memory, 'memory', mask, tile
    ):
        scores -= offsets[at, None]
        total += _softplus_sum(scores, spare)
        if pull is not None:
            pull[at].addmm_(scores.sigmoid_(), keys)
    return total
