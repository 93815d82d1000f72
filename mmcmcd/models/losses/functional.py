"""Mathematics of the distillation losses; imports torch only.

Rows are of unit length (:func:`unit_rows`), so that products are cosines.
Small problems take the plain formulas; large ones the same formulas tile by
tile (:mod:`tiled`), which are equal up to rounding, and flat in memory.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from . import tiled
from .anchor_parts import sum_over_anchors
from .candidates import Candidates, Keep

# Rows below this length are not made longer than it would be.
_SHORTEST = 1e-6
# Similarities up to which the plain formulas are at least as fast on a CPU.
_PLAIN_UP_TO = 2**18


def unit_rows(rows: Tensor) -> Tensor:
    """L2-normalise the rows of a (N, D) matrix, in at least single precision.

    A zero row stays zero; its gradient is bounded by 1e6 times that of the
    normalised row. In float16, where that would be infinite, it is the one of
    the normalised row.
    """
    divisor = 1.0 if rows.dtype == torch.float16 else _SHORTEST
    return _UnitRows.apply(full_precision(rows), divisor)[0]


def full_precision(rows: Tensor) -> Tensor:
    """Return half-precision rows in single precision, others as they are."""
    half = rows.dtype in (torch.float16, torch.bfloat16)
    return rows.float() if half else rows


def soft_cross_entropy(
    student: Tensor,
    student_candidates: Candidates,
    teacher: Tensor,
    teacher_candidates: Candidates,
    student_temperature: float,
    teacher_temperature: float,
    keep: Keep,
) -> Tensor:
    r"""Cross-entropy between two softmax distributions over candidates.

    .. math::
        L = -\frac{1}{N} \sum_i \sum_j p_{ij} \log q_{ij},\quad
        p_i = \mathrm{softmax}_j(t_i \cdot c^t_j / \tau_t),\quad
        q_i = \mathrm{softmax}_j(s_i \cdot c^s_j / \tau_s)

    Args:
        student (Tensor): Anchors :math:`s`, unit rows (N, D).
        student_candidates (Candidates): :math:`c^s`, unit rows; those of the
            batch may take a gradient.
        teacher (Tensor): Anchors :math:`t`, constant unit rows (N, D').
        teacher_candidates (Candidates): :math:`c^t`, constant unit rows.
        student_temperature (float): :math:`\tau_s`.
        teacher_temperature (float): :math:`\tau_t`.
        keep (Keep): Candidates that an anchor keeps.

    Returns:
        Tensor: The scalar mean over anchors; one without any candidate
        counts as zero.
    """
    arguments = (
        student,
        student_candidates,
        teacher,
        teacher_candidates,
        student_temperature,
        teacher_temperature,
        keep,
    )
    if _is_large(student, student_candidates):
        return tiled.soft_cross_entropy(*arguments)
    return plain_soft_cross_entropy(*arguments)


def plain_soft_cross_entropy(
    student: Tensor,
    student_candidates: Candidates,
    teacher: Tensor,
    teacher_candidates: Candidates,
    student_temperature: float,
    teacher_temperature: float,
    keep: Keep,
) -> Tensor:
    """Compute :func:`soft_cross_entropy` by matrices of all similarities."""
    hidden = None
    if not keep.keeps_others:
        hidden = keep.hidden(len(student), student_candidates)
    with torch.no_grad():
        scores = _products(teacher, teacher_candidates) / teacher_temperature
        target = _hide(scores, keep, hidden).softmax(dim=1)
    scores = _products(student, student_candidates) / student_temperature
    losses = F.cross_entropy(
        _hide(scores, keep, hidden), target, reduction='none'
    )
    if hidden is not None:
        losses = losses.masked_fill(hidden.all(dim=1), 0)
    return losses.mean()


def soft_cross_entropy_with_memory(
    student: Tensor,
    student_memory: Tensor,
    teacher: Tensor,
    teacher_memory: Tensor,
    student_temperature: float,
    teacher_temperature: float,
    keep: Keep,
    with_own: bool,
) -> Tensor:
    """Compute :func:`soft_cross_entropy` without the batch as candidates.

    Args:
        student (Tensor): Anchors, unit rows (N, D).
        student_memory (Tensor): What students are compared with, constant
            unit rows (K, D).
        teacher (Tensor): Anchors, constant unit rows (N, D').
        teacher_memory (Tensor): The same of teachers, (K, D').
        student_temperature (float): Of the student's softmax.
        teacher_temperature (float): Of the teacher's softmax.
        keep (Keep): Tells which rows of the memory are of an anchor's group.
        with_own (bool): Whether the anchor's own teacher is a candidate of
            both; D' is D then.

    Returns:
        Tensor: The scalar mean over anchors; one without any candidate
        counts as zero.
    """
    student_memory = student_memory.to(student.dtype)
    teacher_memory = teacher_memory.to(teacher.dtype)

    def scores(anchors, memory, temperature, at, hidden):
        result = anchors[at] @ memory.T / temperature
        if hidden is not None:
            lowest = torch.finfo(result.dtype).min
            result = result.masked_fill(hidden, lowest)
        if with_own:
            own = torch.linalg.vecdot(anchors[at], teacher[at])
            own = own[:, None] / temperature
            result = torch.cat([own, result], dim=1)
        return result

    def cost(at):
        hidden = None
        if keep.groups is not None:
            hidden = keep.hidden_part('memory', at, slice(None))
        target, predicted = (
            scores(*side, at, hidden)
            for side in (
                (teacher, teacher_memory, teacher_temperature),
                (student, student_memory, student_temperature),
            )
        )
        losses = F.cross_entropy(
            predicted, target.softmax(dim=1), reduction='none'
        )
        if hidden is not None and not with_own:
            losses = losses.masked_fill(hidden.all(dim=1), 0)
        return losses.sum()

    num = len(student)
    return sum_over_anchors(cost, num, len(student_memory) + 1) / num


def info_nce(
    anchors: Tensor,
    candidates: Candidates,
    temperature: float | Tensor,
    keep: Keep,
    symmetric: bool = True,
    all_reduce: Callable | None = None,
) -> Tensor:
    r"""InfoNCE of students that are anchors of constant candidates.

    The positive of anchor :math:`s_i` is its own row :math:`t_i` of the batch;
    with :math:`M` the rows of the memory

    .. math::
        L = -\frac{1}{N} \sum_i \log \frac{e^{s_i \cdot t_i / \tau}}
        {\sum_j e^{s_i \cdot t_j / \tau} + \sum_k e^{s_i \cdot M_k / \tau}}

    ``symmetric`` averages it with the other direction, in which :math:`t_i`
    is the anchor of all students of the batch, without memory.

    Args:
        anchors (Tensor): Students, unit rows (N, D).
        candidates (Candidates): Teachers, constant unit rows.
        temperature (float | Tensor): :math:`\tau`; may be trained.
        keep (Keep): Candidates that an anchor keeps; itself must be.
        symmetric (bool): Whether both directions are averaged.
        all_reduce (Callable, optional): Where the batch is spread over
            processes, ``all_reduce(tensor, 'sum' | 'max')`` combines what
            each of them has; without it the other direction sees ``anchors``
            alone.

    Returns:
        Tensor: The scalar mean over anchors.  With ``all_reduce``, the
        gradient is that of the sum over all processes, divided by N.
    """
    arguments = (anchors, candidates, temperature, keep, symmetric)
    spread = symmetric and all_reduce is not None
    if spread or _is_large(anchors, candidates):
        return tiled.info_nce(*arguments, all_reduce)
    return plain_info_nce(*arguments)


def plain_info_nce(
    anchors: Tensor,
    candidates: Candidates,
    temperature: float | Tensor,
    keep: Keep,
    symmetric: bool = True,
) -> Tensor:
    """Compute :func:`info_nce` by matrices of all similarities."""
    num = len(anchors)
    scores = _products(anchors, candidates) / temperature
    scores = _hide(scores, keep, keep.hidden(num, candidates))
    own = torch.arange(num, device=scores.device)
    loss = F.cross_entropy(scores, own + keep.start)
    if not symmetric:
        return loss
    students = scores[:, keep.start : keep.start + num].T
    return (loss + F.cross_entropy(students, own)) / 2


def nce(
    students: Tensor,
    teachers: Candidates,
    student_memory: Tensor | None,
    temperature: float,
    offsets: Tensor,
    keep: Keep,
) -> Tensor:
    r"""Noise-contrastive estimation (NCE), students and teachers as anchors.

    A logistic regression: does a candidate belong to the anchor?  With
    :math:`x_{ij} = s_i \cdot t_j / \tau`, the teachers :math:`M^t_k` and the
    students :math:`M^s_k` of the memory and
    :math:`\zeta(x) = \log(1 + e^x)`

    .. math::
        L = \frac{1}{N} \sum_i \Big[ & \zeta(b_i - x_{ii}) +
        \sum_{j \ne i} \zeta(x_{ij} - b_i) +
        \sum_k \zeta(s_i \cdot M^t_k / \tau - b_i) \\
        + & \zeta(b'_i - x_{ii}) +
        \sum_{j \ne i} \zeta(x_{ij} - b'_j) +
        \sum_k \zeta(t_i \cdot M^s_k / \tau - b'_i) \Big]

    The second line is that of teacher anchors; its pairs of the batch are
    ordered by the student, so that the :math:`x_{ij}` of N students of the
    batch serve both lines, and the sum over processes is complete.

    Args:
        students (Tensor): Unit rows (N, D).
        teachers (Candidates): Constant unit rows.
        student_memory (Tensor, optional): Constant unit rows (K, D), of the
            same pairs as the teachers of the memory.
        temperature (float): :math:`\tau`.
        offsets (Tensor): :math:`b` and :math:`b'` of all rows of the batch,
            constant and finite, (2, B).
        keep (Keep): Which negatives count; the own row is the positive.

    Returns:
        Tensor: The scalar mean over students.
    """
    arguments = (
        students,
        teachers,
        student_memory,
        temperature,
        offsets,
        keep,
    )
    if _is_large(students, teachers):
        return tiled.nce(*arguments)
    return plain_nce(*arguments)


def plain_nce(
    students: Tensor,
    teachers: Candidates,
    student_memory: Tensor | None,
    temperature: float,
    offsets: Tensor,
    keep: Keep,
) -> Tensor:
    """Compute :func:`nce` by matrices of all similarities."""
    num, size = len(students), len(teachers.batch)
    own = slice(keep.start, keep.start + num)
    hidden = keep._replace(include_self=False).hidden(num, teachers)
    scores = _products(students, teachers) / temperature
    positives = scores.diagonal(keep.start)
    total = _softplus_sum(offsets[:, own] - positives)
    scores = _hide(scores, keep, hidden)
    total = total + _softplus_sum(scores - offsets[0, own, None])
    total = total + _softplus_sum(scores[:, :size] - offsets[1])
    if student_memory is not None:
        memory = student_memory.to(students.dtype)
        scores = teachers.batch[own] @ memory.T / temperature
        scores = _hide(scores, keep, hidden[:, size:])
        total = total + _softplus_sum(scores - offsets[1, own, None])
    return total / num


def _softplus_sum(scores):
    # F.softplus is linear, in double precision visibly, from 20 on.
    return torch.logaddexp(scores, scores.new_zeros(())).sum()


class _UnitRows(torch.autograd.Function):
    """``F.normalize`` with fewer matrices (N, D) in the backward pass."""

    @staticmethod
    def forward(rows, divisor_of_zero):
        norms = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
        if divisor_of_zero != _SHORTEST:
            norms.masked_fill_(norms == 0, divisor_of_zero)
        norms.clamp_(min=_SHORTEST)
        # The norms are returned for the sake of second derivatives.
        return rows / norms, norms

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*output)

    @staticmethod
    def backward(ctx, grad, grad_norms):
        units, norms = ctx.saved_tensors
        along = torch.linalg.vecdot(grad, units)[:, None] - grad_norms * norms
        # Shorter rows are divided by a constant.
        along = along.masked_fill(norms <= _SHORTEST, 0)
        return torch.addcmul(grad, units, along, value=-1).div_(norms), None


def _is_large(anchors, candidates):
    return len(anchors) * candidates.number > _PLAIN_UP_TO


def _products(anchors, candidates):
    batch, memory = candidates
    if memory is not None:
        batch = torch.cat([batch, memory.to(batch.dtype)])
    return anchors @ batch.T


def _hide(scores, keep, hidden):
    # -inf would give 0 * inf in products with it and in their gradients.
    lowest = torch.finfo(scores.dtype).min
    if hidden is not None:
        return scores.masked_fill(hidden, lowest)
    if not keep.include_self:
        scores.diagonal(keep.start).fill_(lowest)
    return scores
