"""Add up what anchors cost, some of them at a time."""

from collections.abc import Callable

from torch import Tensor
from torch.utils.checkpoint import checkpoint

from .tiled.tiles import slices

# Numbers of one matrix that a part may make: 64 MB in single precision.
_NUMBERS_AT_ONCE = 2**24


def sum_over_anchors(
    cost: Callable[[slice], Tensor], num_anchors: int, numbers: int
) -> Tensor:
    """Add up the costs of anchors, with the activations of one part at a time.

    Parts are computed again when their gradient is due, by torch's
    checkpointing, unless there is but one.

    Args:
        cost (Callable): Gives the summed cost of a slice of anchors.
        num_anchors (int): N >= 1.
        numbers (int): Of the largest matrix that one anchor takes.

    Returns:
        Tensor: The scalar sum over all anchors.
    """
    step = max(_NUMBERS_AT_ONCE // numbers, 1)
    if step >= num_anchors:
        return cost(slice(0, num_anchors))
    return sum(
        checkpoint(cost, at, use_reentrant=False, preserve_rng_state=False)
        for at in slices(num_anchors, step)
    )
