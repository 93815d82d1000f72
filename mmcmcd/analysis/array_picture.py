"""Pictures of arrays: waveforms, spectrograms, series and clips."""

import cv2
import matplotlib
import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from .image_picture import finite_range, image_picture

_DPI = 100
_MIN_SIZE = (360, 160)
_MOST_LINES = 12
_MOST_MAPS = 3
_MOST_FRAMES = 8
_FRAMES_PER_ROW = 4
_STAMP = 12
# Of the picture of a waveform's spectrum; our choice, for the eye only.
_SPECTRUM_WINDOW = 512
_SPECTRUM_DB = 80
_LEAST_POWER = 1e-12


def array_picture(
    array, modality=None, rate=None, height=240, channel_order='BGR'
):
    """Draw what a side holds that is no image.

    * ``'audio'``: (C, T), the range of every channel over time;
    * ``'spectrogram'``: (C, bands, frames), low frequencies below;
    * (C, T): one line a channel, each on its own scale; more than 12
      channels as colours, red above and blue below the channel's median, on
      one scale;
    * (C, T, H, W): up to 8 frames spread evenly over time, read line by
      line; one channel is coloured as depth, with one scale for all frames;
    * (C, T, S): colours over time and S.

    Of spectrograms and (C, T, S) the first three channels are drawn. Values
    that are not finite stay blank.

    Args:
        array (torch.Tensor | np.ndarray): Two to four axes as above; what
            follows a fifth is flattened into one.
        modality (str, optional): As loaders set it.
        rate (float, optional): Samples per second along T (or frames).
        height (int): Of the picture; that of a clip is about it.
        channel_order (str): 'BGR' or 'RGB' of clips with three channels.

    Returns:
        np.ndarray: (H, W, 3) uint8, BGR.
    """
    values = np.asarray(array, np.float32)
    values = np.where(np.isfinite(values), values, np.float32('nan'))
    if values.ndim == 4:
        return _clip(values, rate, height, channel_order)
    if modality == 'audio':
        return _plot(_waveform, values, rate, height)
    if modality == 'spectrogram':
        return _plot(_spectrogram, values, rate, height)
    if values.ndim > 2:
        flat = values.reshape(*values.shape[:2], -1)
        return _plot(_maps, flat.swapaxes(1, 2), rate, height)
    if len(values) > _MOST_LINES:
        return _plot(_deviations, values, rate, height)
    return _plot(_lines, values, rate, height)


def spectrum_picture(waveform, rate=None, height=240):
    """Draw the power spectrum of a waveform over time.

    It shows what can be heard, not what the network gets: Hann windows of
    512 samples, half overlapping, of the mean of the channels; the upper
    80 dB.

    Args:
        waveform (torch.Tensor): (C, T).
        rate (float, optional): Samples per second.
        height (int): Of the picture.

    Returns:
        np.ndarray: (H, W, 3) uint8, BGR.
    """
    mono = waveform.float().mean(0).nan_to_num(posinf=0, neginf=0)
    window = min(_SPECTRUM_WINDOW, len(mono))
    power = torch.stft(
        mono,
        window,
        hop_length=max(1, window // 2),
        window=torch.hann_window(window),
        center=False,
        return_complex=True,
    )
    power = power.abs().square()
    # Silence is black, not its own loudest part.
    power = power / power.max().clamp(min=_LEAST_POWER)
    decibel = 10 * torch.log10(power.clamp(min=_LEAST_POWER))
    top = 0.5 if rate is None else rate / 2000
    seconds = len(mono) if rate is None else len(mono) / rate

    def draw(figure, values, rate):
        axis = figure.subplots()
        image = _show(
            axis,
            values,
            cmap='magma',
            origin='lower',
            extent=(0, seconds, 0, top),
            vmin=-_SPECTRUM_DB,
            vmax=0,
        )
        _label_time(axis, rate)
        axis.set_ylabel('cycles per sample' if rate is None else 'kHz')
        figure.colorbar(image, label='dB', pad=0.01)

    return _plot(draw, decibel.numpy(), rate, height)


def _plot(draw, values, rate, height):
    """Let a function draw on a matplotlib figure, and return its pixels."""
    height = max(height, _MIN_SIZE[1])
    width = max(round(1.5 * height), _MIN_SIZE[0])
    with matplotlib.rc_context({'font.size': 7, 'axes.linewidth': 0.6}):
        figure = Figure(
            figsize=(width / _DPI, height / _DPI),
            dpi=_DPI,
            layout='constrained',
        )
        canvas = FigureCanvasAgg(figure)
        draw(figure, values, rate)
        canvas.draw()
        return np.asarray(canvas.buffer_rgba())[..., 2::-1].copy()


def _label_time(axis, rate):
    axis.set_xlabel('samples' if rate is None else 's', labelpad=1)


def _show(axis, values, **kwargs):
    """Show (rows, T) as colours; cells stay sharp where there is room."""
    box = axis.get_window_extent()
    sharp = values.shape[0] < box.height and values.shape[1] < box.width
    return axis.imshow(
        values,
        aspect='auto',
        interpolation='nearest' if sharp else 'auto',
        **kwargs,
    )


def _duration(values, rate):
    """Extent of the last axis, in seconds where they are known."""
    return max(values.shape[-1], 1) / (rate or 1)


def _waveform(figure, values, rate):
    axes = figure.subplots(len(values), sharex=True, squeeze=False)[:, 0]
    bins = round(axes[0].get_window_extent().width)
    low, high = finite_range(values)
    limit = max(-low, high) * 1.05 or 1.0
    for axis, channel in zip(axes, values, strict=True):
        times = np.arange(len(channel)) / (rate or 1)
        if len(channel) > 2 * bins:
            # All samples at once would be a blur of the same outline.
            starts = np.linspace(0, len(channel), bins, False).astype(int)
            lower = np.fmin.reduceat(channel, starts)
            upper = np.fmax.reduceat(channel, starts)
            axis.fill_between(
                times[starts],
                lower,
                upper,
                step='mid',
                color='C0',
                linewidth=0.7,
            )
        else:
            axis.plot(times, channel, linewidth=0.7)
        axis.axhline(0, color='grey', linewidth=0.4, zorder=0)
        axis.set_ylim(-limit, limit)
        axis.set_xlim(0, _duration(channel, rate))
    _label_time(axes[-1], rate)


def _spectrogram(figure, values, rate):
    label = 'frames' if rate is None else 's'
    for axis in _colour_maps(figure, values, rate, origin='lower'):
        axis.set_ylabel('band')
        axis.set_xlabel(label, labelpad=1)


def _maps(figure, values, rate):
    for axis in _colour_maps(figure, values, rate, origin='upper'):
        _label_time(axis, rate)


def _colour_maps(figure, values, rate, origin):
    """Draw the first channels of (C, S, T); return their axes."""
    shown = values[:_MOST_MAPS]
    axes = figure.subplots(len(shown), squeeze=False)[:, 0]
    low, high = finite_range(shown)
    for axis, channel in zip(axes, shown, strict=True):
        rows = len(channel)
        image = _show(
            axis,
            channel,
            cmap='magma',
            origin=origin,
            extent=_extent(channel, rate, (0, rows), origin),
            vmin=low,
            vmax=high,
        )
    figure.colorbar(image, ax=axes, pad=0.01)
    return axes


def _extent(channel, rate, rows, origin):
    bounds = rows if origin == 'lower' else rows[::-1]
    return (0, _duration(channel, rate), *bounds)


def _deviations(figure, values, rate):
    """Series of many channels about their medians.

    Medians differ much more than what moves, e.g. for the joints of a
    standing person.
    """
    finite = np.isfinite(values)
    filled = np.ma.masked_array(values, ~finite)
    away = values - np.ma.median(filled, axis=1).filled(0)[:, None]
    spread = np.abs(away[finite])
    limit = np.percentile(spread, 99) if spread.size else 0
    axis = figure.subplots()
    image = _show(
        axis,
        away,
        cmap='RdBu_r',
        extent=_extent(away, rate, (-0.5, len(away) - 0.5), 'upper'),
        vmin=-limit,
        vmax=limit,
    )
    axis.set_ylabel('channel')
    _label_time(axis, rate)
    figure.colorbar(image, label='from median of channel', pad=0.01)


def _lines(figure, values, rate):
    axis = figure.subplots()
    times = np.arange(values.shape[1]) / (rate or 1)
    ranges = [finite_range(channel) for channel in values]
    marker = '-' if len(times) > 1 else '.'
    for place, (channel, (low, high)) in enumerate(
        zip(values, ranges, strict=True)
    ):
        scale = 0.9 / (high - low) if high > low else 0
        centred = (channel - (low + high) / 2) * scale
        axis.plot(times, centred - place, marker, linewidth=0.8)
    places = -np.arange(len(values))
    axis.set_yticks(places, [str(-place) for place in places])
    axis.set_ylim(0.5 - len(values), 0.5)
    axis.set_xlim(0, _duration(values, rate))
    axis.set_ylabel('channel')
    _label_time(axis, rate)
    right = axis.secondary_yaxis('right')
    right.set_yticks(
        places, [f'{low:.3g} .. {high:.3g}' for low, high in ranges]
    )


def _clip(values, rate, height, channel_order):
    """Frames in lines of four; other than three channels below each other."""
    channels, length, *size = values.shape
    chosen = np.linspace(0, length - 1, min(length, _MOST_FRAMES))
    chosen = chosen.round().astype(int)
    frames = values[:, chosen]
    if channels == 3:
        strips = [_strip(frames.transpose(1, 2, 3, 0), channel_order)]
    else:
        strips = [_strip(channel) for channel in frames]
    lines = -(-len(chosen) // _FRAMES_PER_ROW) * len(strips)
    stamps = [f'{i}' if rate is None else f'{i / rate:.2f} s' for i in chosen]
    scale = height / lines / size[0]
    tiles = [
        [
            np.concatenate([_stamp(text, tile.shape[1]), tile])
            for text, tile in zip(
                stamps, _tiles(strip, len(chosen), scale), strict=True
            )
        ]
        for strip in strips
    ]
    return np.concatenate([_grid(row) for row in tiles])


def _strip(frames, channel_order='BGR'):
    """Colour all frames beside each other, so that they share one scale."""
    joined = np.concatenate(list(frames), axis=1)
    return image_picture(joined, channel_order=channel_order)


def _tiles(strip, number, scale):
    """Cut a strip into frames, enlarged by whole pixels or shrunk."""
    for tile in np.split(strip, number, axis=1):
        if scale < 1:
            yield cv2.resize(
                tile, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA
            )
        else:
            zoom = round(scale)
            yield tile.repeat(zoom, axis=0).repeat(zoom, axis=1)


def _grid(tiles):
    """Tiles of one size in lines of four, padded with white."""
    while len(tiles) > _FRAMES_PER_ROW and len(tiles) % _FRAMES_PER_ROW:
        tiles.append(np.full_like(tiles[0], 255))
    return np.concatenate(
        [
            np.concatenate(tiles[i : i + _FRAMES_PER_ROW], axis=1)
            for i in range(0, len(tiles), _FRAMES_PER_ROW)
        ]
    )


def _stamp(text, width):
    strip = np.full((_STAMP, width, 3), 255, np.uint8)
    return cv2.putText(
        strip,
        text,
        (2, _STAMP - 3),
        cv2.FONT_HERSHEY_SIMPLEX,
        0.3,
        (0, 0, 0),
        1,
        cv2.LINE_AA,
    )
