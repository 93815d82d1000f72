"""Sound: augmentation of waveforms, log-mel spectrograms.

A waveform is a float32 tensor (channels, time) with values in [-1, 1]; its
``rate`` is in samples per second.
"""

import numpy as np
import torch
from mmcv.transforms import BaseTransform

from mmcmcd.errors import ConfigError, UnreadableFileError
from mmcmcd.registry import TRANSFORMS
from mmcmcd.signal import log_mel, spec_augment
from mmcmcd.signal.log_mel import check_log_mel

from .arrays import replace_array, timed_array_of
from .audio_loading import PADDINGS, check_choice
from .temporal import pad_time


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
        check_choice(self, 'pad', pad, PADDINGS)
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
