"""Mathematics of the distillation losses; imports torch only.

Notation: ``s`` student rows, ``t`` teacher rows, ``m`` memory rows.  All
functions take *cosine similarities*, so that several losses can share one
matrix product, and divide by their own temperature.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def unit_rows(rows: Tensor) -> Tensor:
    """L2-normalise the rows of a (N, D) matrix, in at least single precision.

    A zero row stays zero; its gradient is bounded by 1e6 times that of the
    normalised row.
    """
    return F.normalize(full_precision(rows), dim=1, eps=1e-6)


def full_precision(rows: Tensor) -> Tensor:
    """Return half-precision rows in single precision, others as they are."""
    half = rows.dtype in (torch.float16, torch.bfloat16)
    return rows.float() if half else rows


def candidate_mask(
    num_rows: int,
    group_ids: Tensor | None,
    memory_group_ids: Tensor | None,
    num_memory: int,
    include_self: bool,
    device: torch.device,
) -> Tensor:
    """Tell which candidates each row is compared with.

    The candidates of row ``i`` are the rows of the batch, then those of the
    memory.  Candidates that share the group of ``i`` without being ``i`` are
    false negatives (another sketch of one photo, or an old copy of the same
    pair in the memory) and are left out.

    Args:
        num_rows (int): Rows in the batch, B.
        group_ids (Tensor, optional): Integers of shape (B, ).
        memory_group_ids (Tensor, optional): Integers of shape (K, ).
        num_memory (int): Rows in the memory, K.
        include_self (bool): Whether row ``i`` is a candidate of itself.
        device (torch.device): Where the mask is made.

    Returns:
        Tensor: Booleans of shape (B, B + K); True is kept.
    """
    keep = torch.ones(
        num_rows, num_rows + num_memory, dtype=torch.bool, device=device
    )
    if group_ids is not None:
        keep[:, :num_rows] = group_ids[:, None] != group_ids[None]
        if memory_group_ids is not None:
            keep[:, num_rows:] = group_ids[:, None] != memory_group_ids[None]
    keep[:, :num_rows].fill_diagonal_(include_self)
    return keep


def soft_cross_entropy(
    student_similarity: Tensor,
    teacher_similarity: Tensor,
    student_temperature: float,
    teacher_temperature: float,
    keep: Tensor,
) -> Tensor:
    r"""Cross-entropy between two softmax distributions over candidates.

    .. math::
        L = -\frac{1}{N'} \sum_i \sum_j p_{ij} \log q_{ij},\quad
        p_i = \mathrm{softmax}(a_i / \tau_t),\quad
        q_i = \mathrm{softmax}(b_i / \tau_s)

    with teacher similarities ``a`` (constant) and student similarities ``b``.

    Args:
        student_similarity (Tensor): Cosines of shape (N, M).
        teacher_similarity (Tensor): Cosines of shape (N, M).
        student_temperature (float): :math:`\tau_s`.
        teacher_temperature (float): :math:`\tau_t`.
        keep (Tensor): Booleans of shape (N, M), True for candidates.

    Returns:
        Tensor: The scalar mean over the ``N'`` rows that have a candidate;
        zero if none has.
    """
    rows = keep.any(dim=1)
    # -inf would give 0 * inf in the products below and in their gradients.
    lowest = torch.finfo(student_similarity.dtype).min
    with torch.no_grad():
        target = (
            (teacher_similarity / teacher_temperature)
            .masked_fill(~keep, lowest)
            .softmax(dim=1)
            .masked_fill(~keep, 0)
        )
    log_q = (
        (student_similarity / student_temperature)
        .masked_fill(~keep, lowest)
        .log_softmax(dim=1)
    )
    losses = -(target * log_q.masked_fill(~keep, 0)).sum(dim=1)
    return (losses * rows).sum() / rows.sum().clamp(min=1)


def info_nce(
    similarity: Tensor,
    temperature: float | Tensor,
    keep: Tensor,
    memory_similarity: Tensor | None = None,
    memory_keep: Tensor | None = None,
) -> Tensor:
    r"""InfoNCE with the positives on the diagonal.

    .. math::
        L = -\frac{1}{N} \sum_i \log
        \frac{e^{s_{ii}/\tau}}{\sum_{j \in K_i} e^{s_{ij}/\tau}}

    Args:
        similarity (Tensor): Cosines of anchors and candidates, (N, N).
        temperature (float | Tensor): :math:`\tau`.
        keep (Tensor): Booleans (N, N) of the candidates; the diagonal must
            be True.
        memory_similarity (Tensor, optional): Further negatives, (N, K).
        memory_keep (Tensor, optional): Their mask, (N, K).

    Returns:
        Tensor: The scalar mean over the anchors.
    """
    positives = similarity.diagonal()
    if memory_similarity is not None:
        similarity = torch.cat([similarity, memory_similarity], dim=1)
        keep = torch.cat([keep, memory_keep], dim=1)
    logits = (similarity / temperature).masked_fill(
        ~keep, torch.finfo(similarity.dtype).min
    )
    return (logits.logsumexp(dim=1) - positives / temperature).mean()
