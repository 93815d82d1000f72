from torch import Tensor
from torch.linalg import vecdot

from mmcmcd.registry import MODELS

from .base import PairwiseLoss, Rows, scaled


@MODELS.register_module()
class CosineLoss(PairwiseLoss):
    r"""Regression of the teacher's directions: pairs only, no negatives.

    .. math::
        L = \frac{1}{B} \sum_i (1 - \cos(s_i, t_i))

    The positive-only half of contrast, as BYOL (Grill et al., NeurIPS 2020)
    and its relatives have it.  It is :class:`FeatureL2Loss` of unit rows
    times D / 2, so that it does not shrink with the width.

    Args:
        loss_weight (float): Defaults to 1.0.
    """

    compares_teachers = False

    def __init__(self, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.loss_weight = loss_weight

    def compare(self, rows: Rows) -> Tensor:
        """Compute the loss of unit rows; memory and groups play no part."""
        loss = 1 - vecdot(rows.student, rows.teacher).mean()
        return scaled(loss, self.loss_weight)
