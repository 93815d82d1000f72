"""What all distillation losses share: checks, precision and candidates."""

from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mmcmcd.errors import ConfigError
from mmcmcd.models.utils import collectives

from . import functional as fn
from .candidates import Candidates, Keep


class Memory(NamedTuple):
    """Index-aligned rows of earlier pairs (see ``FeatureQueue``).

    Attributes:
        student (Tensor): Unit rows (K, D_s), without gradient. Longer ones
            would overflow: they are taken as they are.
        teacher (Tensor): Unit rows (K, D_t).
        group_ids (Tensor): Integers (K, ).
    """

    student: Tensor
    teacher: Tensor
    group_ids: Tensor


# In place of no memory at all.
_EMPTY = Memory(None, None, None)


class Rows(NamedTuple):
    """Rows that a loss compares, normalised unless it says otherwise.

    Attributes:
        student (Tensor): Of this process, (N, D_s).
        teacher (Tensor): Of this process, constant, (N, D_t).
        students (Candidates, optional): What students are compared with,
            where the loss compares them with each other.
        teachers (Candidates, optional): The same of teachers, constant.
        keep (Keep): Which of these an anchor keeps.
        memory (Memory): Earlier pairs, both sides; None each without any.
    """

    student: Tensor
    teacher: Tensor
    students: Candidates | None
    teachers: Candidates | None
    keep: Keep
    memory: Memory


class PairwiseLoss(nn.Module):
    """Base of losses that compare student rows with teacher rows.

    A row is a sample or, in dense distillation, a location: the loss does
    not know which.  Sub-classes implement :meth:`compare`.
    """

    #: Whether student and teacher rows live in one space (equal D).
    shared_space = True
    #: Whether rows are brought to unit length before they are compared.
    normalize = True
    #: Whether a row is compared with the teachers of other pairs.
    compares_teachers = True
    #: Whether a row is compared with the students of other pairs.
    compares_students = False
    #: Whether there is nothing to compare with but a memory.
    needs_memory = False
    #: Whether it looks into the networks, see :meth:`watch`.
    watches_networks = False
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
        block_ids: Tensor | None = None,
        within_blocks: bool = False,
        excluded: Tensor | None = None,
    ) -> Tensor:
        """Compare rows; normalisation, where wanted, happens inside.

        In a process group the batch is that of all processes, in order of
        rank; their numbers of rows may differ.  Each process computes the
        part of its own rows, scaled so that the average over processes, which
        DistributedDataParallel takes of gradients, is that of the batch.

        Args:
            student (Tensor): Student embeddings of shape (B, D).
            teacher (Tensor): Teacher embeddings of shape (B, D); row ``i``
                belongs to the same pair as student row ``i``.  Treated as a
                constant.
            memory (Memory, optional): Earlier pairs as more candidates.
            group_ids (Tensor, optional): Integers (B, ); pairs that share a
                group are not negatives of each other.
            block_ids (Tensor, optional): Integers (B, ) that no other process
                uses; pairs that share a block, such as the locations of one
                image, are negatives of each other although they are of one
                group.
            within_blocks (bool): Whether pairs of other blocks, and with them
                the memory, are no negatives. Defaults to False.
            excluded (Tensor, optional): Integers (E, 2), in all processes or
                in none: row i and row j of this process, in both orders and
                once, that would be but are not negatives of each other.
                Pairs (i, i) have no effect.

        Returns:
            Tensor: The weighted scalar loss (a dict of them in composites).

        Raises:
            ConfigError: Shapes do not fit, or there is nothing to compare
                with (one pair and no memory).
        """
        self._check_shapes(student, teacher)
        if within_blocks:
            memory = group_ids = None
        num = len(student)
        sizes = collectives.batch_sizes(num, student.device)
        self._check_number(sum(sizes), memory)
        # Similarities lose too much in half precision to be divided by a
        # small temperature.
        with _without_autocast(student.device.type):
            prepare = fn.unit_rows if self.normalize else fn.full_precision
            student = prepare(student)
            teacher = prepare(teacher.detach()).to(student.dtype)
            left_out = dict(
                groups=group_ids,
                blocks=block_ids,
                within_blocks=within_blocks,
                excluded=excluded,
            )
            rows = self._gather(student, teacher, memory, left_out, sizes)
            result = self.compare(rows)
        share = len(sizes) * num / sum(sizes)
        if isinstance(result, dict):
            return {name: scaled(x, share) for name, x in result.items()}
        return scaled(result, share)

    def compare(self, rows: Rows) -> Tensor:
        """Compute the mean over the rows of this process."""
        raise NotImplementedError

    def watch(self, student: nn.Module, teacher: nn.Module) -> None:
        """Get to know the networks whose rows are compared.

        ``CrossModalDistiller`` calls it once, after it was built, if
        :attr:`watches_networks`.  In each step it then enters the context
        :meth:`watching` while the student passes the batch.

        Args:
            student (nn.Module): The student's backbone, that is trained.
            teacher (nn.Module): The teacher's, whose weights may be loaded
                later. It must not become part of the loss's module tree.
        """
        raise NotImplementedError

    def watching(self) -> AbstractContextManager:
        """Return a context in which layers of the student may be recorded."""
        raise NotImplementedError

    def _gather(self, student, teacher, memory, left_out, sizes):
        """Collect candidates: the batch of all processes, and the memory."""
        students = teachers = None
        keep = Keep()
        stored = memory or _EMPTY
        if self.compares_students:
            students = Candidates(
                collectives.gather_rows_with_gradient(student, sizes),
                stored.student,
            )
        if self.compares_teachers:
            teachers = Candidates(
                collectives.gather_rows(teacher, sizes), stored.teacher
            )
        if self.compares_teachers or self.compares_students:
            keep = _gather_keep(stored, sizes, **left_out)
        return Rows(student, teacher, students, teachers, keep, stored)

    def _check_shapes(self, student, teacher):
        name = type(self).__name__
        if (
            student.ndim != 2
            or teacher.ndim != 2
            or len(student) != len(teacher)
            or not len(student)
        ):
            raise ConfigError(
                f'{name} expects student and teacher embeddings of shapes '
                '(B, D) with the same B >= 1, but got '
                f'{tuple(student.shape)} and {tuple(teacher.shape)}.'
            )
        if self.shared_space and student.shape[1] != teacher.shape[1]:
            raise ConfigError(
                f'{name} compares student with teacher directly, but their '
                f'dimensions are {student.shape[1]} and {teacher.shape[1]}. '
                'Add a projector on the student (student_projector, or '
                'projector in a lesson) with '
                f'out_channels={teacher.shape[1]}.'
            )

    def _check_number(self, number, memory):
        if number < 2 and (memory is None or not len(memory.teacher)):
            raise ConfigError(
                f'{type(self).__name__} got a batch of {number} pair and no '
                'memory: there is nothing to contrast it with. Use '
                'batch_size >= 2 with drop_last=True, or a FeatureQueue.'
            )


def _gather_keep(memory, sizes, groups, blocks, within_blocks, excluded):
    """Tell which candidates are kept, of this process's part of a batch."""

    def gather(numbers):
        if numbers is None:
            return None
        return collectives.gather_rows(numbers, sizes)

    own = collectives.own_slice(sizes)
    num_excluded = None
    if excluded is not None:
        anchors, others = excluded.unbind(dim=1)
        num_excluded = torch.zeros(
            own.stop - own.start, dtype=torch.long, device=excluded.device
        ).index_add_(0, anchors, (anchors != others).long())
        excluded = torch.stack([anchors, others + own.start], dim=1)
    return Keep(
        start=own.start,
        groups=groups,
        batch_groups=gather(groups),
        memory_groups=memory.group_ids,
        blocks=blocks,
        batch_blocks=gather(blocks),
        within_blocks=within_blocks,
        excluded=excluded,
        num_excluded=gather(num_excluded),
    )


def _without_autocast(device_type):
    # To switch off what is off costs more than it seems to.
    if torch.is_autocast_enabled(device_type):
        return torch.autocast(device_type, enabled=False)
    return nullcontext()


def scaled(value: Tensor, factor: float) -> Tensor:
    """Return a scaled loss; without a node in the graph where it is one."""
    return value if factor == 1 else factor * value


def check_temperature(name: str, value: float) -> float:
    """Return a temperature, or say that it is not positive."""
    if not value > 0:
        raise ConfigError(f'{name} must be positive, but got {value}.')
    return float(value)
