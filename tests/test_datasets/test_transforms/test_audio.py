"""Sound: loading, bad files, segments, augmentation, spectrograms."""

import struct

import cv2
import numpy as np
import pytest
import torch
from mmpretrain.datasets.transforms import PackInputs

from mmcmcd.datasets import PairedModalityDataset
from mmcmcd.datasets.transforms import (
    AddNoise,
    AudioSegment,
    LoadAudio,
    LogMel,
    OnSide,
    RandomGain,
    RandomTimeShift,
    SharedTemporalCrop,
    SpecAugment,
)
from mmcmcd.errors import ConfigError, UnreadableFileError
from mmcmcd.registry import TRANSFORMS
from mmcmcd.signal import log_mel

librosa = pytest.importorskip('librosa')
soundfile = pytest.importorskip('soundfile')

RATE = 16000
RNG_STATE = 5


def noise(seconds=1.0, rate=RATE, channels=1, level=0.1):
    rng = np.random.default_rng(0)
    shape = (round(seconds * rate), channels)
    return rng.normal(0, level, shape).clip(-0.9, 0.9).astype(np.float32)


def write(path, samples, rate=RATE, **kwargs):
    soundfile.write(path, samples, rate, **kwargs)
    return str(path)


def load(path, segment=None, sampling_rate=RATE, **kwargs):
    results = dict(img_path=str(path))
    if segment is not None:
        results['segment'] = segment
    return LoadAudio(sampling_rate, **kwargs)(results)


def sound(samples, rate=RATE):
    """What LoadAudio gives, without a file."""
    waveform = torch.as_tensor(samples, dtype=torch.float32)
    return dict(
        img=waveform,
        img_shape=tuple(waveform.shape),
        modality='audio',
        rate=float(rate),
        duration=waveform.shape[1] / rate,
    )


# Loading ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ('name', 'kwargs', 'tolerance'),
    [
        ('a.wav', dict(subtype='PCM_16'), 4e-5),
        ('a.wav', dict(subtype='PCM_24'), 2e-7),
        ('a.wav', dict(subtype='FLOAT'), 0),
        ('a.wav', dict(subtype='PCM_U8'), 8e-3),
        ('a.flac', dict(), 4e-5),
        ('a.ogg', dict(), 0.3),
    ],
)
@pytest.mark.parametrize('backend_args', [None, dict(backend='local')])
def test_formats(tmp_path, name, kwargs, tolerance, backend_args):
    path = write(tmp_path / name, noise(), **kwargs)
    results = load(path, backend_args=backend_args)
    waveform = results['img']
    assert waveform.dtype == torch.float32 and waveform.shape == (1, RATE)
    assert np.abs(waveform.numpy() - noise().T).max() <= tolerance
    assert results['modality'] == 'audio' and results['rate'] == RATE
    assert results['duration'] == 1.0
    assert results['img_shape'] == results['ori_shape'] == (1, RATE)


def test_stereo(tmp_path):
    stereo = noise(channels=2)
    path = write(tmp_path / 'a.wav', stereo, subtype='FLOAT')
    mixed = load(path)['img'].numpy()
    np.testing.assert_allclose(mixed[0], stereo.mean(axis=1), atol=1e-7)
    both = load(path, channels=2)['img'].numpy()
    np.testing.assert_allclose(both, stereo.T)
    with pytest.raises(UnreadableFileError, match=r'a\.wav has 2, expected 1'):
        load(path, on_stereo='error')
    mono = write(tmp_path / 'b.wav', noise())
    with pytest.raises(UnreadableFileError, match=r'b\.wav has 1, expected 2'):
        load(mono, channels=2)


@pytest.mark.parametrize('rate', [8000, 11025, 22050, 44100, 48000])
def test_resampled_as_by_librosa(tmp_path, rate):
    samples = noise(rate=rate)[:, 0]
    path = write(tmp_path / 'a.wav', samples, rate, subtype='FLOAT')
    expected = librosa.resample(samples, orig_sr=rate, target_sr=RATE)
    found = load(path)['img'][0].numpy()
    np.testing.assert_allclose(found, expected, atol=1e-6)
    with pytest.raises(UnreadableFileError, match=rf'has {rate} Hz, expected'):
        load(path, expected_rate=12345)
    assert load(path, expected_rate=rate)['img'].shape == (1, RATE)


@pytest.mark.parametrize('rate', [8000, 11025, RATE, 22050, 44100, 47999])
@pytest.mark.parametrize('name', ['a.wav', 'a.flac', 'a.ogg'])
def test_a_segment_is_that_part_of_the_whole(tmp_path, rate, name):
    path = write(tmp_path / name, noise(3, rate), rate)
    whole = load(path)['img']
    for start, duration in ((0, 0.5), (1.2345, 1), (0.031, 2.9), (2.5, 0.5)):
        results = load(path, segment=(start, duration))
        assert 'segment' not in results
        first = round(start * RATE)
        part = whole[:, first : first + round(duration * RATE)]
        torch.testing.assert_close(results['img'], part, rtol=0, atol=2e-6)
        assert results['duration'] == duration


def test_a_segment_reads_little_of_the_file(tmp_path, monkeypatch):
    path = write(tmp_path / 'a.wav', noise(10, 48000), 48000)
    taken = []
    read = soundfile.SoundFile.read

    def spy(self, frames=-1, *args, **kwargs):
        taken.append(frames)
        return read(self, frames, *args, **kwargs)

    monkeypatch.setattr(soundfile.SoundFile, 'read', spy)
    load(path, segment=(4, 1))
    assert taken and sum(taken) < 1.2 * 48000


def test_a_segment_that_ends_with_its_file(tmp_path):
    """Durations in lists are rounded; more than that is a fault."""
    path = write(tmp_path / 'a.wav', noise(2), subtype='FLOAT')
    whole = load(path)['img']
    found = load(path, segment=(1.01, 1))['img']
    assert torch.equal(found, whole[:, RATE:])
    with pytest.raises(UnreadableFileError, match=r'lasts 2.000 s, .* 2.500'):
        load(path, segment=(1.5, 1))
    half = whole[:, RATE * 3 // 2 :]
    repeated = load(path, segment=(1.5, 1), pad='repeat')['img']
    assert torch.equal(repeated, torch.cat([half, half], dim=1))
    zeros = load(path, segment=(1.5, 1), pad='zero')['img']
    assert torch.equal(zeros, torch.cat([half, 0 * half], dim=1))
    with pytest.raises(UnreadableFileError, match='Too short'):
        load(path, segment=(3, 1), pad='zero')


# Bad input -------------------------------------------------------------------


def with_zero_hertz(path):
    content = bytearray(path.read_bytes())
    content[24:28] = struct.pack('<I', 0)
    path.write_bytes(content)


def cut(path, share=0.5):
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])


def nan(samples):
    samples[100] = np.nan
    return samples


BAD = {
    'silent': (lambda p: write(p, 0 * noise()), 'Silent'),
    'constant': (lambda p: write(p, 0 * noise() + 0.3), 'Silent'),
    'hum': (lambda p: write(p, 1e-4 * noise()), 'Silent'),
    'opposite phases': (
        lambda p: write(p, noise() * [[1, -1]], subtype='FLOAT'),
        'Silent',
    ),
    'nan': (
        lambda p: write(p, nan(noise()), subtype='FLOAT'),
        'has 1 of them',
    ),
    'clipped': (lambda p: write(p, (50 * noise()).clip(-1, 1)), 'Clipped'),
    'clipped, 8 bits': (
        lambda p: write(p, (50 * noise()).clip(-1, 1), subtype='PCM_U8'),
        'Clipped: 8',
    ),
    '0 Hz': (lambda p: (write(p, noise()), with_zero_hertz(p)), '0 Hz'),
    'missing': (lambda p: None, 'does not exist'),
    'no byte': (lambda p: p.write_bytes(b''), 'File is empty'),
    'no sample': (lambda p: write(p, noise(0)), 'No sound'),
    'truncated': (lambda p: (write(p, noise()), cut(p)), 'truncated'),
    'no header': (lambda p: (write(p, noise()), cut(p, 4e-4)), 'decode'),
    'text': (lambda p: p.write_text('hello ' * 99), 'not a sound'),
}


@pytest.mark.parametrize('fault', BAD)
def test_bad_files(tmp_path, fault):
    """One message with the file."""
    path = tmp_path / 'bad.wav'
    make, message = BAD[fault]
    make(path)
    loader = LoadAudio(RATE, max_clipped_fraction=0.01)
    with pytest.raises(UnreadableFileError, match=message) as caught:
        loader(dict(img_path=str(path)))
    assert str(caught.value).count(str(path)) == 1
    tolerant = LoadAudio(RATE, max_clipped_fraction=0.01, ignore_empty=True)
    assert tolerant(dict(img_path=str(path))) is None


@pytest.mark.parametrize('name', ['a.flac', 'a.ogg'])
def test_truncated_other_formats(tmp_path, name):
    path = tmp_path / name
    write(path, noise(3))
    cut(path)
    with pytest.raises(UnreadableFileError, match=name):
        load(path, segment=(2, 0.5))


def test_a_stream_of_unknown_length_is_complete(tmp_path):
    path = tmp_path / 'a.wav'
    write(path, noise())
    content = bytearray(path.read_bytes())
    content[4:8] = content[40:44] = b'\xff' * 4
    path.write_bytes(content)
    assert load(path)['img'].shape == (1, RATE)


def test_what_may_be_kept(tmp_path):
    silent = write(tmp_path / 'a.wav', 0 * noise())
    assert not load(silent, on_silent='keep')['img'].any()
    clipped = write(tmp_path / 'b.wav', (50 * noise()).clip(-1, 1))
    assert load(clipped)['img'].abs().max() > 0.99
    assert load(clipped, max_clipped_fraction=1.0)
    # Loud, but within the limit.
    loud = write(tmp_path / 'c.wav', noise() / np.abs(noise()).max() * 0.99)
    assert load(loud, max_clipped_fraction=0.0)


def test_a_bad_sound_takes_its_whole_pair(tmp_path):
    for i in range(3):
        image = np.full((8, 8, 3), 10 * i, np.uint8)
        (tmp_path / 'rgb').mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / f'rgb/{i}.png'), image)
        (tmp_path / 'wav').mkdir(exist_ok=True)
        write(tmp_path / f'wav/{i}.wav', noise() * (i != 1))
    arguments = dict(
        data_root=str(tmp_path),
        sides=dict(
            source=dict(folder='rgb', suffix='.png'),
            target=dict(folder='wav', suffix='.wav'),
        ),
        pipeline=[
            dict(
                type='mmcmcd.OnSide',
                sides='target',
                transforms=[dict(type='mmcmcd.LoadAudio', sampling_rate=RATE)],
            )
        ],
    )
    strict = PairedModalityDataset(**arguments)
    with pytest.raises(UnreadableFileError, match=r"'1' .*1\.wav.*Silent"):
        strict[1]
    skipping = PairedModalityDataset(
        **arguments, on_unreadable='skip', max_skip_fraction=0.5
    )
    assert skipping[1]['pair_id'] == '2' and skipping.num_skipped == 1


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(sampling_rate=0), 'sampling_rate must be a positive integer'),
        (dict(sampling_rate=RATE, channels=3), 'channels must be one of'),
        (dict(sampling_rate=RATE, on_stereo='x'), 'on_stereo must be one of'),
        (dict(sampling_rate=RATE, on_silent='x'), 'on_silent must be one of'),
        (dict(sampling_rate=RATE, pad='x'), 'pad must be one of'),
        (dict(sampling_rate=RATE, max_clipped_fraction=2), r'lie in \[0, 1\]'),
    ],
)
def test_wrong_arguments_of_the_loader(arguments, message):
    with pytest.raises(ConfigError, match=message):
        LoadAudio(**arguments)


# Moments ---------------------------------------------------------------------


def test_frame_and_sound_are_of_the_same_moment(tmp_path):
    """Brightness and pitch say the time; the file has another rate."""
    seconds, rate, base, slope = 6, 22050, 300, 200
    time = np.arange(seconds * rate) / rate
    phase = 2 * np.pi * (base * time + slope / 2 * time**2)
    wave = write(tmp_path / 'a.wav', 0.5 * np.sin(phase), rate)
    frame_times = np.arange(0.25, seconds, 0.5)
    crop = SharedTemporalCrop(duration=1.0)
    loader = OnSide('target', [LoadAudio(RATE)])
    middles = set()
    for seed in range(12):
        np.random.seed(seed)
        pair = dict(
            sides=('source', 'target'),
            source=dict(
                frames=[f'{t}.jpg' for t in frame_times],
                frame_times=list(frame_times),
            ),
            target=dict(img_path=wave, duration=float(seconds)),
        )
        pair = loader(crop(pair))
        waveform = pair['target']['img'][0].numpy()
        assert waveform.shape == (RATE,)
        middle = waveform[RATE * 4 // 10 : RATE * 6 // 10]
        spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle)), RATE))
        told = (spectrum.argmax() - base) / slope
        seen = float(pair['source']['img_path'].removesuffix('.jpg'))
        assert abs(told - seen) < 0.25 + 0.02
        middles.add(round(told, 1))
    assert len(middles) > 8


# Segments and augmentation ---------------------------------------------------


def ramp(length=1000):
    return sound(np.arange(length, dtype=np.float32)[None], rate=100)


def test_segment_in_the_middle_or_anywhere():
    middle = AudioSegment(2.0, random=False)(ramp())
    assert torch.equal(middle['img'][0], torch.arange(400.0, 600))
    assert middle['img_shape'] == (1, 200) and middle['duration'] == 2.0
    starts = set()
    np.random.seed(0)
    for _ in range(60):
        segment = AudioSegment(9.9)(ramp())['img'][0]
        assert torch.equal(segment.diff(), torch.ones(989))
        starts.add(int(segment[0]))
    assert starts == set(range(11))


@pytest.mark.parametrize('random', [True, False])
def test_shorter_than_the_window(random):
    kwargs = dict(duration=0.05, random=random)
    repeated = AudioSegment(**kwargs)(ramp(2))['img'][0]
    assert repeated.tolist() == [0, 1, 0, 1, 0]
    zeros = AudioSegment(**kwargs, pad='zero')(ramp(2))['img'][0]
    assert zeros.tolist() == [0, 1, 0, 0, 0]
    item = ramp(2) | dict(img_path='a.wav')
    with pytest.raises(UnreadableFileError, match=r'a\.wav has 2 .* 5 or'):
        AudioSegment(**kwargs, pad='error')(item)


def test_gain():
    found = [
        RandomGain((-6, 12))(sound(np.ones((1, 2))))['img'][0, 0].item()
        for _ in range(200)
    ]
    levels = 20 * np.log10(found)
    assert -6 <= levels.min() < -5 and 11 < levels.max() <= 12
    assert RandomGain(3).db == (-3, 3)


def test_noise_has_the_promised_level():
    wave = 0.3 * np.sin(np.arange(20000.0))[None]
    for level in (0.0, 20.0):
        noisy = AddNoise(level)(sound(wave))['img'].numpy() - wave
        ratio = 10 * np.log10((wave**2).mean() / (noisy**2).mean())
        assert ratio == pytest.approx(level, abs=0.2)
    silent = AddNoise()(sound(np.zeros((1, 9))))['img']
    assert torch.equal(silent, torch.zeros(1, 9))
    np.random.seed(0)
    clean = [
        torch.equal(AddNoise(9, prob=0.3)(ramp())['img'], ramp()['img'])
        for _ in range(100)
    ]
    assert 55 < sum(clean) < 85


def test_time_shift():
    shifts = set()
    for seed in range(80):
        np.random.seed(seed)
        rolled = RandomTimeShift(0.03)(ramp(10))['img'][0]
        np.random.seed(seed)
        moved = RandomTimeShift(0.03, wrap=False)(ramp(10))['img'][0]
        shift = int(rolled.argmin())
        shift -= 10 * (shift > 5)
        shifts.add(shift)
        assert torch.equal(rolled, torch.arange(10.0).roll(shift))
        kept = slice(max(shift, 0), 10 + min(shift, 0))
        assert torch.equal(moved[kept], rolled[kept])
        assert moved.count_nonzero() == rolled[kept].count_nonzero()
    assert shifts == set(range(-3, 4))
    assert not RandomTimeShift(9, wrap=False)(ramp(10))['img'].isnan().any()


def test_spectrogram():
    wave = noise().T
    results = LogMel(RATE, n_mels=40, hop_length=160)(sound(wave))
    expected = log_mel(torch.from_numpy(wave), RATE, n_mels=40, hop_length=160)
    assert torch.equal(results['img'], expected)
    assert results['img_shape'] == (1, 40, 101)
    assert results['modality'] == 'spectrogram' and results['rate'] == 100
    packed = PackInputs()(results)['inputs']
    assert torch.equal(packed, expected)
    masked = SpecAugment(40, 101, value=7.0)(results)['img']
    assert masked.shape == expected.shape


def test_order_of_transforms_is_checked():
    with pytest.raises(ConfigError, match='8000 Hz, sampling_rate is 16000'):
        LogMel(RATE)(sound(noise().T, rate=8000))
    with pytest.raises(ConfigError, match='put mmcmcd.LogMel before'):
        SpecAugment(1, 1)(sound(noise().T))
    spectrogram = LogMel(RATE)(sound(noise().T))
    for late in (RandomGain(), AudioSegment(1), LogMel(RATE), AddNoise()):
        with pytest.raises(ConfigError, match='before mmcmcd.LogMel'):
            late(dict(spectrogram))
    rateless = sound(noise().T)
    del rateless['rate']
    with pytest.raises(ConfigError, match='sampling rate .* is unknown'):
        LogMel(RATE)(rateless)


@pytest.mark.parametrize(
    ('make', 'message'),
    [
        (lambda: AudioSegment(0), 'duration must be positive'),
        (lambda: AudioSegment(1, pad='edge'), 'pad must be one of'),
        (lambda: RandomGain((3, 1)), 'low <= high'),
        (lambda: AddNoise(prob=2), r'prob must lie in \[0, 1\]'),
        (lambda: AddNoise((9, 3)), 'low <= high'),
        (lambda: RandomTimeShift(-1), 'must not be negative'),
        (lambda: SpecAugment(-1, 2), 'integers of 0 or more'),
        (lambda: LogMel(RATE, n_fft=0), 'n_fft must be a positive'),
        (lambda: LogMel(RATE, hop=1), r"unknown arguments \['hop'\]"),
    ],
)
def test_wrong_arguments(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


RANDOM = [
    dict(type='mmcmcd.AudioSegment', duration=0.5),
    dict(type='mmcmcd.RandomGain', db=6),
    dict(type='mmcmcd.AddNoise', prob=0.5),
    dict(type='mmcmcd.RandomTimeShift', max_shift=0.1),
    dict(type='mmcmcd.LogMel', sampling_rate=RATE),
    dict(type='mmcmcd.SpecAugment', freq_mask=8, time_mask=8),
]


def test_the_seed_decides_and_inputs_stay_as_they_are():
    pipeline = [TRANSFORMS.build(cfg) for cfg in RANDOM]
    original = sound(noise().T)
    outcomes = []
    for seed in (RNG_STATE, RNG_STATE, RNG_STATE + 1):
        np.random.seed(seed)
        results = dict(original)
        for transform in pipeline:
            results = transform(results)
        outcomes.append(results['img'])
    assert torch.equal(outcomes[0], outcomes[1])
    assert not torch.equal(outcomes[0], outcomes[2])
    assert torch.equal(original['img'], sound(noise().T)['img'])
    assert all(type(t).__name__ in repr(t) for t in pipeline)
