import torch
from torch import Tensor

from mmcmcd.models.utils import collectives
from mmcmcd.registry import MODELS

from . import functional as fn
from . import tiled
from .base import PairwiseLoss, Rows, check_temperature, scaled

# In place of log(0), which could not be subtracted from a hidden score.
_LOG_ZERO = -1e30


@MODELS.register_module()
class CRDLoss(PairwiseLoss):
    r"""Contrastive representation distillation (CRD), without its banks.

    Each candidate of an anchor is told from noise by itself, a logistic
    regression (NCE), where the softmax of :class:`CMCLoss` (InfoNCE) weighs
    all of them at once.  With :math:`x_{ij} = s_i \cdot t_j / \tau`
    (normalised rows) and :math:`\zeta(x) = \log(1 + e^x)`

    .. math::
        L = \frac{1}{B} \sum_i \Big[ & \zeta(b_i - x_{ii}) +
        \sum_{j \ne i} \zeta(x_{ij} - b_i) \\
        + & \zeta(b'_i - x_{ii}) +
        \sum_{j \ne i} \zeta(x_{ji} - b'_i) \Big],\quad
        b_i = \log K_i + \log Z

    with students as anchors in the first line and teachers in the second;
    :math:`K_i` is the number of negatives that anchor i has, and :math:`Z`
    the mean of :math:`e^x` over the pairs of the first training batch, one
    for each line.  This is Eq. (18) of Tian, Krishnan and Isola (ICLR 2020)
    with :math:`h = e^x / (n Z)` and noise :math:`1 / n`: the size n of the
    data set cancels (but for the 1e-7 that their code adds to denominators).

    What differs is ours.  Originally each anchor draws its own K negatives
    from two banks, which hold an average of each training sample's rows; an
    anchor's positive is in the bank as well; and the teacher's embedding is
    trained.  Here

    * negatives are the other pairs of the batch, of all processes, and the
      memory's, the same ones for all anchors, without those of their group;
    * the positive is the pair itself;
    * teachers are constants.  So students learn as candidates, too, which
      those in a bank do not, and the memory's students, compared with
      constants, add to the value of the loss but not to its gradient.

    The logarithms of the two Z are a buffer, equal in all processes, and are
    kept in checkpoints.  In evaluation before any training they are those of
    the batch at hand.

    Args:
        temperature (float): :math:`\tau`. Defaults to 0.07.
        loss_weight (float): Defaults to 1.0; the authors give it 0.8 beside
            a loss of labels.
    """

    def __init__(
        self, temperature: float = 0.07, loss_weight: float = 1.0
    ) -> None:
        super().__init__()
        self.temperature = check_temperature(
            'CRDLoss temperature', temperature
        )
        self.loss_weight = loss_weight
        self.register_buffer('log_normalizers', torch.full((2,), torch.nan))
        # As Python knows it: a GPU need not be waited for.
        self._is_fixed = False

    def compare(self, rows: Rows) -> Tensor:
        """Compute the loss of normalised rows."""
        negatives = rows.keep.num_negatives(rows.teachers)
        if self._is_fixed:
            log_normalizers = self.log_normalizers
        else:
            log_normalizers = self._normalize(rows, negatives)
        log_number = negatives.to(rows.student.dtype).log()
        loss = fn.nce(
            *self._pairs(rows),
            log_number.clamp(min=_LOG_ZERO) + log_normalizers[:, None],
            rows.keep,
        )
        return scaled(loss, self.loss_weight)

    @torch.no_grad()
    def _normalize(self, rows, negatives):
        """Take the mean of the first batch; keep it in training."""
        sums = tiled.log_sum_exp(*self._pairs(rows), rows.keep)
        largest = collectives.all_reduce(sums, 'max')
        total = collectives.all_reduce((sums - largest).exp(), 'sum')
        num_pairs = negatives.sum() + len(negatives)
        log_normalizers = largest + (total / num_pairs).log()
        # Mixed precision may begin with a batch that overflows.
        if self.training and log_normalizers.isfinite().all():
            self.log_normalizers.copy_(log_normalizers)
            self._is_fixed = True
        return log_normalizers

    def _pairs(self, rows):
        return (
            rows.student,
            rows.teachers,
            rows.memory.student,
            self.temperature,
        )

    def _load_from_state_dict(self, *args, **kwargs):
        super()._load_from_state_dict(*args, **kwargs)
        self.read_buffers()

    def read_buffers(self) -> None:
        """Know again whether Z is fixed, after the buffer was changed."""
        self._is_fixed = bool(self.log_normalizers.isfinite().all())
