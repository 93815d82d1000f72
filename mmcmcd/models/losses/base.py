"""What all distillation losses share: checks, precision and candidates."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from mmcmcd.errors import ConfigError

from . import functional as fn


class Memory(NamedTuple):
    """Index-aligned rows of earlier pairs (see ``FeatureQueue``).

    Attributes:
        student (Tensor): Student rows (K, D_s), without gradient.
        teacher (Tensor): Teacher rows (K, D_t).
        group_ids (Tensor): Integers (K, ).
    """

    student: Tensor
    teacher: Tensor
    group_ids: Tensor


class Rows(NamedTuple):
    """Rows that a loss compares, normalised unless it says otherwise.

    Attributes:
        student (Tensor): (B, D_s).
        teacher (Tensor): (B, D_t), constant.
        memory_student (Tensor, optional): (K, D_s), constant.
        memory_teacher (Tensor, optional): (K, D_t), constant.
        group_ids (Tensor, optional): (B, ).
        memory_group_ids (Tensor, optional): (K, ).
    """

    student: Tensor
    teacher: Tensor
    memory_student: Tensor | None
    memory_teacher: Tensor | None
    group_ids: Tensor | None
    memory_group_ids: Tensor | None

    @property
    def num_memory(self) -> int:
        """Number of memory rows, K."""
        return 0 if self.memory_teacher is None else len(self.memory_teacher)

    def candidates(self, side: str) -> Tensor:
        """Batch rows followed by memory rows of one network side."""
        rows, memory = (
            (self.student, self.memory_student)
            if side == 'student'
            else (self.teacher, self.memory_teacher)
        )
        return rows if memory is None else torch.cat([rows, memory])

    def keep(self, include_self: bool) -> Tensor:
        """Mask of candidates, see :func:`functional.candidate_mask`."""
        return fn.candidate_mask(
            len(self.student),
            self.group_ids,
            self.memory_group_ids,
            self.num_memory,
            include_self,
            self.student.device,
        )


class PairwiseLoss(nn.Module):
    """Base of losses that compare student rows with teacher rows.

    A row is a sample or, in dense distillation, a location: the loss does
    not know which.  Sub-classes implement :meth:`compare`.
    """

    #: Whether student and teacher rows live in one space (equal D).
    shared_space = True
    #: Whether rows are brought to unit length before they are compared.
    normalize = True
    loss_weight = 1.0

    @property
    def places_student(self) -> bool:
        """Whether training brings student rows to their teacher rows."""
        return self.shared_space and self.loss_weight != 0

    def forward(
        self,
        student: Tensor,
        teacher: Tensor,
        memory: Memory | None = None,
        group_ids: Tensor | None = None,
    ) -> Tensor:
        """Compare rows; normalisation, where wanted, happens inside.

        Args:
            student (Tensor): Student embeddings of shape (B, D).
            teacher (Tensor): Teacher embeddings of shape (B, D); row ``i``
                belongs to the same pair as student row ``i``.  Treated as a
                constant.
            memory (Memory, optional): Earlier pairs as more candidates.
            group_ids (Tensor, optional): Integers (B, ); pairs that share a
                group are not negatives of each other.

        Returns:
            Tensor: The weighted scalar loss (a dict of them in composites).

        Raises:
            ConfigError: Shapes do not fit, or there is nothing to compare
                with (one pair and no memory).
        """
        self._check(student, teacher, memory)
        # Similarities lose too much in half precision to be divided by a
        # small temperature.
        with torch.autocast(student.device.type, enabled=False):
            prepare = fn.unit_rows if self.normalize else fn.full_precision
            rows = Rows(
                prepare(student),
                prepare(teacher.detach()),
                None if memory is None else prepare(memory.student),
                None if memory is None else prepare(memory.teacher),
                group_ids,
                None if memory is None else memory.group_ids,
            )
            return self.compare(rows)

    def compare(self, rows: Rows) -> Tensor:
        """Compute the loss of the rows."""
        raise NotImplementedError

    def _check(self, student, teacher, memory):
        name = type(self).__name__
        if (
            student.ndim != 2
            or teacher.ndim != 2
            or len(student) != len(teacher)
        ):
            raise ConfigError(
                f'{name} expects student and teacher embeddings of shapes '
                f'(B, D) with the same B, but got {tuple(student.shape)} and '
                f'{tuple(teacher.shape)}.'
            )
        if self.shared_space and student.shape[1] != teacher.shape[1]:
            raise ConfigError(
                f'{name} compares student with teacher directly, but their '
                f'dimensions are {student.shape[1]} and {teacher.shape[1]}. '
                'Add a projector on the student (student_projector, or '
                'projector in a lesson) with '
                f'out_channels={teacher.shape[1]}.'
            )
        if len(student) < 2 and (memory is None or not len(memory.teacher)):
            raise ConfigError(
                f'{name} got a batch of {len(student)} pair and no memory: '
                'there is nothing to contrast it with. Use batch_size >= 2 '
                'with drop_last=True, or a FeatureQueue.'
            )


def check_temperature(name: str, value: float) -> float:
    """Return a temperature, or say that it is not positive."""
    if not value > 0:
        raise ConfigError(f'{name} must be positive, but got {value}.')
    return float(value)
