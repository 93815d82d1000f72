"""Masking of spectrograms."""

import numpy as np
from torch import Tensor


def spec_augment(
    spectrogram: Tensor,
    freq_mask: int,
    time_mask: int,
    num_freq: int = 1,
    num_time: int = 1,
    value: float | None = None,
) -> Tensor:
    """Mask random bands of frequency and stretches of time.

    SpecAugment (Park et al., Interspeech 2019) without time warping. Widths
    are uniform in 0 ... ``freq_mask`` and 0 ... ``time_mask``, at most the
    whole axis, places uniform; drawn from ``np.random``.

    Args:
        spectrogram (Tensor): (C, F, T) of one clip; not changed. All
            channels get the same masks.
        freq_mask (int): Widest band, in bins.
        time_mask (int): Widest stretch, in frames.
        num_freq (int): Number of bands. Defaults to 1.
        num_time (int): Number of stretches. Defaults to 1.
        value (float, optional): What takes their place. Defaults to None:
            the mean of the clip, as in the paper, where the mean is zero.

    Returns:
        Tensor: (C, F, T).
    """
    masked = spectrogram.clone()
    fill = spectrogram.mean() if value is None else value
    for axis, widest, number in (
        (1, freq_mask, num_freq),
        (2, time_mask, num_time),
    ):
        length = masked.shape[axis]
        for _ in range(number):
            width = np.random.randint(min(widest, length) + 1)
            first = np.random.randint(length - width + 1)
            masked.narrow(axis, first, width)[:] = fill
    return masked
