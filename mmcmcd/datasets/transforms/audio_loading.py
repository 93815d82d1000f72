"""Loading of sound; all else about it is in :mod:`audio`."""

from math import ceil, gcd

import numpy as np
import torch
from mmcv.transforms import BaseTransform

from mmcmcd.errors import ConfigError, UnreadableFileError
from mmcmcd.registry import TRANSFORMS

from .arrays import replace_array
from .sound_files import open_sound, read_samples
from .temporal import pad_time

# Our choices. A range of 2e-4 is that of a tone at -80 dB of full scale, some
# steps of a 16-bit file: what a recorder gives without a microphone.
SILENT_RANGE = 2e-4
# Full scale is one step less on the positive side, which shows at 8 bits.
_FULL_SCALE = 0.999
_FULL_SCALE_8_BIT = 127 / 128
# Seconds beyond both ends of a segment that the resampling filter sees: with
# them, a segment equals the same part of the whole file within 1e-6.
_MARGIN = 0.05
# Seconds by which a segment may be moved to end with its file, for durations
# in lists are rounded.
_SLACK = 0.05
# Resampling by more than this is the work of a damaged header.
_MOST_RESAMPLED = 256
PADDINGS = ('error', 'repeat', 'zero')


def check_choice(owner, name, value, choices):
    """Refuse a value of an argument that is not one of the choices."""
    if value not in choices:
        raise ConfigError(
            f'{type(owner).__name__}: {name} must be one of {list(choices)}, '
            f'got {value!r}.'
        )


@TRANSFORMS.register_module()
class LoadAudio(BaseTransform):
    """Load a sound file, or a segment of it, at one sampling rate.

    Whatever libsndfile reads (wav, flac, ogg, mp3, ...), of any rate. Another
    rate than ``sampling_rate`` is resampled by librosa's default, soxr in
    high quality (pass band to 0.913 of half the lower rate, stop band
    some 120 dB down).

    ``segment``, a start and a duration in seconds, as
    :class:`SharedTemporalCrop` sets it, has only that part decoded. It has
    ``round(duration * sampling_rate)`` samples, the same ones that a crop of
    the whole resampled file has. One that ends up to 50 ms after the file is
    moved to its end.

    Required Keys:

    - img_path
    - segment (optional)

    Added Keys:

    - img (torch.Tensor, float32, (channels, T))
    - img_shape, ori_shape
    - modality ('audio')
    - rate (float, samples per second)
    - duration (float, seconds, of what was loaded)

    Deleted Keys:

    - segment

    Args:
        sampling_rate (int): Samples per second of the result.
        channels (int): 1 or 2. Defaults to 1.
        expected_rate (int, optional): Refuse files of another rate.
        on_stereo (str): What to do with files of several channels where one
            is wanted: 'mix' (their mean) or 'error'. Defaults to 'mix'.
        on_silent (str): 'error' or 'keep'. What was loaded is silent if no
            channel's values differ by 2e-4 or more, 80 dB below full scale.
            Defaults to 'error'.
        max_clipped_fraction (float, optional): Largest accepted share of
            samples at full scale (0.999, or 127/128 in 8-bit files).
            Defaults to None: any.
        pad (str): What to do with a file that ends before its segment:
            'error', or lengthen the segment at its end by its 'repeat'ed
            start or by 'zero's. Defaults to 'error'.
        ignore_empty (bool): Return None for an unreadable file, as stock
            loaders do, instead of raising. Defaults to False.
        backend_args (dict, optional): See :func:`mmengine.fileio.get`.

    Raises:
        ConfigError: An argument makes no sense, or soundfile is missing.
        UnreadableFileError: The file is missing, empty, truncated, no sound,
            silent, clipped or too short; it has NaN samples, a header of
            0 Hz, or another rate or number of channels than promised.
    """

    def __init__(
        self,
        sampling_rate,
        channels=1,
        expected_rate=None,
        on_stereo='mix',
        on_silent='error',
        max_clipped_fraction=None,
        pad='error',
        ignore_empty=False,
        backend_args=None,
    ):
        if not sampling_rate == int(sampling_rate) >= 1:
            raise ConfigError(
                'LoadAudio: sampling_rate must be a positive integer (Hz), '
                f'got {sampling_rate}.'
            )
        if max_clipped_fraction is not None and not (
            0 <= max_clipped_fraction <= 1
        ):
            raise ConfigError(
                'LoadAudio: max_clipped_fraction must lie in [0, 1], got '
                f'{max_clipped_fraction}.'
            )
        check_choice(self, 'channels', channels, (1, 2))
        check_choice(self, 'on_stereo', on_stereo, ('mix', 'error'))
        check_choice(self, 'on_silent', on_silent, ('error', 'keep'))
        check_choice(self, 'pad', pad, PADDINGS)
        self.sampling_rate = int(sampling_rate)
        self.channels = channels
        self.expected_rate = expected_rate
        self.on_stereo = on_stereo
        self.on_silent = on_silent
        self.max_clipped_fraction = max_clipped_fraction
        self.pad = pad
        self.ignore_empty = ignore_empty
        self.backend_args = backend_args

    def transform(self, results):
        """Load ``results['img_path']`` into ``results['img']``."""
        path = results['img_path']
        try:
            with open_sound(path, self.backend_args) as file:
                self._check_format(file, path)
                waveform = self._load(file, path, results.pop('segment', None))
        except UnreadableFileError:
            if self.ignore_empty:
                return None
            raise
        replace_array(results, torch.from_numpy(waveform))
        results['ori_shape'] = results['img_shape']
        results['modality'] = 'audio'
        results['rate'] = float(self.sampling_rate)
        results['duration'] = waveform.shape[1] / self.sampling_rate
        return results

    def _check_format(self, file, path):
        rate, channels = file.samplerate, file.channels
        ratio = max(rate / self.sampling_rate, self.sampling_rate / rate)
        if ratio > _MOST_RESAMPLED:
            raise UnreadableFileError(
                f'Wrong sampling rate: the header of {path} says {rate} Hz, '
                f'{ratio:.0f} times off sampling_rate={self.sampling_rate}. '
                'Restore the file, or correct sampling_rate.'
            )
        if self.expected_rate not in (None, rate):
            raise UnreadableFileError(
                f'Wrong sampling rate: {path} has {rate} Hz, expected_rate is '
                f'{self.expected_rate}. Convert the file, or leave '
                'expected_rate out to have it resampled.'
            )
        if channels != self.channels and (
            self.channels == 2 or self.on_stereo == 'error'
        ):
            advice = (
                "set on_stereo='mix' to take the mean of its channels"
                if self.channels == 1
                else 'set channels=1'
            )
            raise UnreadableFileError(
                f'Wrong number of channels: {path} has {channels}, expected '
                f'{self.channels}. Convert the file, or {advice}.'
            )

    def _load(self, file, path, segment):
        """Return (channels, T), float32, at the sampling rate."""
        if segment is None:
            return self._resampled(self._decode(file, path), file.samplerate)
        start, duration = segment
        size = max(1, round(duration * self.sampling_rate))
        total = ceil(file.frames * self.sampling_rate / file.samplerate)
        first = max(round(start * self.sampling_rate), 0)
        surplus = first + size - total
        if 0 < surplus <= _SLACK * self.sampling_rate:
            first = max(first - surplus, 0)
        if first + size > total and (self.pad == 'error' or first >= total):
            raise UnreadableFileError(
                f'Too short: {path} lasts {total / self.sampling_rate:.3f} s, '
                f'but the segment ends at {start + duration:.3f} s. Correct '
                'the duration of the list, take shorter segments, or set '
                "pad='repeat' or 'zero'."
            )
        waveform = self._decode_part(file, path, first, size)
        if waveform.shape[1] == size:
            return waveform
        return pad_time(torch.from_numpy(waveform), size, self.pad).numpy()

    def _decode_part(self, file, path, first, size):
        """Decode samples of the result, by number, up to the end."""
        # Both rates meet on a grid, where a part of the file can begin
        # without moving its samples against those of the whole file.
        divisor = gcd(file.samplerate, self.sampling_rate)
        stored = file.samplerate // divisor
        wanted = self.sampling_rate // divisor
        margin = ceil(_MARGIN * self.sampling_rate) if stored != wanted else 0
        begin = max(first - margin, 0) // wanted
        end = ceil((first + size + margin) / wanted)
        part = self._decode(file, path, begin * stored, end * stored)
        first -= begin * wanted
        part = self._resampled(part, file.samplerate)
        return np.ascontiguousarray(part[:, first : first + size])

    def _decode(self, file, path, begin=0, end=None):
        """Decode and check stored samples, as (channels, T)."""
        samples = read_samples(file, path, begin, end)
        self._check_samples(samples, file.subtype, path)
        if self.channels == 1:
            samples = samples.mean(axis=0, keepdims=True)
        ranges = np.ptp(samples, axis=1)
        if self.on_silent == 'error' and ranges.max() < SILENT_RANGE:
            raise UnreadableFileError(
                f'Silent: the {samples.shape[1]} samples of {path} from '
                f'{begin} on differ '
                f'by {ranges.max():.2g}, less than {SILENT_RANGE} of full '
                "scale 1. Take it out of the list, or set on_silent='keep'."
            )
        return np.ascontiguousarray(samples)

    def _check_samples(self, samples, subtype, path):
        if not np.isfinite(samples).all():
            raise UnreadableFileError(
                f'NaN or infinite samples: {path} has '
                f'{np.count_nonzero(~np.isfinite(samples))} of them. Restore '
                'it or take it out of the list.'
            )
        if self.max_clipped_fraction is None:
            return
        eight_bits = subtype in ('PCM_U8', 'PCM_S8')
        full = _FULL_SCALE_8_BIT if eight_bits else _FULL_SCALE
        clipped = np.mean(np.abs(samples) >= full)
        if clipped > self.max_clipped_fraction:
            raise UnreadableFileError(
                f'Clipped: {clipped:.2%} of the samples of {path} are at full '
                'scale, max_clipped_fraction is '
                f'{self.max_clipped_fraction:.2%}. Restore it, take it out '
                'of the list, or raise the limit.'
            )

    def _resampled(self, samples, rate):
        if rate == self.sampling_rate:
            return samples
        librosa = _import_librosa()
        return librosa.resample(
            samples,
            orig_sr=rate,
            target_sr=self.sampling_rate,
            res_type='soxr_hq',
        )

    def __repr__(self):
        return (
            f'{self.__class__.__name__}(sampling_rate={self.sampling_rate}, '
            f'channels={self.channels}, expected_rate={self.expected_rate}, '
            f'on_stereo={self.on_stereo!r}, on_silent={self.on_silent!r}, '
            f'max_clipped_fraction={self.max_clipped_fraction}, '
            f'pad={self.pad!r})'
        )


def _import_librosa():
    try:
        import librosa
    except ImportError:
        raise ConfigError(
            "Resampling needs librosa. Run: pip install 'mmcmcd[audio]'"
        ) from None
    return librosa
