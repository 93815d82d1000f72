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

    Args:
        form (str): ``'within'`` or ``'cross'``. Defaults to ``'within'``.
        teacher_temperature (float): :math:`\tau_t`. Defaults to 0.1.
        student_temperature (float): :math:`\tau_s`. Defaults to 0.2.
        include_self (bool, optional): Whether :math:`j = i` is a candidate.
            In the within form it carries no teacher information and takes
            all mass as :math:`\tau_t \to 0`.  Defaults to None: True in the
            cross form, False in the within form.
        loss_weight (float): Defaults to 1.0.

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
    ) -> None:
        super().__init__()
        if form not in ('within', 'cross'):
            raise ConfigError(
                f"CMDLoss form must be 'within' or 'cross', but got {form!r}."
            )
        self.form = form
        self.shared_space = form == 'cross'
        self.compares_students = form == 'within'
        self.teacher_temperature = check_temperature(
            'CMDLoss teacher_temperature', teacher_temperature
        )
        self.student_temperature = check_temperature(
            'CMDLoss student_temperature', student_temperature
        )
        self.include_self = (
            form == 'cross' if include_self is None else include_self
        )
        self.loss_weight = loss_weight

    def compare(self, rows: Rows) -> Tensor:
        """Compute the loss of normalised rows."""
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
