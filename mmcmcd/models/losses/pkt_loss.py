from torch import Tensor

from mmcmcd.registry import MODELS

from .anchor_parts import sum_over_anchors
from .base import PairwiseLoss, Rows, scaled
from .candidates import Candidates

# What the authors add within their logarithm.
_EPS = 1e-7


@MODELS.register_module()
class PKTLoss(PairwiseLoss):
    r"""Probabilistic knowledge transfer: distributions of similarities.

    .. math::
        L = \frac{1}{B^2} \sum_{ij} p_{ij} \log
        \frac{p_{ij} + \epsilon}{q_{ij} + \epsilon},\quad
        p_{ij} = \frac{1 + \cos(t_i, t_j)}{\sum_k 1 + \cos(t_i, t_k)}

    with :math:`q` the same of students, :math:`j = i` included and
    :math:`\epsilon = 10^{-7}`: Passalis and Tefas, ECCV 2018, in the
    arithmetic of RepDistiller (Tian et al.).  A relative of
    ``CMDLoss(form='within')`` without temperatures.  The mean over all
    entries, not over anchors, makes it small: RepDistiller weighs it by
    30,000.

    Candidates are the batch of all processes; the memory plays no part.
    Others of an anchor's group are left out of its sums (ours) and count as
    zero in the mean.  The loss knows relations alone, so the student is not
    placed in the teacher's space.

    Args:
        loss_weight (float): Defaults to 1.0.
    """

    shared_space = False
    compares_students = True

    def __init__(self, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.loss_weight = loss_weight

    def compare(self, rows: Rows) -> Tensor:
        """Compute the loss of unit rows."""
        students, teachers = rows.students.batch, rows.teachers.batch
        num, size = len(rows.student), len(students)
        hidden = rows.keep.hidden(num, Candidates(students))

        def cost(at):
            mask = None if hidden is None else hidden[at]
            q = _distribution(rows.student[at], students, mask)
            p = _distribution(rows.teacher[at], teachers, mask)
            return (p * ((p + _EPS) / (q + _EPS)).log()).sum()

        loss = sum_over_anchors(cost, num, size) / (num * size)
        return scaled(loss, self.loss_weight)

    def _check_number(self, number, memory):
        # Rows of the memory are no candidates of this loss.
        super()._check_number(number, None)


def _distribution(anchors, candidates, hidden):
    """Shares (n, B) of the similarities of each anchor."""
    similarity = (1 + anchors @ candidates.T).clamp(min=0)
    if hidden is not None:
        similarity = similarity.masked_fill(hidden, 0)
    return similarity / similarity.sum(dim=1, keepdim=True)
