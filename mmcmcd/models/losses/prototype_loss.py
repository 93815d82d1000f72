import torch
from torch import Tensor

from mmcmcd.errors import ConfigError
from mmcmcd.models.utils import collectives
from mmcmcd.registry import MODELS

from . import functional as fn
from .base import Memory, PairwiseLoss, Rows, check_temperature, scaled
from .candidates import Candidates, Keep

# A prototype with less than this share of the mean number of rows is empty.
_EMPTY_SHARE = 0.1
# Rows whose scores are held at once while they are assigned.
_ROWS_AT_ONCE = 4096


@MODELS.register_module()
class PrototypeLoss(PairwiseLoss):
    r"""Agreement of student and teacher on prototypes, without negatives.

    Prototypes :math:`c_k` are unit centroids of the teacher's rows.  The
    teacher's softmax over its similarities to them is the soft target of the
    student's:

    .. math::
        L = -\frac{1}{N} \sum_i \sum_k p_{ik} \log q_{ik},\quad
        p_i = \mathrm{softmax}_k(t_i \cdot c_k / \tau_t),\quad
        q_i = \mathrm{softmax}_k(s_i \cdot c_k / \tau_s)

    Rows that look alike share prototypes, so that none of them is a false
    negative of another.  With :math:`\tau_t \to 0` targets are the nearest
    prototype alone.  It costs N K similarities, in tiles as those of the
    other losses.

    Prototypes are learnt from the teacher's rows by spherical k-means in
    mini-batches: in training, before a batch is compared, its rows are
    assigned to the prototype that is most similar, and moving averages of
    their sums and numbers follow; the prototype is the direction of the sum.
    Those whose number falls below a tenth of the mean restart at a random
    row of the batch, as all do in the first one.  In a process group the
    rows are those of all processes, and the prototypes equal everywhere.
    They are kept in checkpoints, and evaluation leaves them as they are;
    before any training they are zero, and the loss is log K.

    Relatives: PCL (Li et al., ICLR 2021) contrasts rows with centroids of
    their own encoder's momentum features, clustered once an epoch; SwAV
    (Caron et al., NeurIPS 2020) trains its prototypes by gradient and
    balances hard or soft assignments to them; SEED (Fang et al., ICLR 2021)
    has the same soft targets over a queue of rows in place of prototypes.
    Moving averages of sums and numbers are VQ-VAE's (van den Oord et al.,
    NeurIPS 2017).  To combine them so for a frozen teacher, the restarts and
    all defaults are this project's choices.

    Args:
        num_features (int): D of the rows.
        num_prototypes (int): K. Defaults to 256.
        teacher_temperature (float): :math:`\tau_t`. Defaults to 0.05.
        student_temperature (float): :math:`\tau_s`. Defaults to 0.1.
        momentum (float): Share of a batch in the moving averages, between 0
            and 1. Defaults to 0.1.
        loss_weight (float): Defaults to 1.0.

    Raises:
        ConfigError: A value is out of range.
    """

    compares_teachers = False

    def __init__(
        self,
        num_features: int,
        num_prototypes: int = 256,
        teacher_temperature: float = 0.05,
        student_temperature: float = 0.1,
        momentum: float = 0.1,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        if num_prototypes < 2:
            raise ConfigError(
                'PrototypeLoss num_prototypes must be at least 2, but got '
                f'{num_prototypes}.'
            )
        if not 0 < momentum < 1:
            raise ConfigError(
                'PrototypeLoss momentum must be between 0 and 1, but got '
                f'{momentum}.'
            )
        self.teacher_temperature = check_temperature(
            'PrototypeLoss teacher_temperature', teacher_temperature
        )
        self.student_temperature = check_temperature(
            'PrototypeLoss student_temperature', student_temperature
        )
        self.momentum = momentum
        self.loss_weight = loss_weight
        self.register_buffer('sums', torch.zeros(num_prototypes, num_features))
        self.register_buffer('counts', torch.zeros(num_prototypes))

    @property
    def prototypes(self) -> Tensor:
        """Unit rows (K, D), zero before any training."""
        return fn.unit_rows(self.sums)

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
        """Compare rows with prototypes, not with each other.

        Args:
            student (Tensor): Student embeddings of shape (N, D).
            teacher (Tensor): Teacher embeddings of shape (N, D), constant.
            memory (Memory, optional): Without effect.
            group_ids (Tensor, optional): Without effect.
            block_ids (Tensor, optional): Without effect.
            within_blocks (bool): Must be False.
            excluded (Tensor, optional): Must be None.

        Returns:
            Tensor: The weighted scalar loss.

        Raises:
            ConfigError: Shapes do not fit, or it was asked for a choice of
                candidates.
        """
        if within_blocks or excluded is not None:
            raise ConfigError(
                'PrototypeLoss compares rows with prototypes, not with each '
                "other: candidates='image' and exclusion_radius have no "
                'effect on it. Leave them out of this dense comparison.'
            )
        return super().forward(student, teacher)

    def compare(self, rows: Rows) -> Tensor:
        """Compute the loss of normalised rows."""
        if self.training:
            self._learn(collectives.gather_rows(rows.teacher))
        prototypes = Candidates(self.prototypes.to(rows.student.dtype))
        loss = fn.soft_cross_entropy(
            rows.student,
            prototypes,
            rows.teacher,
            prototypes,
            self.student_temperature,
            self.teacher_temperature,
            Keep(),
        )
        return scaled(loss, self.loss_weight)

    @torch.no_grad()
    def _learn(self, rows):
        """Take one step of k-means with unit rows (N, D)."""
        # A row that overflowed must not stay in the averages for ever.
        rows = rows.to(self.sums.dtype).nan_to_num(0, 0, 0)
        self._restart_empty(rows)
        nearest = _nearest(rows, self.prototypes)
        sums = torch.zeros_like(self.sums).index_add_(0, nearest, rows)
        counts = torch.zeros_like(self.counts).index_add_(
            0, nearest, rows.new_ones(len(rows))
        )
        self.sums.lerp_(sums, self.momentum)
        self.counts.lerp_(counts, self.momentum)

    def _restart_empty(self, rows):
        """Let empty prototypes begin at rows, with a fair share of them."""
        num_rows, num_prototypes = len(rows), len(self.counts)
        drawn = torch.randperm(num_rows, device=rows.device)
        # Of too few rows, some serve twice: the copies stay empty.
        drawn = drawn[
            torch.arange(num_prototypes, device=rows.device) % num_rows
        ]
        drawn = collectives.of_first_rank(drawn)
        share = num_rows / num_prototypes
        empty = self.counts <= _EMPTY_SHARE * self.counts.mean()
        self.sums.copy_(
            torch.where(empty[:, None], share * rows[drawn], self.sums)
        )
        self.counts.masked_fill_(empty, share)

    def _check_shapes(self, student, teacher):
        super()._check_shapes(student, teacher)
        num_features = self.sums.shape[1]
        if teacher.shape[1] != num_features:
            raise ConfigError(
                f'PrototypeLoss has num_features={num_features}, but the '
                f'rows are {teacher.shape[1]} wide. Set num_features='
                f'{teacher.shape[1]}.'
            )


def _nearest(rows, prototypes):
    """Index (N, ) of the prototype that is the most similar to each row."""
    return torch.cat(
        [
            (part @ prototypes.T).argmax(dim=1)
            for part in rows.split(_ROWS_AT_ONCE)
        ]
    )
