"""Frames and sound of a short video on one time axis, read by PyAV."""

from dataclasses import dataclass

import numpy as np

from mmcmcd.errors import ConfigError, UnreadableFileError

# How much earlier (s) than its header says a whole clip may end.
_CUT_OFF = 0.5


@dataclass
class VideoClip:
    """What both streams of a video show and sound at the same time.

    Attributes:
        frames (dict[int, np.ndarray]): (H, W, 3) uint8, channels B, G, R, by
            the millisecond at which they are on the screen.
        audio (np.ndarray): (T,) int16, mono; its first sample is time 0.
        duration (float): Seconds.
    """

    frames: dict
    audio: np.ndarray
    duration: float


def read_video_clip(path, num_frames, size, sampling_rate, min_duration):
    """Read some frames and all sound of the time that both streams cover.

    Time 0 is where the later stream starts; the end is where the first one
    ends. Gaps in the sound become silence, so that it stays in time with the
    picture. A frame is the one on the screen at its time.

    Args:
        path (str | Path): Any container that PyAV reads.
        num_frames (int): Frames in the middle of as many equal parts of the
            clip.
        size (int): The shorter side in pixels; smaller frames are kept as
            they are.
        sampling_rate (int): Of the sound, in Hz.
        min_duration (float): Shortest clip to accept, in seconds.

    Returns:
        VideoClip: The clip.

    Raises:
        ConfigError: PyAV is not installed.
        UnreadableFileError: The file is damaged, cut off, too short, or has
            no video or no sound; the message does not name the file. Damage
            that the decoders conceal is not found.
    """
    av = import_av()
    try:
        with av.open(str(path)) as container:
            start, end, audio = _read_sound(av, container, sampling_rate)
        duration = len(audio) / sampling_rate
        if duration < min_duration:
            raise UnreadableFileError(
                f'too short: picture and sound share {max(end - start, 0):.2f}'
                f' s, less than {min_duration:g} s'
            )
        parts = (np.arange(num_frames) + 0.5) / num_frames
        moments = np.rint(1000 * duration * parts).astype(int).tolist()
        with av.open(str(path)) as container:
            frames = _read_frames(container, moments, start, size)
    except (av.error.FFmpegError, OSError) as error:
        raise UnreadableFileError(
            f'cannot be decoded: {error.strerror}'
        ) from error
    return VideoClip(frames, audio, duration)


def import_av():
    """Import PyAV, and keep FFmpeg from writing to the terminal.

    Returns:
        module: ``av``.

    Raises:
        ConfigError: It is not installed.
    """
    try:
        import av
    except ImportError:
        raise ConfigError(
            'reading video needs PyAV (av), which is not installed. Run: '
            "pip install 'mmcmcd[audio]'"
        ) from None
    av.logging.set_level(av.logging.PANIC)
    return av


def _read_sound(av, container, sampling_rate):
    """Return start and end (s) of the common time, and its sound."""
    video = container.streams.best('video')
    audio = container.streams.best('audio')
    if video is None or audio is None:
        missing = 'video' if video is None else 'audio'
        raise UnreadableFileError(f'no {missing} stream')
    resampler = _Resampler(av, sampling_rate)
    packets = {video.index: [], audio.index: []}
    for packet in container.demux(video, audio):
        if packet.pts is not None and not packet.is_discard:
            start = packet.pts * packet.time_base
            end = start + (packet.duration or 0) * packet.time_base
            packets[packet.stream_index].append((start, end))
        if packet.stream_index == audio.index:
            for frame in packet.decode():
                resampler.push(frame)
    samples = resampler.finish()
    _refuse_cut_off(container, packets)
    if not packets[video.index] or not len(samples):
        missing = 'sound' if packets[video.index] else 'picture'
        raise UnreadableFileError(f'no {missing}: the stream is empty')
    video_start = min(start for start, _ in packets[video.index])
    video_end = max(end for _, end in packets[video.index])
    if video.duration:
        # A picture may stand still to the end, without further packets.
        begin = video.start_time or 0
        stream_end = (begin + video.duration) * video.time_base
        video_end = max(video_end, stream_end)
    start = max(float(video_start), resampler.start)
    end = min(float(video_end), resampler.start + len(samples) / sampling_rate)
    first, last = (
        max(0, round((time - resampler.start) * sampling_rate))
        for time in (start, end)
    )
    return start, end, samples[first:last]


def _refuse_cut_off(container, packets):
    """Compare with the length in the header, where there is one."""
    if container.duration is None:
        return
    promised = ((container.start_time or 0) + container.duration) / 1e6
    found = max(
        (end for times in packets.values() for _, end in times), default=0
    )
    if found < promised - _CUT_OFF:
        raise UnreadableFileError(
            f'cut off: ends at {float(found):.2f} s, by its header at '
            f'{promised:.2f} s'
        )


class _Resampler:
    """Sound of any kind to mono int16 at one rate, gaps filled.

    Attributes:
        start (float): Time (s) of the first sample.
    """

    def __init__(self, av, sampling_rate):
        self._av = av
        self._rate = sampling_rate
        self._kind = self._graph = None
        self._parts = []
        self.start = 0.0

    def push(self, frame):
        """Take one decoded frame."""
        kind = dict(
            format=frame.format.name,
            layout=frame.layout.name,
            sample_rate=frame.sample_rate,
            time_base=frame.time_base,
        )
        if kind != self._kind:  # also in the middle, as from mono to stereo
            self._flush()
            self._kind, self._graph = kind, self._build(kind)
        self._graph.push(frame)
        self._pull()

    def finish(self):
        """Return all samples, (T,)."""
        self._flush()
        return np.concatenate([np.empty(0, np.int16), *self._parts])

    def _build(self, kind):
        graph = self._av.filter.Graph()
        nodes = [
            graph.add_abuffer(**kind),
            # async=1 fills gaps in the time stamps, and stretches nothing.
            graph.add('aresample', f'{self._rate}:async=1'),
            graph.add(
                'aformat',
                f'sample_fmts=s16:sample_rates={self._rate}:'
                'channel_layouts=mono',
            ),
            graph.add('abuffersink'),
        ]
        graph.link_nodes(*nodes).configure()
        return graph

    def _flush(self):
        if self._graph is not None:
            self._graph.push(None)
            self._pull()

    def _pull(self):
        while True:
            try:
                frame = self._graph.pull()
            except (
                self._av.error.BlockingIOError,  # more input is needed
                self._av.error.EOFError,
            ):
                return
            if not self._parts:
                self.start = float(frame.time or 0)
            self._parts.append(frame.to_ndarray()[0])


def _read_frames(container, moments, start, size):
    """Frames on the screen at the moments (ms after ``start``)."""
    waiting = list(moments)
    frames, shown = {}, None
    for frame in container.decode(container.streams.best('video')):
        if frame.time is None:
            raise UnreadableFileError('a frame without a time stamp')
        # 0.1 ms: time stamps are rounded.
        while waiting and frame.time - start > waiting[0] / 1000 + 1e-4:
            moment = waiting.pop(0)
            frames[moment] = _to_image(shown, moment, size)
        shown = frame
        if not waiting:
            break
    for moment in waiting:
        frames[moment] = _to_image(shown, moment, size)
    return frames


def _to_image(frame, moment, size):
    if frame is None or frame.is_corrupt:
        raise UnreadableFileError(f'no intact frame at {moment / 1000:.2f} s')
    scale = min(1, size / min(frame.width, frame.height))
    return frame.to_ndarray(
        width=round(frame.width * scale),
        height=round(frame.height * scale),
        format='bgr24',
        interpolation='AREA',
    )
