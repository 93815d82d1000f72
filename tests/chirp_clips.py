"""Small real videos that say the time by brightness and by pitch."""

from fractions import Fraction

import numpy as np
import pytest

av = pytest.importorskip('av')
av.logging.set_level(av.logging.PANIC)

FPS = 20
BASE, SLOPE = 300, 200  # Hz and Hz a second
DARK, STEP = 30, 40  # grey levels, and grey levels a second


def write_clip(
    path,
    duration=3.0,
    video='libx264',
    audio='aac',
    video_start=0.0,
    audio_start=0.0,
    video_end=None,
    gap=(0, 0),
    still=False,
    size=(64, 48),
    rate=16000,
    layout='mono',
    **options,
):
    """Write a clip; a stream that is None is left out.

    Both streams say the time (s) of the clip, also when they start late. In
    the ``gap`` the sound has no packets. A ``still`` clip is one picture.
    """
    video_end = 1 / FPS if still else video_end or duration
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), 'w', options=options) as container:
        tracks = []
        if video:
            stream = container.add_stream(video, rate=FPS)
            stream.width, stream.height = size
            stream.pix_fmt = 'yuv420p'
            stream.bit_rate = 2_000_000  # grey levels must survive
            stream.codec_context.gop_size = 7
            tracks.append((stream, pictures(video_start, video_end, size)))
        if audio:
            stream = container.add_stream(audio, rate=rate, layout=layout)
            tracks.append((stream, sounds(audio_start, duration, rate, gap)))
        for stream, frames in tracks:
            for frame in [*frames, None]:
                packets = stream.encode(frame)
                if still and stream.type == 'video':
                    for packet in packets:
                        packet.duration = round(duration / packet.time_base)
                container.mux(packets)
    return path


def pictures(start, end, size):
    for number in range(round(start * FPS), round(end * FPS)):
        grey = round(DARK + STEP * number / FPS)
        image = np.full((size[1], size[0], 3), grey, np.uint8)
        frame = av.VideoFrame.from_ndarray(image, format='rgb24')
        frame.pts, frame.time_base = number, Fraction(1, FPS)
        yield frame


def sounds(start, end, rate, gap=(0, 0), block=1024):
    time = np.arange(round(end * rate)) / rate
    phase = 2 * np.pi * (BASE * time + SLOPE / 2 * time**2)
    wave = (0.5 * np.sin(phase)).astype(np.float32)
    for first in range(round(start * rate), len(wave), block):
        if gap[0] <= first / rate < gap[1]:
            continue
        part = wave[None, first : first + block].copy()
        frame = av.AudioFrame.from_ndarray(part, 'fltp', 'mono')
        frame.sample_rate = rate
        frame.pts, frame.time_base = first, Fraction(1, rate)
        yield frame


def time_by_brightness(image):
    return (float(np.mean(image)) - DARK) / STEP


def time_by_pitch(wave, rate):
    """The time that the middle of a piece of sound tells."""
    wave = np.asarray(wave, float)
    middle, half = len(wave) // 2, round(0.05 * rate)
    part = wave[middle - half : middle + half]
    spectrum = np.abs(np.fft.rfft(part * np.hanning(len(part)), 1 << 15))
    return (spectrum.argmax() * rate / (1 << 15) - BASE) / SLOPE
