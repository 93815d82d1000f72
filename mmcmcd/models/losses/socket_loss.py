from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmcmcd.errors import ConfigError
from mmcmcd.models.utils import collectives
from mmcmcd.registry import MODELS

from .base import PairwiseLoss, Rows, scaled

# Weight of the first BN layer; the others have one.
_FIRST = 10.0


@MODELS.register_module()
class SOCKETLoss(PairwiseLoss):
    r"""The two terms of SOCKET that need neither labels nor a classifier.

    .. math::
        L_{pairs} &= w_p\, \lVert S - T \rVert_F \\
        L_{bn} &= w_b \sum_l w_l \left( \lVert \mu_l - \hat\mu_l \rVert_2 +
        \lVert \sigma^2_l - \hat\sigma^2_l \rVert_2 \right),\quad
        w_1 = 10,\ w_{l > 1} = 1

    with the rows S of students and T of teachers as they are, neither
    squared nor averaged; mean :math:`\mu_l` and (biased) variance
    :math:`\sigma^2_l` of what enters the l-th batch normalisation (BN) of
    the student; and the running statistics :math:`\hat\mu_l` and
    :math:`\hat\sigma^2_l` of the teacher's.  Ahmed et al., ECCV 2022, and
    the code of merlresearch/SOCKET.

    What differs is ours.  There the target's network starts as a copy of the
    source's, and its statistics are of another batch, of the task.  Here
    student and teacher are two networks, whose BN layers are paired in order
    where they are as wide; the batch is that of the pairs.  Terms of
    pseudo-labels and of weights of several sources are left out, and the
    weight of a single source (a trained factor of both statistics) is one.

    In a process group statistics are those of the batch of all processes.
    In evaluation there is the term of pairs alone.  No negatives: memory and
    groups play no part.

    Args:
        pair_weight (float): :math:`w_p`. Defaults to 0.5.
        bn_weight (float): :math:`w_b`; 0 switches the term off, which needs
            a :class:`CrossModalDistiller` or a heir of it, and a backbone
            that does not save memory by ``with_cp``. Defaults to 0.5.
        loss_weight (float): Of both. Defaults to 1.0.
    """

    normalize = False
    compares_teachers = False

    def __init__(
        self,
        pair_weight: float = 0.5,
        bn_weight: float = 0.5,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.pair_weight = pair_weight
        self.bn_weight = bn_weight
        self.loss_weight = loss_weight
        self._taps = None

    @property
    def watches_networks(self) -> bool:
        """Whether there is a term of batch normalisation."""
        return self.bn_weight != 0

    def watch(self, student: nn.Module, teacher: nn.Module) -> None:
        """Pair the BN layers of both networks.

        Args:
            student (nn.Module): The student's backbone.
            teacher (nn.Module): The teacher's; its statistics are read at
                each step.

        Raises:
            ConfigError: The numbers of BN layers differ, or no two that are
                paired are equally wide.
        """
        ours, theirs = ([*_bn_layers(net)] for net in (student, teacher))
        off = 'or switch this term off: SOCKETLoss bn_weight=0.'
        if len(ours) != len(theirs):
            raise ConfigError(
                'SOCKETLoss pairs the BN layers of student and teacher in '
                f'order, but the student has {len(ours)} and the teacher '
                f'{len(theirs)}. Take networks of one architecture, {off}'
            )
        self._taps = []
        for i, (layer, reference) in enumerate(zip(ours, theirs, strict=True)):
            if layer.num_features != reference.num_features:
                continue
            tap = _Tap(reference, 1.0 if i else _FIRST)
            layer.register_forward_pre_hook(tap)
            self._taps.append(tap)
        if not self._taps:
            raise ConfigError(
                'SOCKETLoss compares statistics of BN layers, but of the '
                f'{len(ours)} of student and teacher no two are equally '
                f'wide. Take networks of one architecture, {off}'
            )

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Within it, keep the statistics of the student's BN layers."""
        taps = self._taps or ()
        for tap in taps:
            tap.statistics, tap.is_open = None, True
        try:
            yield
        finally:
            for tap in taps:
                tap.is_open = False

    def compare(self, rows: Rows) -> dict[str, Tensor]:
        """Compute both terms, of rows as they are.

        Returns:
            dict[str, Tensor]: ``loss_pairs`` and ``loss_bn``, weighted.
        """
        num = len(rows.student)
        sizes = collectives.batch_sizes(num, rows.student.device)
        # Each process computes the norm of all rows.
        students = collectives.gather_rows_with_gradient(rows.student, sizes)
        teachers = collectives.gather_rows(rows.teacher, sizes)
        pairs = torch.linalg.vector_norm(students - teachers)
        terms = dict(
            loss_pairs=scaled(pairs, self.loss_weight * self.pair_weight)
        )
        if self.watches_networks and self.training:
            bn = self._compare_statistics(sizes)
            terms['loss_bn'] = scaled(bn, self.loss_weight * self.bn_weight)
        return terms

    def _compare_statistics(self, sizes):
        if self._taps is None:
            raise ConfigError(
                'SOCKETLoss was not shown the networks whose BN layers it '
                'compares, as CrossModalDistiller and JointDistiller do for '
                'model.losses. Move it there, or set bn_weight=0.'
            )
        taps = [tap for tap in self._taps if tap.statistics is not None]
        if not taps:
            raise ConfigError(
                'SOCKETLoss saw no BN layer of the student in training '
                'mode. Let them train (norm_eval=False, no frozen_stages), '
                'or set bn_weight=0.'
            )
        ours = _of_all_processes(
            torch.cat([tap.take() for tap in taps], dim=1), sizes
        )
        theirs = torch.cat([tap.wanted for tap in taps], dim=1)
        distances = (
            torch.linalg.vector_norm(difference, dim=1).sum()
            for difference in (ours - theirs.to(ours)).split(
                [tap.reference.num_features for tap in taps], dim=1
            )
        )
        return sum(
            scaled(distance, tap.weight)
            for tap, distance in zip(taps, distances, strict=True)
        )


class _Tap:
    """Keeps the statistics of what enters a layer until they are taken.

    A class, not a closure: a copy of the model has a copy of it.

    Args:
        reference (nn.Module): The teacher's layer.
        weight (float): Of this layer in the loss.
    """

    def __init__(self, reference: nn.Module, weight: float) -> None:
        self.reference = reference
        self.weight = weight
        self.is_open = False
        self.statistics = None

    def __call__(self, layer: nn.Module, inputs: tuple[Tensor]) -> None:
        """See what enters the layer, (B, C, ...)."""
        if not self.is_open or not layer.training:
            return
        rows = inputs[0].movedim(1, 0).flatten(1)
        rows = rows.to(torch.promote_types(rows.dtype, torch.float32))
        var, mean = torch.var_mean(rows, dim=1, correction=0)
        self.statistics = torch.stack([mean, var])

    @property
    def wanted(self) -> Tensor:
        """The teacher's mean and variance, (2, C)."""
        layer = self.reference
        return torch.stack([layer.running_mean, layer.running_var])

    def take(self) -> Tensor:
        """Return mean and variance (2, C), and keep them no longer."""
        statistics, self.statistics = self.statistics, None
        return statistics


def _bn_layers(network):
    return (
        layer
        for layer in network.modules()
        if isinstance(layer, _BatchNorm) and layer.track_running_stats
    )


def _of_all_processes(statistics, sizes):
    """Mean and variance (2, C) of the batch that processes share."""
    if len(sizes) == 1:
        return statistics
    rows = collectives.gather_rows_with_gradient(
        statistics.flatten()[None], [1] * len(sizes)
    )
    means, variances = rows.unflatten(1, statistics.shape).unbind(dim=1)
    shares = rows.new_tensor(sizes)[:, None] / sum(sizes)
    mean = (shares * means).sum(dim=0)
    var = (shares * (variances + (means - mean).square())).sum(dim=0)
    return torch.stack([mean, var])
