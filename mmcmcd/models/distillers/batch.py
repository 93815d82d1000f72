"""What every distiller asks of a batch of pairs."""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from mmcmcd.errors import ConfigError


def require_sides(inputs: dict, needed: Iterable[str], seen_by: str) -> None:
    """Stop where a side that a network sees is missing.

    Args:
        inputs (dict[str, Tensor]): The batch, by side.
        needed (Iterable[str]): Names of sides.
        seen_by (str): Who sees which of them, for the message.

    Raises:
        ConfigError: The batch lacks a side, or is none of sides at all.
    """
    found = sorted(inputs) if isinstance(inputs, dict) else []
    missing = sorted(set(needed).difference(found))
    if missing:
        raise ConfigError(
            f'{seen_by}, but the batch has {found or "no named sides"}: '
            f'{", ".join(missing)} missing. Name the sides of the data set, '
            'of OnSide and of the data preprocessor so.'
        )


def require_several(rows: Tensor) -> None:
    """Stop at a batch that holds nothing to compare a pair with.

    Args:
        rows (Tensor): Any side of the batch, (B, ...).

    Raises:
        ConfigError: B is below two.
    """
    if len(rows) < 2:
        raise ConfigError(
            'A batch of 1 pair has no negatives and no batch statistics. '
            'Use train_dataloader.batch_size >= 2 with drop_last=True.'
        )


def group_ids(data_samples: list | None, device) -> Tensor | None:
    """Return the groups (B, ) of the pairs, None where nobody knows them."""
    if not data_samples or 'group_index' not in data_samples[0]:
        return None
    return torch.tensor(
        [sample.group_index for sample in data_samples], device=device
    )


def valid_pixels(
    data_samples: list | None, inputs: dict[str, Tensor]
) -> Tensor | None:
    """Return which pixels hold a measurement on every side.

    What a side's transforms know of it is the field ``<side>_valid`` of the
    data samples. A preprocessor pads images at the bottom and at the right:
    these pixels hold none.

    Args:
        data_samples (list[DataSample], optional): B of them.
        inputs (dict[str, Tensor]): By side (B, C, H, W), all of one size
            where more than one knows.

    Returns:
        Tensor, optional: Booleans (B, 1, H, W); None if no side knows.
    """
    valid = None
    for side, images in inputs.items():
        field = f'{side}_valid'
        if not data_samples or field not in data_samples[0]:
            continue
        height, width = images.shape[2:]
        masks = [sample.get(field).data for sample in data_samples]
        masks = torch.stack(
            [
                F.pad(m, [0, width - m.shape[-1], 0, height - m.shape[-2]])
                for m in masks
            ]
        )
        valid = masks if valid is None else valid & masks
    return valid
