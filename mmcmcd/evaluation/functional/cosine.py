import torch
from torch import Tensor

from mmcmcd.errors import ConfigError


def row_norms(rows: Tensor) -> Tensor:
    """L2 norms that can be divided by.

    Args:
        rows (Tensor): Embeddings (N, D).

    Returns:
        Tensor: (N, ), positive: a zero row has cosine zero with all others.

    Raises:
        ConfigError: A row is not finite.
    """
    norms = torch.linalg.vector_norm(rows, dim=1)
    if not norms.isfinite().all():
        raise ConfigError(
            f'{int((~norms.isfinite()).sum())} of {len(rows)} embeddings hold '
            'NaN or infinity: the network has diverged. Start again with a '
            'lower learning rate, or without mixed precision.'
        )
    return norms.clamp_min(1e-12)


def unit_rows(rows: Tensor) -> Tensor:
    """Divide the rows (N, D) by their norms, see :func:`row_norms`."""
    return rows / row_norms(rows)[:, None]
