import torch
from torch import Tensor

from mmcmcd.registry import MODELS

from .anchor_parts import sum_over_anchors
from .base import PairwiseLoss, Rows, check_temperature, scaled
from .candidates import Candidates


@MODELS.register_module()
class CrossCLRLoss(PairwiseLoss):
    r"""Contrast across modalities with negatives of the own one, too.

    .. math::
        l(a, b) = -\frac{1}{B} \sum_i \log
        \frac{e^{a_i \cdot b_i / \tau}}{\sum_j e^{a_i \cdot b_j / \tau} +
        \sum_{j \ne i} e^{w\, a_i \cdot a_j / \tau}},\quad
        L = \frac{1}{2} (l(s, t) + l(t, s))

    The intra-modality part of CrossCLR (Zolfaghari et al., ICCV 2021) in the
    arithmetic of its code, which also leaves a term of one in the sums for
    :math:`j = i`; here it is left out.  Its pruning and weighting of
    influential samples are not part of this.  Teachers are constants: among
    teachers, negatives raise what a student has to outdo.

    Others of an anchor's group are left out.  Teachers of the memory are
    further negatives of student anchors, across modalities (ours).

    Args:
        temperature (float): :math:`\tau`. Defaults to 0.03.
        negative_weight (float): w. Defaults to 0.8.
        loss_weight (float): Defaults to 1.0.
    """

    compares_students = True

    def __init__(
        self,
        temperature: float = 0.03,
        negative_weight: float = 0.8,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.temperature = check_temperature(
            'CrossCLRLoss temperature', temperature
        )
        self.negative_weight = negative_weight
        self.loss_weight = loss_weight

    def compare(self, rows: Rows) -> Tensor:
        """Compute the loss of unit rows."""
        students = Candidates(rows.students.batch)
        teachers = Candidates(rows.teachers.batch)
        keep = rows.keep
        by_student = self._contrast(
            rows.student, rows.teacher, rows.teachers, students, keep
        )
        by_teacher = self._contrast(
            rows.teacher, rows.student, students, teachers, keep
        )
        return scaled((by_student + by_teacher) / 2, self.loss_weight)

    def _contrast(self, anchors, partners, across, within, keep):
        """Mean over anchors of one direction."""
        num = len(anchors)
        others = across.batch
        if across.memory is not None:
            others = torch.cat([others, across.memory.to(others)])
        # The positive, with a gradient of its own, is counted as one of them.
        hidden_across = keep._replace(include_self=True).hidden(num, across)
        hidden_within = keep._replace(include_self=False).hidden(num, within)

        def cost(at):
            scores = anchors[at] @ others.T
            if hidden_across is not None:
                scores = scores.masked_fill(hidden_across[at], -torch.inf)
            intra = self.negative_weight * (anchors[at] @ within.batch.T)
            intra = intra.masked_fill(hidden_within[at], -torch.inf)
            total = torch.cat([scores, intra], dim=1) / self.temperature
            own = torch.linalg.vecdot(anchors[at], partners[at])
            return (total.logsumexp(dim=1) - own / self.temperature).sum()

        numbers = len(others) + len(within.batch)
        return sum_over_anchors(cost, num, numbers) / num
