import torch
from torch import Tensor

from ..candidates import Candidates, Keep, TileMask
from . import tiles
from .softmax import OnlineSoftmax, needs_peak


# As info_nce.
@torch.compiler.disable
def soft_cross_entropy(
    student: Tensor,
    student_candidates: Candidates,
    teacher: Tensor,
    teacher_candidates: Candidates,
    student_temperature: float,
    teacher_temperature: float,
    keep: Keep,
    tile: tuple[int, int] | None = None,
) -> Tensor:
    """See :func:`functional.soft_cross_entropy`.

    Args:
        student (Tensor): Unit rows (N, D).
        student_candidates (Candidates): Unit rows; the batch may take a
            gradient.
        teacher (Tensor): Constant unit rows (N, D').
        teacher_candidates (Candidates): Constant unit rows.
        student_temperature (float): Of the student's softmax.
        teacher_temperature (float): Of the teacher's softmax.
        keep (Keep): What an anchor keeps.
        tile (tuple[int, int], optional): Anchors and candidates at once.
            Defaults to None: chosen by the device.

    Returns:
        Tensor: The scalar mean over anchors; cannot be differentiated twice.
    """
    return _SoftCrossEntropy.apply(
        student,
        student_candidates.batch,
        student_candidates.memory,
        teacher,
        teacher_candidates,
        1 / student_temperature,
        1 / teacher_temperature,
        keep,
        tile or tiles.choose_tile(student, student_candidates.number),
    )


class _SoftCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx,
        student,
        batch,
        memory,
        teacher,
        teacher_candidates,
        scale,
        teacher_scale,
        keep,
        tile,
    ):
        mask = TileMask(keep)
        students = tiles.Anchors(student, scale)
        teachers = tiles.Anchors(teacher, teacher_scale)
        q = OnlineSoftmax(student, needs_peak(scale))
        p = OnlineSoftmax(teacher, needs_peak(teacher_scale))
        if memory is not None:
            q.show(students, memory, 'memory', mask, tile)
            keys = teacher_candidates.memory
            p.show(teachers, keys, 'memory', mask, tile, values=memory)
        pull, mean_score, by_batch = _contrast(
            q,
            p,
            students,
            teachers,
            batch,
            teacher_candidates.batch,
            mask,
            tile,
        )
        if memory is not None:
            target = p.take_mean()
            mean_score += students.scores_with(target)
            pull += q.take_mean().sub_(target)
        num = len(student)
        ctx.save_for_backward(
            pull.mul_(scale / num),
            None if by_batch is None else by_batch.mul_(scale / num),
        )
        return (q.log_total - mean_score).mean()

    @staticmethod
    def backward(ctx, grad):
        tiles.refuse_second_derivative()
        by_student, by_batch = ctx.saved_tensors
        return (
            grad * by_student,
            None if by_batch is None else grad * by_batch,
            *[None] * 7,
        )


def _contrast(q, p, students, teachers, batch, teacher_batch, mask, tile):
    """Compare two softmaxes over a batch; the memory was shown before.

    Anchors see all that they keep of the batch at once, so that their totals
    are known: one product then serves the difference of both means, and what
    a candidate receives can be told.

    Returns:
        tuple[Tensor]: Difference of the weighted means (N, D) and mean score
        (N, ), of the batch's candidates, and the sum of the unscaled slopes
        of the batch's rows (B, D) if they take a gradient.
    """
    num, everyone = len(students.rows), slice(0, len(batch))
    pull = batch.new_empty(num, batch.shape[1])
    mean_score = batch.new_empty(num)
    by_batch = torch.zeros_like(batch) if batch.requires_grad else None
    step = max(tile[0] * tile[1] // len(batch), min(tile[0], tiles.LEAST_ROWS))
    step = min(step, num)
    target_buffer = tiles.tile_buffer(batch, (step, len(batch)))
    score_buffer = tiles.tile_buffer(batch, (step, len(batch)))
    for at in tiles.slices(num, step):
        across = mask.seen(at, everyone)
        keys = batch[across]
        target = teachers.scores(at, teacher_batch[across], target_buffer)
        mask.hide_(target, 'batch', at, across)
        target = p.weigh_(at, target)
        scores = students.scores(at, keys, score_buffer)
        # Hidden ones have a target of 0, which -inf would turn into nan.
        mean_score[at] = torch.linalg.vecdot(target, scores)
        mask.hide_(scores, 'batch', at, across)
        slopes = q.weigh_(at, scores).mul_(1 / q.total(at))
        slopes.addcmul_(target, -1 / p.total(at))
        torch.mm(slopes, keys, out=pull[at])
        if by_batch is not None:
            by_batch[across].addmm_(slopes.T, students.rows[at])
    return pull, mean_score.div_(p.total()[:, 0]), by_batch
