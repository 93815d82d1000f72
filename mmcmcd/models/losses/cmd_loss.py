from torch import Tensor

from mmcmcd.errors import ConfigError
from mmcmcd.registry import MODELS

from . import functional as fn
from .base import PairwiseLoss, Rows, check_temperature, scaled


@MODELS.register_module()
class CMDLoss(PairwiseLoss):
    r"""Cross-modality distillation of similarity distributions (CMD).

    The teacher's softmax over similarities of source embeddings is the soft
    target of the student's softmax over the same candidates:

    .. math::
        L = -\frac{1}{B} \sum_i \sum_j p_{ij} \log q_{ij},\quad
        p_{ij} = \mathrm{softmax}_j(t_i \cdot t_j / \tau_t)

    * ``form='within'``:
      :math:`q_{ij} = \mathrm{softmax}_j(s_i \cdot s_j / \tau_s)`.  Invariant
      to rotations of the student's space: a teacher's head cannot be reused,
      and student and teacher dimensions may differ.  Nearest published
      relative: CompRess (Koohpayegani et al., NeurIPS 2020).
    * ``form='cross'``:
      :math:`q_{ij} = \mathrm{softmax}_j(s_i \cdot t_j / \tau_s)`.  Places
      the student in the teacher's space.  Nearest relative: SEED (Fang et
      al., ICLR 2021).

    The method is CMD of arXiv 2405.03355; its exact Eq. (2) was not
    available, so the two forms, the temperatures and the treatment of the
    self term are this project's choices.

    ``candidates='memory'`` leaves the rest of the batch out, as these two
    relatives do: within, candidates are the memory's students and teachers
    alone (CompRess, whose Kullback-Leibler divergence has the same
    gradient); across, they are the own teacher and the memory's (SEED).  Old
    copies of the own pair are left out with its group (ours).  While there
    is no memory yet, at the first step, the loss is a zero with a gradient
    of zero: that step only fills the queue.  A distiller without a queue is
    refused.

    Args:
        form (str): ``'within'`` or ``'cross'``. Defaults to ``'within'``.
        teacher_temperature (float): :math:`\tau_t`. Defaults to 0.1.
        student_temperature (float): :math:`\tau_s`. Defaults to 0.2.
        include_self (bool, optional): Whether :math:`j = i` is a candidate.
            In the within form it carries no teacher information and takes
            all mass as :math:`\tau_t \to 0`.  Defaults to None: True in the
            cross form, False in the within form.  With
            ``candidates='memory'`` only these are possible.
        loss_weight (float): Defaults to 1.0.
        candidates (str): ``'all'``, batch and memory, or ``'memory'``.
            Defaults to ``'all'``.

    Example:
        >>> loss = CMDLoss(form='within')(student, teacher)  # (B, D), (B, D')
    """

    def __init__(
        self,
        form: str = 'within',
        teacher_temperature: float = 0.1,
        student_temperature: float = 0.2,
        include_self: bool | None = None,
        loss_weight: float = 1.0,
        candidates: str = 'all',
    ) -> None:
        super().__init__()
        if form not in ('within', 'cross'):
            raise ConfigError(
                f"CMDLoss form must be 'within' or 'cross', but got {form!r}."
            )
        if candidates not in ('all', 'memory'):
            raise ConfigError(
                "CMDLoss candidates must be 'all' or 'memory', but got "
                f'{candidates!r}.'
            )
        is_cross = form == 'cross'
        self.needs_memory = candidates == 'memory'
        if self.needs_memory and include_self not in (None, is_cross):
            raise ConfigError(
                f"CMDLoss(form={form!r}, candidates='memory') has "
                f'include_self={is_cross}, but got {include_self}. Leave '
                'include_self out.'
            )
        self.form = form
        self.shared_space = is_cross
        self.compares_students = not is_cross and not self.needs_memory
        self.teacher_temperature = check_temperature(
            'CMDLoss teacher_temperature', teacher_temperature
        )
        self.student_temperature = check_temperature(
            'CMDLoss student_temperature', student_temperature
        )
        self.include_self = is_cross if include_self is None else include_self
        self.loss_weight = loss_weight

    def compare(self, rows: Rows) -> Tensor:
        """Compute the loss of normalised rows."""
        if self.needs_memory:
            return scaled(self._compare_with_memory(rows), self.loss_weight)
        candidates = rows.students if self.compares_students else rows.teachers
        loss = fn.soft_cross_entropy(
            rows.student,
            candidates,
            rows.teacher,
            rows.teachers,
            self.student_temperature,
            self.teacher_temperature,
            rows.keep._replace(include_self=self.include_self),
        )
        return scaled(loss, self.loss_weight)

    def _compare_with_memory(self, rows):
        """Compare rows with those of the memory, and with the own teacher."""
        memory = rows.memory
        if memory.teacher is None:
            return 0 * rows.student.sum()
        is_cross = self.form == 'cross'
        return fn.soft_cross_entropy_with_memory(
            rows.student,
            memory.teacher if is_cross else memory.student,
            rows.teacher,
            memory.teacher,
            self.student_temperature,
            self.teacher_temperature,
            rows.keep,
            with_own=is_cross,
        )
