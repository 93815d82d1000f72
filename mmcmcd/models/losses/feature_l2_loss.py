from torch import Tensor
from torch.nn.functional import mse_loss

from mmcmcd.registry import MODELS

from .base import PairwiseLoss, Rows, scaled


@MODELS.register_module()
class FeatureL2Loss(PairwiseLoss):
    r"""Regression of the teacher's embeddings: pairs only, no negatives.

    .. math::
        L = \frac{1}{BD} \sum_i \lVert s_i - t_i \rVert_2^2

    The baseline of cross-modality distillation: Gupta et al., CVPR 2016,
    with the ``student_projector`` as the transformation; with a mean instead
    of a sum it is the hint loss of FitNets (Romero et al., ICLR 2015).

    Args:
        normalize (bool): Bring rows to unit length first, so that the loss is
            :math:`2 (1 - \cos) / D`. Defaults to False.
        loss_weight (float): Defaults to 1.0.
    """

    compares_teachers = False

    def __init__(
        self, normalize: bool = False, loss_weight: float = 1.0
    ) -> None:
        super().__init__()
        self.normalize = normalize
        self.loss_weight = loss_weight

    def compare(self, rows: Rows) -> Tensor:
        """Compute the loss of the rows; memory and groups play no part."""
        return scaled(mse_loss(rows.student, rows.teacher), self.loss_weight)
