import torch
from torch import Tensor
from torch.nn.functional import smooth_l1_loss

from mmcmcd.models.utils import collectives
from mmcmcd.registry import MODELS

from .anchor_parts import sum_over_anchors
from .base import PairwiseLoss, Rows, scaled

# Rows that are nearer to each other have no direction.
_SHORTEST = 1e-6


@MODELS.register_module()
class RKDLoss(PairwiseLoss):
    r"""Relational knowledge distillation: distances and angles of rows.

    With :math:`d_{ij} = \lVert x_i - x_j \rVert` over its mean of all pairs
    :math:`i \ne j`, the cosines of angles
    :math:`a_{ijk} = \cos(x_j - x_i, x_k - x_i)`, both of students (s) and of
    teachers (t), and Huber's :math:`h(x, y)` with the threshold of one

    .. math::
        L = \frac{w_d}{B^2} \sum_{ij} h(d^s_{ij}, d^t_{ij}) +
        \frac{w_a}{B^3} \sum_{ijk} h(a^s_{ijk}, a^t_{ijk})

    Park et al., CVPR 2019, in the arithmetic and with the weights of
    RepDistiller (Tian et al.): rows are not normalised, and the means run
    over the zeros of equal indices, too.  Here rows that are equal have no
    direction: such angles count as zero, without a gradient.

    There are no negatives: memory and groups play no part.  The loss knows
    relations alone, so the student is not placed in the teacher's space.
    Angles take B^2 D numbers, of some vertices at a time, and B^3 D
    operations: for batches, not for the locations of maps.  In a process
    group each process takes the vertices of its own rows.

    Args:
        distance_weight (float): :math:`w_d`. Defaults to 25.0.
        angle_weight (float): :math:`w_a`; 0 leaves angles out. Defaults to
            50.0.
        loss_weight (float): Defaults to 1.0.
    """

    shared_space = False
    normalize = False
    compares_teachers = False

    def __init__(
        self,
        distance_weight: float = 25.0,
        angle_weight: float = 50.0,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.distance_weight = distance_weight
        self.angle_weight = angle_weight
        self.loss_weight = loss_weight

    def compare(self, rows: Rows) -> Tensor:
        """Compute the loss of the rows as they are."""
        num = len(rows.student)
        sizes = collectives.batch_sizes(num, rows.student.device)
        students = collectives.gather_rows_with_gradient(rows.student, sizes)
        teachers = collectives.gather_rows(rows.teacher, sizes)
        start = collectives.own_slice(sizes).start
        loss = self.distance_weight * smooth_l1_loss(
            _distances(rows.student, students),
            _distances(rows.teacher, teachers),
        )
        if self.angle_weight:
            size = len(students)

            def angle_cost(at):
                at = slice(start + at.start, start + at.stop)
                return smooth_l1_loss(
                    _angles(students, at),
                    _angles(teachers, at),
                    reduction='sum',
                )

            total = sum_over_anchors(
                angle_cost, num, size * max(size, students.shape[1])
            )
            loss = loss + self.angle_weight * total / (num * size**2)
        return scaled(loss, self.loss_weight)

    def _check_number(self, number, memory):
        # Relations to rows of the memory are none of this loss.
        super()._check_number(number, None)


def _distances(anchors, rows):
    """Distances (n, B) over the mean of all B (B - 1) of two rows."""
    # By products they would lose what near rows differ by.
    exact = 'donot_use_mm_for_euclid_dist'
    own = torch.cdist(anchors, rows, compute_mode=exact)
    everyone = own
    if len(anchors) < len(rows):
        everyone = torch.cdist(rows, rows, compute_mode=exact)
    mean = everyone.sum() / (len(rows) * (len(rows) - 1))
    return own / mean.clamp(min=_SHORTEST)


def _angles(rows, at):
    """Cosines (n, B, B) of the angles at some of the rows."""
    edges = rows[None] - rows[at, None]
    length = torch.linalg.vector_norm(edges, dim=2, keepdim=True)
    # Over infinity: neither a value nor a gradient.
    edges = edges / length.masked_fill(length <= _SHORTEST, torch.inf)
    return edges @ edges.transpose(1, 2)
