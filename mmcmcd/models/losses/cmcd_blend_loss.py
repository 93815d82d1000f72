from torch import Tensor

from mmcmcd.errors import ConfigError
from mmcmcd.registry import MODELS

from . import functional as fn
from .base import PairwiseLoss, Rows, check_temperature, scaled
from .candidates import Candidates
from .cmc_loss import CMCLoss


@MODELS.register_module()
class CMCDBlendLoss(PairwiseLoss):
    r"""CMC whose targets are blended with the teacher's soft ones.

    .. math::
        y_{ij} = \alpha\, \mathrm{softmax}_j(t_i \cdot t_j / \tau_t) +
        (1 - \alpha)\, [i = j],\quad
        L = \frac{1}{2} (H(y, q) + H(y, q'))

    with the mean cross-entropies :math:`H` of
    :math:`q_{ij} = \mathrm{softmax}_j(s_i \cdot t_j / \tau)` and
    :math:`q'_{ij} = \mathrm{softmax}_j(t_i \cdot s_j / \tau)`.

    These are the soft targets of ALBEF (Li et al., NeurIPS 2021), whose
    momentum networks give way to one frozen teacher, so that both directions
    share their targets: one blend of CMD and CMC, where :class:`CMCDLoss`
    adds the two up.  :math:`\alpha = 0` is :class:`CMCLoss`;
    :math:`\alpha = 1` knows no pairs but by the teacher's similarities.

    ALBEF trains one temperature for all; here they are given.  As for
    :class:`CMCLoss` rows of the memory are candidates of student anchors
    alone, and candidates of an anchor's group are left out.

    Args:
        alpha (float): Share of the soft targets, 0 to 1. Defaults to 0.4,
            ALBEF's.
        temperature (float): :math:`\tau`. Defaults to 0.07.
        teacher_temperature (float): :math:`\tau_t`. Defaults to 0.07.
        loss_weight (float): Defaults to 1.0.

    Raises:
        ConfigError: A value is out of range.
    """

    compares_students = True

    def __init__(
        self,
        alpha: float = 0.4,
        temperature: float = 0.07,
        teacher_temperature: float = 0.07,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        if not 0 <= alpha <= 1:
            raise ConfigError(
                f'CMCDBlendLoss alpha must be from 0 to 1, but got {alpha}.'
            )
        self.alpha = alpha
        self.temperature = check_temperature(
            'CMCDBlendLoss temperature', temperature
        )
        self.teacher_temperature = check_temperature(
            'CMCDBlendLoss teacher_temperature', teacher_temperature
        )
        self.hard = CMCLoss(self.temperature)
        self.loss_weight = loss_weight

    def compare(self, rows: Rows) -> Tensor:
        """Compute the loss of unit rows.

        Cross-entropies are linear in their targets: the hard and the soft
        ones are compared apart.
        """
        loss = 0
        if self.alpha < 1:
            loss = (1 - self.alpha) * self.hard.compare(rows)
        if self.alpha > 0:
            loss = loss + self.alpha * self._compare_softly(rows)
        return scaled(loss, self.loss_weight)

    def _compare_softly(self, rows):
        batch = Candidates(rows.teachers.batch)
        by_student, by_teacher = (
            fn.soft_cross_entropy(
                anchors,
                candidates,
                rows.teacher,
                targets,
                self.temperature,
                self.teacher_temperature,
                rows.keep,
            )
            for anchors, candidates, targets in (
                (rows.student, rows.teachers, rows.teachers),
                (rows.teacher, Candidates(rows.students.batch), batch),
            )
        )
        return (by_student + by_teacher) / 2
