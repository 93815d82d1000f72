"""A norm without trained parameters on a teacher's embeddings."""

import torch
from torch import Tensor, nn

from mmcmcd.errors import ConfigError
from mmcmcd.models.utils.collectives import (
    batch_sizes,
    gather_rows,
    own_slice,
)
from mmcmcd.registry import MODELS


@MODELS.register_module()
class Center(nn.Module):
    """Subtract the mean of each feature; keep their scales.

    In training the mean is that of the batch, later a moving average, as of
    ``BatchNorm1d``, which divides by the standard deviations, too.

    Args:
        num_features (int): D of the rows.
        momentum (float): Share of a batch in the moving average. Defaults to
            0.1.

    Example:
        >>> source_norm = dict(type='mmcmcd.Center', num_features=512)
    """

    def __init__(self, num_features: int, momentum: float = 0.1) -> None:
        super().__init__()
        self.num_features = num_features
        self.momentum = momentum
        self.register_buffer('running_mean', torch.zeros(num_features))

    def forward(self, rows: Tensor) -> Tensor:
        """Return centred rows (N, D)."""
        if not self.training:
            return rows - self.running_mean
        mean = rows.mean(dim=0)
        # An overflow must not stay in the average for ever.
        known = torch.where(mean.isfinite(), mean, self.running_mean)
        self.running_mean.lerp_(known.detach(), self.momentum)
        return rows - mean


# Least eigenvalue that is divided by, as a share of their mean.
_LEAST_EIGENVALUE = 1e-6


@MODELS.register_module()
class Whiten(nn.Module):
    r"""Make features uncorrelated and equally large, otherwise as they were.

    With the mean :math:`\mu` and the covariance :math:`C` of rows

    .. math::
        y = (x - \mu)\, \hat C^{-1/2},\quad
        \hat C = (1 - \lambda)\, C + \lambda\, \tfrac{\mathrm{tr}\, C}{D} I

    which of all whitenings changes rows the least (ZCA; Kessy, Lewin and
    Strimmer, The American Statistician 2018).  The shrinkage
    :math:`\lambda` towards equal variances (Ledoit and Wolf, 2004) keeps
    directions that hardly vary from being blown up; it is given, not
    estimated, and its default is this project's choice.

    Mean and covariance are moving averages, in training after the batch is
    added: a batch of fewer rows than features has no covariance to invert,
    and targets should not turn from batch to batch.  The first batches are
    averaged evenly.  A batch with an overflow is not added.

    The root takes one eigendecomposition: on one core of an AMD EPYC 4 ms
    with 256 features, 21 ms with 512 and 1.1 s with 2,048; with so many take
    an ``interval``.  To add and to whiten N rows are two products of N D^2.

    Args:
        num_features (int): D of the rows.
        momentum (float): Share of a batch in the moving averages; 1 takes
            the statistics of the batch alone. Defaults to 0.1.
        shrinkage (float): :math:`\lambda`, from 0 (none) to 1 (only centred).
            Defaults to 0.1.
        interval (int): Batches from one eigendecomposition to the next.
            Defaults to 1.

    Raises:
        ConfigError: A value is out of range.

    Example:
        >>> source_norm = dict(type='mmcmcd.Whiten', num_features=512)
    """

    def __init__(
        self,
        num_features: int,
        momentum: float = 0.1,
        shrinkage: float = 0.1,
        interval: int = 1,
    ) -> None:
        super().__init__()
        if not 0 <= shrinkage <= 1:
            raise ConfigError(
                f'Whiten shrinkage must be from 0 to 1, but got {shrinkage}.'
            )
        if interval < 1:
            raise ConfigError(
                f'Whiten interval must be at least 1, but got {interval}.'
            )
        self.num_features = num_features
        self.momentum = momentum
        self.shrinkage = shrinkage
        self.interval = interval
        self.register_buffer('running_mean', torch.zeros(num_features))
        self.register_buffer('running_cov', torch.eye(num_features))
        self.register_buffer('matrix', torch.eye(num_features))
        self.register_buffer('num_batches', torch.zeros((), dtype=torch.long))
        # As Python knows it: a GPU need not be waited for.
        self._num_batches = 0

    def forward(self, rows: Tensor) -> Tensor:
        """Return whitened rows (N, D)."""
        if self.training:
            self._add(rows)
        return (rows - self.running_mean) @ self.matrix

    @torch.no_grad()
    def _add(self, rows):
        mean = rows.mean(dim=0)
        centred = rows - mean
        cov = centred.T @ centred / len(rows)
        # Its trace is not finite if any of its numbers is not.
        if not cov.trace().isfinite():
            return
        weight = max(self.momentum, 1 / (self._num_batches + 1))
        self.running_mean.lerp_(mean, weight)
        self.running_cov.lerp_(cov, weight)
        if self._num_batches % self.interval == 0:
            self.matrix.copy_(_inverse_root(self.running_cov, self.shrinkage))
        self._num_batches += 1
        self.num_batches.fill_(self._num_batches)

    def _load_from_state_dict(self, *args, **kwargs):
        super()._load_from_state_dict(*args, **kwargs)
        self.read_buffers()

    def read_buffers(self) -> None:
        """Know again how many batches there were, after a change of it."""
        self._num_batches = int(self.num_batches)


def _inverse_root(cov, shrinkage):
    """Inverse square root of a covariance (D, D) that is shrunk."""
    values, vectors = torch.linalg.eigh(cov)
    mean = values.mean()
    values = values.lerp(mean, shrinkage)
    least = _LEAST_EIGENVALUE * mean + torch.finfo(cov.dtype).tiny
    return (vectors * values.clamp(min=least).rsqrt()) @ vectors.T


def build_source_norm(cfg: dict, where: str) -> nn.Module:
    """Build a norm layer that training cannot bend.

    Args:
        cfg (dict): Config of a norm layer.
        where (str): Its place in the config, for messages.

    Raises:
        ConfigError: The layer has trained parameters.
    """
    norm = MODELS.build(cfg)
    if [*norm.parameters()]:
        raise ConfigError(
            f'{where} has trained parameters, with which the targets could '
            f'be changed at will: got {cfg}. Set affine=False.'
        )
    return norm


def apply_source_norm(norm: nn.Module, rows: Tensor, where: str) -> Tensor:
    """Normalise a teacher's embeddings (B, D) in the norm's precision.

    In training the statistics are those of the batch of all processes.

    Args:
        norm (nn.Module): Of :func:`build_source_norm`.
        rows (Tensor): Embeddings (B, D).
        where (str): As in :func:`build_source_norm`.

    Raises:
        ConfigError: The norm is of another width.
    """
    width = getattr(norm, 'num_features', rows.shape[1])
    if width != rows.shape[1]:
        raise ConfigError(
            f'{where} has num_features={width}, but the embeddings of the '
            f'teacher are {rows.shape[1]} wide. Set model.{where}.'
            f'num_features={rows.shape[1]}.'
        )
    # Statistics of half-precision rows would be rough.
    with torch.autocast(rows.device.type, enabled=False):
        rows = rows.to(_dtype(norm))
        if not norm.training:
            return norm(rows)
        sizes = batch_sizes(len(rows), rows.device)
        return norm(gather_rows(rows, sizes))[own_slice(sizes)]


def _dtype(norm):
    return next(
        (b.dtype for b in norm.buffers() if b.is_floating_point()),
        torch.float32,
    )
