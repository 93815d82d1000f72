"""Headers of sound files that claim too much."""

import struct
import tracemalloc

import numpy as np
import pytest

from mmcmcd.datasets.transforms import LoadAudio
from mmcmcd.datasets.transforms.sound_files import open_sound, read_samples
from mmcmcd.errors import UnreadableFileError

soundfile = pytest.importorskip('soundfile')

RATE = 16000


def write(path, channels=1, **kwargs):
    tone = 0.5 * np.sin(np.arange(4000) / 9)
    soundfile.write(path, np.stack([tone] * channels, 1), RATE, **kwargs)
    return bytearray(path.read_bytes())


def claim_wav(content):
    place = content.index(b'data')
    struct.pack_into('<I', content, place + 4, 0x7F000000)


def claim_riff(content):
    struct.pack_into('<I', content, 4, 0x7FFFFFF0)
    claim_wav(content)


def claim_flac(content):
    # 36 bits of STREAMINFO count the samples.
    content[21] |= 0x0F
    content[22:26] = b'\xff' * 4


def claim_aiff(content):
    place = content.index(b'COMM')
    struct.pack_into('>I', content, place + 10, 0x7FFFFFFF)
    place = content.index(b'SSND')
    struct.pack_into('>I', content, place + 4, 0x7FFFFF00)


@pytest.mark.parametrize(
    'suffix, claim, refused',
    [
        ('wav', claim_wav, True),
        ('wav', claim_riff, True),
        ('flac', claim_flac, True),
        # libsndfile counts what is there.
        ('aiff', claim_aiff, False),
    ],
)
@pytest.mark.parametrize('segment', [None, (0.0, 3600.0)])
def test_gigabytes_are_not_believed(tmp_path, suffix, claim, refused, segment):
    path = tmp_path / f'a.{suffix}'
    content = write(path)
    claim(content)
    path.write_bytes(content)
    item = dict(img_path=str(path))
    if segment:
        item['segment'] = segment
    tracemalloc.start()
    try:
        if refused or segment:
            with pytest.raises(UnreadableFileError, match='a\\.'):
                LoadAudio(RATE)(item)
        else:
            assert LoadAudio(RATE)(item)['img'].shape == (1, 4000)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 64 * 2**20


@pytest.mark.parametrize('rate', [1, 50, 2**31 - 1])
def test_rate_that_no_sound_has(tmp_path, rate):
    path = tmp_path / 'a.wav'
    content = write(path)
    struct.pack_into('<II', content, 24, rate, 2 * rate % 2**32)
    path.write_bytes(content)
    with pytest.raises(UnreadableFileError, match=f'says {rate} Hz.*times'):
        LoadAudio(RATE)(dict(img_path=str(path)))


def test_blocks_are_the_whole(tmp_path, monkeypatch):
    path = tmp_path / 'a.flac'
    write(path, channels=3)
    expected = soundfile.read(path, dtype='float32')[0].T
    module = 'mmcmcd.datasets.transforms.sound_files'
    for size in (1, 2, 3000, 2**22):
        monkeypatch.setattr(f'{module}._BLOCK', size)
        with open_sound(str(path)) as file:
            part = read_samples(file, str(path), 1000, 1500)
            np.testing.assert_array_equal(part, expected[:, 1000:1500])
            if size > 3:
                got = read_samples(file, str(path))
                np.testing.assert_array_equal(got, expected)


def test_memory_that_is_not_there(tmp_path, monkeypatch):
    path = tmp_path / 'a.wav'
    write(path)

    def fail(*_, **__):
        raise MemoryError

    monkeypatch.setattr(soundfile.SoundFile, 'read', fail)
    with pytest.raises(UnreadableFileError, match='fit into memory'):
        LoadAudio(RATE)(dict(img_path=str(path)))
