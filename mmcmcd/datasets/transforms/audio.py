"""Sound: loading, augmentation of waveforms, log-mel spectrograms.

A waveform is a float32 tensor (channels, time) with values in [-1, 1]; its
``rate`` is in samples per second.
"""

import io
import os.path as osp
import re
from contextlib import contextmanager
from math import ceil, gcd

import numpy as np
import torch
from mmcv.transforms import BaseTransform

from mmcmcd.errors import ConfigError, UnreadableFileError
from mmcmcd.registry import TRANSFORMS
from mmcmcd.signal import log_mel, spec_augment
from mmcmcd.signal.log_mel import check_log_mel

from .arrays import replace_array, timed_array_of
from .loading import read_bytes
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
# Programs that write to a pipe cannot know the length: sizes from here on
# mean "to the end of the file".
_UNKNOWN_SIZE = 0x7FFFF000
_PADDINGS = ('error', 'repeat', 'zero')


def _check_choice(owner, name, value, choices):
    if value not in choices:
        raise ConfigError(
            f'{type(owner).__name__}: {name} must be one of {list(choices)}, '
            f'got {value!r}.'
        )


def _checked_range(owner, name, value):
    """Return (low, high) of a range, or of a number as +-number."""
    pair = (-value, value) if isinstance(value, (int, float)) else value
    low, high = pair
    if not low <= high:
        raise ConfigError(
            f'{type(owner).__name__}: {name} must be a positive number, or '
            f'(low, high) with low <= high, got {value}.'
        )
    return low, high


def _rate_of(results, owner):
    """Return the rate of a waveform."""
    timed_array_of(results, owner)
    if 'rate' not in results:
        raise ConfigError(
            f'{type(owner).__name__}: the sampling rate of '
            f'{results.get("img_path", "the waveform")} is unknown; load it '
            'by mmcmcd.LoadAudio.'
        )
    return results['rate']


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
        _check_choice(self, 'channels', channels, (1, 2))
        _check_choice(self, 'on_stereo', on_stereo, ('mix', 'error'))
        _check_choice(self, 'on_silent', on_silent, ('error', 'keep'))
        _check_choice(self, 'pad', pad, _PADDINGS)
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
            with _open_sound(path, self.backend_args) as file:
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
        end = file.frames if end is None else min(end, file.frames)
        try:
            file.seek(begin)
            samples = file.read(end - begin, dtype='float32', always_2d=True).T
        except RuntimeError as error:  # of libsndfile
            raise UnreadableFileError(
                f'Cannot decode {path}: damaged or truncated ({error}).'
            ) from error
        if samples.shape[1] < end - begin or not samples.size:
            raise UnreadableFileError(
                f'No sound, or truncated: {path} gives {samples.shape[1]} of '
                f'{end - begin} samples. Copy or download it again.'
            )
        self._check_samples(samples, file.subtype, path)
        if self.channels == 1:
            samples = samples.mean(axis=0, keepdims=True)
        ranges = np.ptp(samples, axis=1)
        if self.on_silent == 'error' and ranges.max() < SILENT_RANGE:
            raise UnreadableFileError(
                f'Silent: the samples of {path} from {begin} to {end} differ '
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


@contextmanager
def _open_sound(path, backend_args):
    """Open a sound file; a local one is not read as a whole."""
    try:
        import soundfile
    except ImportError:
        raise ConfigError(
            "LoadAudio needs soundfile. Run: pip install 'mmcmcd[audio]'"
        ) from None
    source = path
    if backend_args or not osp.isfile(path) or not osp.getsize(path):
        # This also says what is wrong with a missing or empty file.
        source = io.BytesIO(read_bytes(path, backend_args))
    try:
        file = soundfile.SoundFile(source)
    except (soundfile.LibsndfileError, OSError) as error:
        reason = 'it is damaged, truncated or not a sound'
        if _says_zero_hertz(path, backend_args):
            reason = 'its header says 0 Hz'
        # Its text without the path, which is in the message already.
        detail = getattr(error, 'error_string', error)
        raise UnreadableFileError(
            f'Cannot decode sound {path}: {reason} ({detail}).'
        ) from error
    with file:
        _check_complete(file, path)
        yield file


def _says_zero_hertz(path, backend_args):
    head = read_bytes(path, backend_args)[:28]
    is_wav = head[:4] == b'RIFF' and head[12:16] == b'fmt '
    return is_wav and head[24:28] == bytes(4)


def _check_complete(file, path):
    """Refuse a wav file that is shorter than its header says.

    libsndfile takes what is there, and only notes it in its log. Other
    formats fail when they are decoded.
    """
    noted = re.search(
        r'^data *: (\d+) \(should be (\d+)\)', file.extra_info, re.M
    )
    if noted is None:
        return
    promised, there = map(int, noted.groups())
    if there < promised < _UNKNOWN_SIZE:
        raise UnreadableFileError(
            f'File is truncated: {path} has {there} of {promised} bytes of '
            'sound. Copy or download it again.'
        )


@TRANSFORMS.register_module()
class AudioSegment(BaseTransform):
    """Keep a segment of fixed length.

    Required Keys:

    - img (torch.Tensor, (C, T))
    - rate

    Modified Keys:

    - img ((C, round(duration * rate)))
    - img_shape
    - duration

    Args:
        duration (float): Seconds.
        random (bool): Whether its place is drawn; if not, it is the middle.
            Defaults to True.
        pad (str): What to do with a shorter sound: lengthen it at its end by
            its 'repeat'ed start or by 'zero's, or 'error'. Defaults to
            'repeat'.

    Raises:
        ConfigError: An argument makes no sense.
        UnreadableFileError: A sound is shorter, under 'error'.
    """

    def __init__(self, duration, random=True, pad='repeat'):
        if not duration > 0:
            raise ConfigError(
                'AudioSegment: duration must be positive (seconds), got '
                f'{duration}.'
            )
        _check_choice(self, 'pad', pad, _PADDINGS)
        self.duration = duration
        self.random = random
        self.pad = pad

    def transform(self, results):
        """Cut or lengthen ``results['img']``."""
        rate = _rate_of(results, self)
        waveform = results['img']
        size = max(1, round(self.duration * rate))
        surplus = waveform.shape[1] - size
        if surplus >= 0:
            first = (
                np.random.randint(surplus + 1) if self.random else surplus // 2
            )
            waveform = waveform[:, first : first + size].contiguous()
        elif self.pad == 'error':
            raise UnreadableFileError(
                f'Too short: {results.get("img_path", "the sound")} has '
                f'{waveform.shape[1]} samples, expected {size} or more '
                f'({self.duration} s at {rate:g} Hz). Take a shorter '
                "segment, or set pad='repeat' or 'zero'."
            )
        else:
            waveform = pad_time(waveform, size, self.pad)
        results['duration'] = size / rate
        return replace_array(results, waveform)

    def __repr__(self):
        return (
            f'{self.__class__.__name__}(duration={self.duration}, '
            f'random={self.random}, pad={self.pad!r})'
        )


@TRANSFORMS.register_module()
class RandomGain(BaseTransform):
    """Make a sound louder or softer.

    Values may leave [-1, 1]; nothing is clipped.

    Required Keys:

    - img (torch.Tensor, (C, T))

    Modified Keys:

    - img

    Args:
        db (float | tuple[float, float]): Range of the gain in dB, uniform;
            a number stands for (-db, db). Defaults to 6.

    Raises:
        ConfigError: The range is not in order.
    """

    def __init__(self, db=6.0):
        self.db = _checked_range(self, 'db', db)

    def transform(self, results):
        """Scale ``results['img']``."""
        waveform = timed_array_of(results, self)
        gain = 10 ** (np.random.uniform(*self.db) / 20)
        return replace_array(results, waveform * gain)

    def __repr__(self):
        return f'{self.__class__.__name__}(db={self.db})'


@TRANSFORMS.register_module()
class AddNoise(BaseTransform):
    """Add white Gaussian noise at a random distance below the sound.

    Silence stays silent.

    Required Keys:

    - img (torch.Tensor, (C, T))

    Modified Keys:

    - img

    Args:
        snr_db (tuple[float, float]): Range of the signal-to-noise ratio of
            the mean powers, in dB, uniform. Defaults to (10, 40).
        prob (float): Probability of any noise. Defaults to 1.

    Raises:
        ConfigError: An argument makes no sense.
    """

    def __init__(self, snr_db=(10.0, 40.0), prob=1.0):
        if isinstance(snr_db, (int, float)):
            snr_db = (snr_db, snr_db)
        self.snr_db = _checked_range(self, 'snr_db', snr_db)
        if not 0 <= prob <= 1:
            raise ConfigError(
                f'AddNoise: prob must lie in [0, 1], got {prob}.'
            )
        self.prob = prob

    def transform(self, results):
        """Add noise to ``results['img']``."""
        waveform = timed_array_of(results, self)
        if np.random.random_sample() >= self.prob:
            return results
        ratio = 10 ** (np.random.uniform(*self.snr_db) / 20)
        level = waveform.square().mean().sqrt() / ratio
        noise = torch.from_numpy(np.random.standard_normal(waveform.shape))
        return replace_array(results, waveform + level * noise.float())

    def __repr__(self):
        return (
            f'{self.__class__.__name__}(snr_db={self.snr_db}, '
            f'prob={self.prob})'
        )


@TRANSFORMS.register_module()
class RandomTimeShift(BaseTransform):
    """Move a sound in time.

    Required Keys:

    - img (torch.Tensor, (C, T))
    - rate

    Modified Keys:

    - img

    Args:
        max_shift (float): Largest shift in seconds, to either side, uniform.
        wrap (bool): Whether what leaves at one end comes back at the other;
            if not, zeros do. Defaults to True.

    Raises:
        ConfigError: ``max_shift`` is negative.
    """

    def __init__(self, max_shift, wrap=True):
        if not max_shift >= 0:
            raise ConfigError(
                'RandomTimeShift: max_shift must not be negative (seconds), '
                f'got {max_shift}.'
            )
        self.max_shift = max_shift
        self.wrap = wrap

    def transform(self, results):
        """Shift ``results['img']``."""
        rate = _rate_of(results, self)
        shift = np.random.uniform(-self.max_shift, self.max_shift)
        shift = round(shift * rate)
        waveform = results['img'].roll(shift, dims=1)
        if not self.wrap:
            length = waveform.shape[1]
            shift = min(max(shift, -length), length)
            gap = slice(shift) if shift >= 0 else slice(length + shift, None)
            waveform[:, gap] = 0
        return replace_array(results, waveform)

    def __repr__(self):
        return (
            f'{self.__class__.__name__}(max_shift={self.max_shift}, '
            f'wrap={self.wrap})'
        )


@TRANSFORMS.register_module()
class LogMel(BaseTransform):
    """Turn a waveform into its log-mel spectrogram in dB.

    The values of librosa's ``power_to_db(feature.melspectrogram(...))``, see
    :func:`mmcmcd.signal.log_mel`. :class:`AudioDataPreprocessor` computes the
    same by the batch, on the GPU if there is one.

    Required Keys:

    - img (torch.Tensor, (C, T))
    - rate

    Modified Keys:

    - img (torch.Tensor, float32, (C, n_mels, 1 + T // hop_length))
    - img_shape
    - modality ('spectrogram')
    - rate (frames per second)

    Args:
        sampling_rate (int): Of the waveform.
        n_fft, hop_length, n_mels, fmin, fmax, **kwargs: See
            :func:`mmcmcd.signal.log_mel`.

    Raises:
        ConfigError: An argument makes no sense, or the waveform has another
            rate.
    """

    def __init__(
        self,
        sampling_rate,
        n_fft=1024,
        hop_length=320,
        n_mels=64,
        fmin=0.0,
        fmax=None,
        **kwargs,
    ):
        self.settings = dict(
            sampling_rate=sampling_rate,
            n_fft=n_fft,
            hop_length=hop_length,
            n_mels=n_mels,
            fmin=fmin,
            fmax=fmax,
            **kwargs,
        )
        check_log_mel(**self.settings)

    def transform(self, results):
        """Transform ``results['img']``."""
        rate = _rate_of(results, self)
        if rate != self.settings['sampling_rate']:
            raise ConfigError(
                f'LogMel: {results.get("img_path", "the waveform")} has '
                f'{rate:g} Hz, sampling_rate is '
                f'{self.settings["sampling_rate"]}. Set it to that of '
                'LoadAudio.'
            )
        results['rate'] = rate / self.settings['hop_length']
        results['modality'] = 'spectrogram'
        return replace_array(results, log_mel(results['img'], **self.settings))

    def __repr__(self):
        settings = ', '.join(f'{k}={v!r}' for k, v in self.settings.items())
        return f'{self.__class__.__name__}({settings})'


@TRANSFORMS.register_module()
class SpecAugment(BaseTransform):
    """Mask random bands of frequency and stretches of time.

    See :func:`mmcmcd.signal.spec_augment`.

    Required Keys:

    - img (torch.Tensor, spectrogram (C, F, T))

    Modified Keys:

    - img

    Args:
        freq_mask (int): Widest band, in bins.
        time_mask (int): Widest stretch, in frames.
        num_freq (int): Number of bands. Defaults to 1.
        num_time (int): Number of stretches. Defaults to 1.
        value (float, optional): What takes their place. Defaults to None:
            the mean of the clip.

    Raises:
        ConfigError: A width or number is negative, or there is no
            spectrogram.
    """

    def __init__(
        self, freq_mask, time_mask, num_freq=1, num_time=1, value=None
    ):
        sizes = freq_mask, time_mask, num_freq, num_time
        if not all(size == int(size) >= 0 for size in sizes):
            raise ConfigError(
                'SpecAugment: freq_mask, time_mask, num_freq and num_time '
                f'must be integers of 0 or more, got {sizes}.'
            )
        self.settings = dict(
            freq_mask=freq_mask,
            time_mask=time_mask,
            num_freq=num_freq,
            num_time=num_time,
            value=value,
        )

    def transform(self, results):
        """Mask ``results['img']``."""
        if results.get('modality') != 'spectrogram':
            raise ConfigError(
                'SpecAugment: expected a spectrogram; put mmcmcd.LogMel '
                'before it.'
            )
        results['img'] = spec_augment(results['img'], **self.settings)
        return results

    def __repr__(self):
        settings = ', '.join(f'{k}={v!r}' for k, v in self.settings.items())
        return f'{self.__class__.__name__}({settings})'
