"""Embed a batch whose activations would not fit into memory at once."""

from collections.abc import Iterable
from contextlib import nullcontext
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mmcmcd.errors import ConfigError
from mmcmcd.models.utils import embed, feature_map


class Features(NamedTuple):
    """What one forward pass of a backbone gives.

    Attributes:
        rows (Tensor): Pooled, (B, D).
        maps (dict[int, Tensor]): By stage, (B, C, H, W).
    """

    rows: Tensor
    maps: dict[int, Tensor]


def check_chunk_size(size: int | None) -> None:
    """Stop at what is no number of pairs.

    Raises:
        ConfigError: ``size`` is neither None nor an integer above one.
    """
    if size is None:
        return
    if isinstance(size, bool) or not isinstance(size, int) or size < 2:
        raise ConfigError(
            'model.forward_chunk_size is the number of pairs that pass the '
            f'networks at once: expected an integer >= 2, got {size!r}. '
            'Leave it out to pass all pairs at once.'
        )


def embed_in_chunks(
    backbone: nn.Module, images: Tensor, chunk_size: int | None
) -> Tensor:
    """Embed images chunk by chunk, see :func:`extract_in_chunks`.

    Args:
        backbone (nn.Module): What :func:`embed` pools the features of.
        images (Tensor): (B, C, ...).
        chunk_size (int, optional): The most images in a chunk.

    Returns:
        Tensor: Embeddings (B, D).
    """
    return extract_in_chunks(backbone, images, chunk_size).rows


def extract_in_chunks(
    backbone: nn.Module,
    images: Tensor,
    chunk_size: int | None,
    stages: Iterable[int] = (),
    owner: str = 'student',
) -> Features:
    """Embed images and keep maps, with the activations of one chunk at a time.

    The idea is GradCache's (Gao et al., 2021, arXiv 2101.06983): the loss
    needs all embeddings, but no embedding needs another's activations. Each
    chunk's forward pass is repeated when its gradient is due, by torch's
    checkpointing, so the gradient is the same, for one more forward pass.
    The repetition draws the same random numbers, starts from copies of the
    buffers as they were before the first pass, since in training some enter
    the features (such as the vectors of spectral norm), and leaves the
    buffers themselves alone.

    Batch statistics are those of a chunk, as with accumulated gradients, and
    a training step updates buffers, such as running statistics, once per
    chunk.

    Args:
        backbone (nn.Module): What :func:`embed` pools the features of.
        images (Tensor): (B, C, ...).
        chunk_size (int, optional): The most images in a chunk; chunks differ
            by at most one image, and of one image alone there is none, so
            that an odd number in chunks of two has a chunk of three. None,
            or B images or more: a plain forward pass.
        stages (Iterable[int]): Stages whose maps are kept, see
            :func:`feature_map`. Defaults to none.
        owner (str): Whose backbone it is, for messages.

    Returns:
        Features: Of all images.
    """
    stages = tuple(dict.fromkeys(stages))

    def run(images):
        features = backbone(images)
        maps = (feature_map(features, stage, owner) for stage in stages)
        return embed(features), *maps

    if chunk_size is None or len(images) <= chunk_size:
        rows, *maps = run(images)
    else:
        num_chunks = min(-(-len(images) // chunk_size), len(images) // 2)
        parts = [
            _run_again_in_backward(run, backbone, chunk)
            if torch.is_grad_enabled()
            else run(chunk)
            for chunk in images.tensor_split(num_chunks)
        ]
        rows, *maps = map(torch.cat, zip(*parts, strict=True))
    return Features(rows, dict(zip(stages, maps, strict=True)))


# torch.compile cannot trace a context_fn; the backbone it still compiles.
@torch.compiler.disable(recursive=False)
def _run_again_in_backward(run, backbone, images):
    return checkpoint(
        run,
        images,
        use_reentrant=False,
        # Called before the first pass.
        context_fn=lambda: (nullcontext(), _BuffersOfNow(backbone)),
    )


class _BuffersOfNow:
    """Within it a network has copies of the buffers that it has now.

    A class, as autograd may repeat a chunk more than once.
    """

    def __init__(self, network: nn.Module) -> None:
        self.copies = [
            (layer, name, buffer.clone())
            for layer in network.modules()
            for name, buffer in layer.named_buffers(recurse=False)
        ]
        self.live = []

    def __enter__(self) -> None:
        for layer, name, copy in self.copies:
            self.live.append(getattr(layer, name))
            setattr(layer, name, copy.clone())

    def __exit__(self, *_) -> None:
        for (layer, name, _), buffer in zip(
            self.copies, self.live, strict=True
        ):
            setattr(layer, name, buffer)
        self.live = []
