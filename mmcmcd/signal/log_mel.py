"""Log-mel spectrograms equal to librosa's, batched, on any device."""

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from mmcmcd.errors import ConfigError

# A band of so many mel filters is one matrix product: a vector register.
_FILTERS_PER_BAND = 16
# Frames that go through the transform at once: few enough for a CPU's cache,
# and for a GPU's memory.
_FRAMES_PER_BLOCK = dict(cpu=128, cuda=32768)


def log_mel(
    waveform: Tensor,
    sampling_rate: int,
    n_fft: int = 1024,
    hop_length: int = 320,
    n_mels: int = 64,
    fmin: float = 0.0,
    fmax: float | None = None,
    *,
    win_length: int | None = None,
    htk: bool = False,
    norm: str | None = 'slaney',
    amin: float = 1e-10,
    top_db: float | None = 80.0,
    precise: bool = True,
) -> Tensor:
    """Log-mel power spectrogram in dB.

    Each waveform ``y`` becomes what librosa 0.11 computes by::

        S = librosa.feature.melspectrogram(
            y=y, sr=sampling_rate, n_fft=n_fft, hop_length=hop_length,
            n_mels=n_mels, fmin=fmin, fmax=fmax, win_length=win_length,
            htk=htk, norm=norm)
        librosa.power_to_db(S, ref=1.0, amin=amin, top_db=top_db)

    i.e. periodic Hann window, frames centred on multiples of the hop, zeros
    beyond the ends, and ``10 log10(max(S, amin))``. One difference: given a
    batch, ``power_to_db`` cuts at ``top_db`` below the maximum of the whole
    batch; here every waveform has its own maximum, so that a clip does not
    depend on its neighbours.

    Like librosa, it transforms in float64 even where the result is float32:
    both agree within 1e-4 dB throughout. With ``precise=False`` float32
    waveforms are transformed in float32, in about 2/3 of the time; then weak
    bins beside strong ones carry rounding noise, about 1e-3 dB at 80 dB
    below the strongest. Autocast changes nothing.

    Args:
        waveform (Tensor): (..., T), T >= 1; shorter than ``n_fft`` is fine.
        sampling_rate (int): Samples per second.
        n_fft (int): Samples of a frame. Defaults to 1024.
        hop_length (int): Samples between frames. Defaults to 320.
        n_mels (int): Filters. Defaults to 64.
        fmin (float): Lower end of the filters, Hz. Defaults to 0.
        fmax (float, optional): Upper end, Hz. Defaults to None: half of
            ``sampling_rate``.
        win_length (int, optional): Samples of the window, in the middle of
            the frame. Defaults to None: ``n_fft``.
        htk (bool): The mel formula of HTK, instead of Slaney's.
        norm (str, optional): 'slaney': filters of equal area; None: of equal
            height.
        amin (float): Smallest power. Defaults to 1e-10, which is -100 dB.
        top_db (float, optional): Largest distance below a waveform's
            maximum, in dB. Defaults to 80.
        precise (bool): See above. Defaults to True.

    Returns:
        Tensor: (..., n_mels, 1 + T // hop_length), float64 for float64, else
        float32; for an odd ``n_fft`` the frames are 1 + (T - 1) // hop_length.

    Raises:
        ConfigError: An argument makes no sense, the waveform is empty or no
            floating-point tensor, or librosa is missing.
    """
    check_log_mel(
        sampling_rate,
        n_fft,
        hop_length,
        n_mels,
        fmin,
        fmax,
        win_length,
        norm,
        amin,
        top_db,
    )
    if not waveform.is_floating_point() or not waveform.numel():
        raise ConfigError(
            'log_mel: expected a floating-point waveform (..., T) of one '
            f'sample or more, got {waveform.dtype}, {tuple(waveform.shape)}.'
        )
    dtype = torch.promote_types(waveform.dtype, torch.float32)
    device = waveform.device
    rows = waveform.reshape(-1, waveform.shape[-1])
    window = _window(
        n_fft,
        win_length or n_fft,
        torch.float64 if precise else dtype,
        device,
    )
    bands = _mel_bands(
        sampling_rate, n_fft, n_mels, fmin, fmax, htk, norm, dtype, device
    )
    # Under autocast the products would be rounded to 8 or 11 bits.
    with torch.autocast(device.type, enabled=False):
        power = _mel_power(rows, hop_length, window, bands)
    level = power.clamp_(min=amin).log10_().mul_(10)
    if top_db is not None:
        loudest = level.amax(dim=(1, 2), keepdim=True)
        level = level.maximum(loudest - top_db)
    level = level.transpose(1, 2).contiguous()
    return level.reshape(*waveform.shape[:-1], *level.shape[1:])


def check_log_mel(
    sampling_rate,
    n_fft,
    hop_length,
    n_mels,
    fmin,
    fmax,
    win_length=None,
    norm='slaney',
    amin=1e-10,
    top_db=80.0,
    **switches,
):
    """Refuse arguments of :func:`log_mel` that make no sense.

    Raises:
        ConfigError: The message names the argument.
    """
    sizes = dict(
        sampling_rate=sampling_rate,
        n_fft=n_fft,
        hop_length=hop_length,
        n_mels=n_mels,
    )
    for name, value in sizes.items():
        if not value == int(value) >= 1:
            raise ConfigError(
                f'log_mel: {name} must be a positive integer, got {value}.'
            )
    if win_length is not None and not 1 <= win_length <= n_fft:
        raise ConfigError(
            f'log_mel: win_length must be 1 to n_fft={n_fft} samples, got '
            f'{win_length}.'
        )
    nyquist = sampling_rate / 2
    if not 0 <= fmin < (nyquist if fmax is None else fmax) <= nyquist:
        raise ConfigError(
            'log_mel: 0 <= fmin < fmax <= sampling_rate / 2 is needed (Hz), '
            f'got fmin={fmin}, fmax={fmax}, sampling_rate={sampling_rate}.'
        )
    if norm not in ('slaney', None):
        raise ConfigError(
            f"log_mel: norm must be 'slaney' or None, got {norm!r}."
        )
    if not amin > 0 or not (top_db is None or top_db >= 0):
        raise ConfigError(
            'log_mel: amin must be positive and top_db not negative (dB) or '
            f'None, got amin={amin}, top_db={top_db}.'
        )
    unknown = set(switches) - {'htk', 'precise'}
    if unknown:
        raise ConfigError(f'log_mel: unknown arguments {sorted(unknown)}.')


def _mel_power(
    rows: Tensor,
    hop_length: int,
    window: Tensor,
    bands: list[tuple[slice, Tensor]],
) -> Tensor:
    """Mel power of waveforms (N, T) as (N, frames, n_mels)."""
    n_fft = len(window)
    half = n_fft // 2
    clips = len(rows)
    length = 1 + (rows.shape[1] + 2 * half - n_fft) // hop_length
    n_mels = sum(weights.shape[1] for _, weights in bands)
    power = bands[0][1].new_empty(clips, length, n_mels)
    limit = _FRAMES_PER_BLOCK.get(rows.device.type, 128)
    # Short clips share a block, long ones are divided. A wider copy of the
    # whole batch would cost more than the work on it.
    step = max(1, limit // length)
    for i in range(0, clips, step):
        part = rows[i : i + step].to(window.dtype)
        frames = pad(part, (half, half)).unfold(1, n_fft, hop_length)
        for j in range(0, length, limit):
            power[i : i + step, j : j + limit] = _band_power(
                frames[:, j : j + limit], window, bands
            )
    return power


def _band_power(
    frames: Tensor, window: Tensor, bands: list[tuple[slice, Tensor]]
) -> Tensor:
    """Mel power of frames (N, L, n_fft) as (N, L, n_mels)."""
    spectrum = torch.view_as_real(torch.fft.rfft(frames * window))
    # Real and imaginary parts stay apart: every weight is there twice.
    squares = spectrum.to(bands[0][1].dtype).square().flatten(2)
    return torch.cat([squares[..., k] @ weights for k, weights in bands], -1)


@lru_cache
@torch.inference_mode(False)
def _window(
    n_fft: int, win_length: int, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """A Hann window in the middle of a frame, (n_fft, )."""
    window = torch.hann_window(win_length, dtype=torch.float64)
    left = (n_fft - win_length) // 2
    window = pad(window, (left, n_fft - win_length - left))
    return window.to(device, dtype)


@lru_cache
@torch.inference_mode(False)
def _mel_bands(
    sampling_rate: int,
    n_fft: int,
    n_mels: int,
    fmin: float,
    fmax: float | None,
    htk: bool,
    norm: str | None,
    dtype: torch.dtype,
    device: torch.device,
) -> list[tuple[slice, Tensor]]:
    """The mel filters in bands, each with the bins that it needs.

    A filter reaches over few bins, but a sparse product is slower than some
    dense ones.

    Returns:
        list[tuple[slice, Tensor]]: Of each band, the slice of the interleaved
        real and imaginary parts, and its weights (length of slice, filters).
    """
    try:
        from librosa.filters import mel
    except ImportError:
        raise ConfigError(
            "Log-mel spectrograms need librosa. Run: pip install 'mmcmcd"
            "[audio]'"
        ) from None
    filters = mel(
        sr=sampling_rate,
        n_fft=n_fft,
        n_mels=n_mels,
        fmin=fmin,
        fmax=fmax,
        htk=htk,
        norm=norm,
    )
    bands = []
    for first in range(0, n_mels, _FILTERS_PER_BAND):
        band = filters[first : first + _FILTERS_PER_BAND]
        used = np.flatnonzero(band.any(axis=0))
        low, high = (used[0], used[-1] + 1) if len(used) else (0, 1)
        weights = torch.from_numpy(band.T[low:high]).repeat_interleave(2, 0)
        bins = slice(2 * int(low), 2 * int(high))
        bands.append((bins, weights.to(device, dtype)))
    return bands
