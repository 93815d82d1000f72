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
        inputs (dict[str, Tensor]): By side (B, C, H, W).

    Returns:
        Tensor, optional: Booleans (B, 1, H, W) in the size of the first side
        that knows; None if no side knows of any sample. A sample of which
        nothing is known is valid.
    """
    valid = None
    for side, images in inputs.items():
        field = f'{side}_valid'
        if not any(field in sample for sample in data_samples or ()):
            continue
        masks = torch.stack(
            [
                _padded_mask(sample.get(field), images)
                for sample in data_samples
            ]
        )
        if valid is not None and valid.shape != masks.shape:
            masks = F.interpolate(masks.float(), valid.shape[2:]) > 0
        valid = masks if valid is None else valid & masks
    return valid


def _padded_mask(mask, images):
    """Booleans (1, H, W); all are valid where nothing is known."""
    height, width = images.shape[2:]
    if mask is None:
        return images.new_ones(1, height, width, dtype=torch.bool)
    missing = width - mask.data.shape[-1], height - mask.data.shape[-2]
    return F.pad(mask.data, [0, missing[0], 0, missing[1]])
