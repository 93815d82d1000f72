"""The collectives of the models: a batch of all processes as one.

The order of the rows of all processes is rank 0's, rank 1's and so on.
Processes may hold different numbers of rows (a last, smaller batch), or none.
Without a process group nothing is sent.
"""

import torch
from mmengine import dist
from torch import Tensor
from torch.autograd.function import once_differentiable


def world_size() -> int:
    """Number of processes, 1 without a process group."""
    return dist.get_world_size()


def batch_sizes(num_rows: int, device: torch.device | str) -> list[int]:
    """Tell every process how many rows each of them holds.

    Args:
        num_rows (int): Rows of this process.
        device (torch.device | str): Where its rows are.

    Returns:
        list[int]: Rows of every process, by rank.
    """
    if world_size() == 1:
        return [num_rows]
    return torch.cat(
        dist.all_gather(torch.tensor([num_rows], device=device))
    ).tolist()


def gather_rows(rows: Tensor, sizes: list[int] | None = None) -> Tensor:
    """Gather the rows of all processes, without gradient.

    Args:
        rows (Tensor): Rows of this process (b, ...), of any dtype.
        sizes (list[int], optional): What :func:`batch_sizes` returned, to
            spare another exchange.

    Returns:
        Tensor: Rows of all processes (B, ...); in one process ``rows``
        themselves, detached and not copied.
    """
    rows = rows.detach()
    if world_size() == 1:
        return rows
    if sizes is None:
        sizes = batch_sizes(len(rows), rows.device)
    # Collectives take equal shapes: smaller blocks are filled up, then cut.
    block = rows.contiguous()
    if len(rows) < max(sizes):
        block = rows.new_zeros(max(sizes), *rows.shape[1:])
        block[: len(rows)] = rows
    blocks = dist.all_gather(block)
    return torch.cat(
        [part[:size] for part, size in zip(blocks, sizes, strict=True)]
    )


def gather_rows_with_gradient(
    rows: Tensor, sizes: list[int] | None = None
) -> Tensor:
    """Gather the rows of all processes; every process must go backward.

    The gradient of a process's own rows is the sum of what all processes
    send back for them: the gradient of the sum of their losses.

    Args:
        rows (Tensor): Rows of this process (b, D), floating point.
        sizes (list[int], optional): As in :func:`gather_rows`.

    Returns:
        Tensor: Rows of all processes (B, D); ``rows`` in one process.
    """
    if world_size() == 1:
        return rows
    if sizes is None:
        sizes = batch_sizes(len(rows), rows.device)
    return _GatherRows.apply(rows, sizes)


def own_slice(sizes: list[int]) -> slice:
    """Return where the rows of this process are among gathered ones.

    Args:
        sizes (list[int]): What :func:`batch_sizes` returned.
    """
    rank = dist.get_rank()
    start = sum(sizes[:rank])
    return slice(start, start + sizes[rank])


def all_reduce(tensor: Tensor, op: str) -> Tensor:
    """Return the sum or the largest of the processes' tensors.

    Args:
        tensor (Tensor): Of the same shape everywhere; left as it is.
        op (str): ``'sum'`` or ``'max'``, element by element.

    Returns:
        Tensor: Of the same shape, without gradient.
    """
    tensor = tensor.detach()
    if world_size() == 1:
        return tensor
    reduced = tensor.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(reduced, op)
    return reduced


def of_first_rank(tensor: Tensor) -> Tensor:
    """Return the tensor of rank 0, such as numbers that it drew.

    Args:
        tensor (Tensor): Of the same shape everywhere; left as it is.

    Returns:
        Tensor: Equal in all processes, without gradient.
    """
    tensor = tensor.detach()
    if world_size() == 1:
        return tensor
    received = tensor.clone(memory_format=torch.contiguous_format)
    dist.broadcast(received)
    return received


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx, rows, sizes):
        ctx.sizes = sizes
        return gather_rows(rows, sizes)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        return all_reduce(gradient, 'sum')[own_slice(ctx.sizes)], None
