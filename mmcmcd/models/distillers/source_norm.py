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
        self.running_mean.lerp_(mean.detach(), self.momentum)
        return rows - mean


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
