"""Log-mel spectrograms are librosa's."""

import itertools

import numpy as np
import pytest
import torch

from mmcmcd.errors import ConfigError
from mmcmcd.signal import log_mel

librosa = pytest.importorskip('librosa')
pytestmark = pytest.mark.filterwarnings('ignore:n_fft=.* is too large')
RATE = 16000
SIGNALS = ('noise', 'sine', 'chirp', 'click', 'silence')


def signal(kind, length=4000, dtype=np.float32):
    time = np.arange(length) / RATE
    wave = {
        'noise': np.random.default_rng(0).normal(0, 0.1, length),
        'sine': 0.5 * np.sin(2 * np.pi * 440 * time),
        'chirp': 0.5 * np.sin(2 * np.pi * (100 + 8000 * time) * time),
        'click': np.eye(1, length, length // 3)[0],
        'silence': np.zeros(length),
    }[kind]
    return wave.astype(dtype)


def by_librosa(wave, top_db=80.0, amin=1e-10, sampling_rate=RATE, **kwargs):
    power = librosa.feature.melspectrogram(y=wave, sr=sampling_rate, **kwargs)
    return librosa.power_to_db(power, ref=1.0, amin=amin, top_db=top_db)


def ours(wave, sampling_rate=RATE, **kwargs):
    return log_mel(torch.from_numpy(wave), sampling_rate, **kwargs).numpy()


SETTINGS = [
    dict(
        n_fft=n_fft, hop_length=hop, n_mels=n_mels, fmin=fmin, fmax=fmax,
        win_length=win_length,
    )
    for n_fft, hop, n_mels, (fmin, fmax), win_length in itertools.product(
        (256, 1000, 1024), (80, 320), (20, 64), ((0, None), (50, 7000)),
        (None, 200),
    )
]  # fmt: skip


@pytest.mark.filterwarnings('ignore:Empty filters')
@pytest.mark.parametrize('kind', SIGNALS)
@pytest.mark.parametrize('dtype', [np.float32, np.float64])
def test_equals_librosa_over_a_grid(kind, dtype):
    for settings in SETTINGS:
        wave = signal(kind, dtype=dtype)
        expected = by_librosa(wave, **settings)
        found = ours(wave, **settings)
        assert found.shape == expected.shape and found.dtype == dtype
        np.testing.assert_allclose(
            found, expected, rtol=0, atol=1e-4, err_msg=str(settings)
        )


@pytest.mark.parametrize(
    'settings',
    [
        dict(htk=True),
        dict(norm=None),
        dict(htk=True, norm=None, fmin=60, fmax=7600),
        dict(top_db=None),
        dict(top_db=20.0),
        dict(amin=1e-5),
        dict(n_mels=17),  # not a whole number of bands
        dict(n_fft=401, win_length=400, hop_length=160),
        dict(sampling_rate=44100, n_fft=2048, hop_length=441, n_mels=128),
    ],
    ids=str,
)
@pytest.mark.parametrize('kind', ['noise', 'sine'])
def test_other_settings_equal_librosa(settings, kind):
    settings = dict(n_fft=512, hop_length=160, n_mels=40) | settings
    expected = by_librosa(signal(kind), **settings)
    found = ours(signal(kind), **settings)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize('length', [1, 2, 319, 320, 511, 1023])
def test_short_signals(length):
    settings = dict(n_fft=1024, hop_length=320, n_mels=64)
    wave = signal('noise', length)
    found = ours(wave, **settings)
    assert found.shape == (64, 1 + length // 320)
    np.testing.assert_allclose(
        found, by_librosa(wave, **settings), rtol=0, atol=1e-4
    )


@pytest.mark.parametrize('length', [100, 4000, 50000])
def test_a_clip_does_not_depend_on_its_batch(length):
    """Blocks of several clips, and several blocks per clip."""
    waves = np.stack(
        [signal(kind, length) * 0.1**i for i, kind in enumerate(SIGNALS)]
    )
    batch = ours(waves.reshape(5, 1, length))
    assert batch.shape == (5, 1, 64, 1 + length // 320)
    for wave, found in zip(waves, batch[:, 0], strict=True):
        expected = by_librosa(wave, n_fft=1024, hop_length=320, n_mels=64)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


def test_silence_is_finite():
    assert (ours(signal('silence')) == -100).all()


def test_lower_precision_is_near():
    """Within rounding of the strongest bin, and really another path."""
    wave = signal('sine')
    exact, fast = ours(wave), ours(wave, precise=False)
    assert 1e-4 < np.abs(fast - exact).max() < 1e-2
    noise = signal('noise')
    fast = ours(noise, precise=False)
    np.testing.assert_allclose(fast, ours(noise), rtol=0, atol=1e-4)


def test_autocast_and_half_precision_change_nothing():
    wave = torch.from_numpy(signal('noise'))
    expected = log_mel(wave, RATE)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        assert torch.equal(log_mel(wave, RATE), expected)
    half = log_mel(wave.half(), RATE)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, log_mel(wave.half().float(), RATE))


def test_filters_made_in_inference_mode_can_be_used_in_training():
    settings = dict(n_fft=300, hop_length=100, n_mels=7)
    with torch.inference_mode():
        log_mel(torch.ones(400), RATE, **settings)
    scale = torch.ones(1, requires_grad=True)
    noise = torch.from_numpy(signal('noise'))
    log_mel(noise * scale, RATE, **settings).mean().backward()
    # The level grows by 20 / ln(10) dB per relative change of amplitude.
    assert scale.grad.item() == pytest.approx(20 / np.log(10), rel=1e-3)


def test_frames_know_the_time():
    """A click is loudest in the frame that is centred on it."""
    wave = np.zeros(RATE, np.float32)
    wave[50 * 160] = 1
    found = ours(wave, n_fft=512, hop_length=160, n_mels=40)
    assert found.mean(axis=0).argmax() == 50


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
@pytest.mark.parametrize('kind', SIGNALS)
def test_gpu_equals_cpu(kind):
    wave = torch.from_numpy(signal(kind)).expand(3, 1, -1)
    found = log_mel(wave.cuda(), RATE)
    assert found.is_cuda
    torch.testing.assert_close(
        found.cpu(), log_mel(wave, RATE), rtol=0, atol=1e-4
    )


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (dict(n_fft=0), 'n_fft must be a positive integer'),
        (dict(hop_length=2.5), 'hop_length must be a positive integer'),
        (dict(n_mels=-1), 'n_mels must be a positive integer'),
        (dict(fmin=900, fmax=800), r'fmin < fmax <= sampling_rate / 2'),
        (dict(fmax=9000), r'fmax=9000, sampling_rate=16000'),
        (dict(win_length=2000), 'win_length must be 1 to n_fft=1024'),
        (dict(norm='other'), "norm must be 'slaney' or None"),
        (dict(amin=0.0), 'amin must be positive'),
        (dict(top_db=-1.0), 'top_db not negative'),
    ],
)
def test_settings_that_make_no_sense(settings, message):
    with pytest.raises(ConfigError, match=message):
        log_mel(torch.zeros(100), RATE, **settings)


@pytest.mark.parametrize(
    'wave', [torch.zeros(10, dtype=torch.int16), torch.zeros(2, 0)]
)
def test_no_waveform(wave):
    with pytest.raises(ConfigError, match=r'floating-point waveform'):
        log_mel(wave, RATE)
