import math

import torch
from torch import Tensor, nn

from mmcmcd.models.utils import collectives
from mmcmcd.registry import MODELS

from . import functional as fn
from .base import PairwiseLoss, Rows, check_temperature, scaled

# CLIP's bound: a larger scale makes training unstable.
_MAX_SCALE = 100.0


@MODELS.register_module()
class CMCLoss(PairwiseLoss):
    r"""Cross-modality contrast of student and teacher embeddings (CMC).

    With :math:`s_{ij} = t_i \cdot s_j / \tau` (normalised rows)

    .. math::
        L = -\frac{1}{2B} \sum_i \left[
        \log \frac{e^{s_{ii}}}{\sum_j e^{s_{ij}}} +
        \log \frac{e^{s_{ii}}}{\sum_j e^{s_{ji}}} \right]

    which is the loss of CLIP (Radford et al., 2021) with a locked teacher
    (LiT, Zhai et al., 2022), as reviewers describe Eq. (3) of arXiv
    2405.03355.  Memory rows are further negatives of the student-anchored
    term alone: the memory's student rows are stale.

    Args:
        temperature (float): :math:`\tau`. Defaults to 0.07.
        symmetric (bool): Whether both directions are averaged; else only
            student anchors against teacher candidates. Defaults to True.
        learnable_temperature (bool): Whether :math:`\tau` is trained, in log
            space and bounded below by 0.01 as in CLIP. Defaults to False.
        loss_weight (float): Defaults to 1.0.
    """

    def __init__(
        self,
        temperature: float = 0.07,
        symmetric: bool = True,
        learnable_temperature: bool = False,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        temperature = check_temperature('CMCLoss temperature', temperature)
        self.symmetric = symmetric
        self.loss_weight = loss_weight
        self.learnable_temperature = learnable_temperature
        if learnable_temperature:
            self.log_scale = nn.Parameter(
                torch.tensor(math.log(1 / temperature))
            )
        else:
            self.fixed_temperature = temperature

    @property
    def temperature(self) -> float | Tensor:
        """The temperature in use."""
        if not self.learnable_temperature:
            return self.fixed_temperature
        # As in CLIP the parameter itself is clamped: a clamped output would
        # have no gradient to come back with.
        with torch.no_grad():
            self.log_scale.clamp_(max=math.log(_MAX_SCALE))
        return (-self.log_scale).exp()

    def compare(self, rows: Rows) -> Tensor:
        """Compute the loss of normalised rows."""
        loss = fn.info_nce(
            rows.student,
            rows.teachers,
            self.temperature,
            rows.keep,
            self.symmetric,
            collectives.all_reduce if collectives.world_size() > 1 else None,
        )
        return scaled(loss, self.loss_weight)
