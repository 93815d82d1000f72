"""Audit of sides that are no images: arrays and audio."""

import json
import os
import sys

import cv2
import numpy as np
import pytest
import torch

from mmcmcd.datasets import PairedModalityDataset
from mmcmcd.datasets.file_facts import file_facts
from mmcmcd.datasets.pair_audit import audit_pairs
from mmcmcd.datasets.transforms import (
    LoadArray,
    LoadAudio,
    OnSide,
    SelectSide,
)
from mmcmcd.errors import ConfigError

soundfile = pytest.importorskip('soundfile')
RATE = 8000
LENGTHS = (4000, 8000, 8000, 12000)


class LoadAsIs:
    """A loader of somebody else, who does not look for NaN."""

    def __call__(self, item):
        array = torch.from_numpy(np.load(item['img_path']).T.copy())
        return {**item, 'img': array, 'rate': 50.0}


def load(side, *transforms):
    return OnSide(side, transforms)


def tone(length, peak=0.5):
    return np.float32(peak) * np.sin(np.arange(length) / 9, dtype='f')


def write_sound(root, name, samples, rate=RATE, **kwargs):
    soundfile.write(root / f'audio/{name}.wav', samples, rate, **kwargs)


def write_arrays(root, **changed):
    """Six channels; array i has 10 + i samples of value i."""
    arrays = {
        f'a{i}': np.full((10 + i, 6), i, np.float32)
        for i in range(len(LENGTHS))
    }
    np.savez(root / 'inertial.npz', **{**arrays, **changed})


@pytest.fixture
def root(tmp_path):
    (tmp_path / 'audio').mkdir()
    write_arrays(tmp_path)
    for i, length in enumerate(LENGTHS):
        write_sound(tmp_path, f'a{i}', tone(length))
    return tmp_path


def dataset(root, *pipeline, **sides):
    sides = sides or dict(
        source=dict(folder='inertial.npz', suffix=''),
        target=dict(folder='audio', suffix='.wav'),
    )
    return dict(
        type=PairedModalityDataset,
        data_root=str(root),
        sides=sides,
        pipeline=pipeline
        or [load('source', LoadArray()), load('target', LoadAudio(RATE))],
    )


@pytest.mark.parametrize('num_workers', [1, 2])
def test_clean(root, num_workers):
    report = audit_pairs(dataset(root), num_workers=num_workers)
    assert report.clean and not report.notes
    assert report.pairs == report.decoded == 4
    array, sound = report.sides['source'], report.sides['target']
    assert (array.kind, sound.kind) == ('array', 'audio')
    assert array.shapes == {'6 x T': 4} and array.stored == {'float32': 4}
    assert (array.minimum, array.mean, array.maximum) == (0, 1.5, 3)
    assert array.lengths == dict(
        minimum=10, mean=11.5, maximum=13, different=4, unit='samples'
    )
    assert sound.lengths == dict(
        minimum=0.5, mean=1.0, maximum=1.5, different=3, unit='s'
    )
    assert sound.rates == {'8000': 4} and sound.shapes == {'1 x T': 4}
    assert sound.stored == {'WAV PCM_16': 4}
    assert sound.maximum == pytest.approx(0.5, abs=0.01)
    text = report.format()
    assert '10 / 11.5 / 13 samples (4 different)' in text
    assert '0.5 / 1 / 1.5 s (3 different)' in text
    assert 'width x height' not in text
    assert json.loads(json.dumps(report.to_dict()))['clean'] is True


def test_faults_carry_the_file(root):
    broken = np.zeros((9, 6), np.float32)
    broken[3, 2] = np.nan
    write_arrays(root, a1=broken, a2=np.zeros((9, 5), np.float32))
    write_sound(root, 'a0', np.zeros(4000, np.float32))
    path = root / 'audio/a3.wav'
    path.write_bytes(b'RIFF')
    report = audit_pairs(dataset(root))
    archive = root / 'inertial.npz'
    assert report.faults['source not of 6 channels like most'] == [
        f'a2: 5: {archive}/a2'
    ]
    (nan,) = report.faults['unreadable source file']
    assert f'{archive}/a1' in nan and 'NaN' in nan
    silent, damaged = report.faults['unreadable target file']
    assert 'Silent' in silent and 'a0.wav' in silent
    assert 'a3.wav' in damaged
    assert len(report.faults) == 3 and report.decoded == 1
    assert report.sides['source'].shapes == {'6 x T': 2, '5 x T': 1}


def test_values_that_a_loader_let_pass(root):
    (root / 'npy').mkdir()
    for i in range(4):
        np.save(root / f'npy/a{i}.npy', np.full((50, 3), i, np.float32))
    wrong = np.ones((50, 3), np.float32)
    wrong[:2] = np.inf
    np.save(root / 'npy/a2.npy', wrong)
    report = audit_pairs(
        dataset(
            root,
            load('source', LoadAsIs()),
            load('target', LoadAudio(RATE)),
            source=dict(folder='npy', suffix='.npy'),
            target=dict(folder='audio', suffix='.wav'),
        )
    )
    assert report.faults == {
        'values of source that are not finite': [
            f'a2: {root}/npy/a2.npy: 6 of them'
        ]
    }
    side = report.sides['source']
    assert side.maximum == 3 and side.rates == {'50': 4}
    assert side.lengths['maximum'] == 1.0 and side.lengths['unit'] == 's'


def test_clipped_and_quiet_sounds_are_notes(root):
    loud = np.clip(tone(8000, 3), -1, 1)
    write_sound(root, 'a1', loud)
    write_sound(root, 'a2', tone(8000, 1e-5), subtype='FLOAT')
    # Touches full scale, does not stay there.
    once = tone(12000)
    once[[5, 700]] = 1, -1
    write_sound(root, 'a3', once)
    keep = LoadAudio(RATE, on_silent='keep')
    report = audit_pairs(
        dataset(root, load('source', LoadArray()), load('target', keep))
    )
    assert report.clean
    assert report.notes == {
        'clipped target': [f'a1: {root}/audio/a1.wav'],
        'silent target': [f'a2: {root}/audio/a2.wav'],
    }


@pytest.mark.parametrize('subtype', ['PCM_U8', 'PCM_16', 'FLOAT'])
@pytest.mark.parametrize('sign', [-1, 1])
@pytest.mark.parametrize('place', [0, 50, 97])
def test_clipping(tmp_path, subtype, sign, place):
    (tmp_path / 'audio').mkdir()
    samples = np.zeros((100, 2))
    item = dict(img_path=str(tmp_path / 'audio/a.wav'))
    for length, level, clipped in ((2, 1, 0), (3, 0.9, 0), (3, 1, 1)):
        samples[place : place + length, 1] = sign * level
        write_sound(tmp_path, 'a', samples, subtype=subtype)
        facts = file_facts([LoadAudio(RATE)], dict(item))
        assert facts.clipped == clipped
    assert facts.channels == 2 and facts.length == 100


class Listed(PairedModalityDataset):
    """Says how long every sound lasts."""

    def to_item(self, pair):
        item = super().to_item(pair)
        item['target']['duration'] = 1.02
        return item


def test_durations_of_a_list(root):
    report = audit_pairs({**dataset(root), 'type': Listed})
    assert report.clean
    assert report.notes == {
        'duration of sound differs from the list': [
            f'a0: {root}/audio/a0.wav: 0.50 s, listed 1.02 s',
            f'a3: {root}/audio/a3.wav: 1.50 s, listed 1.02 s',
        ]
    }


def test_sounds_of_many_kinds(root):
    write_sound(root, 'a0', np.stack([tone(800)] * 2, axis=1), 16000)
    write_sound(root, 'a1', tone(8000), subtype='PCM_24')
    report = audit_pairs(dataset(root))
    side = report.sides['target']
    assert side.rates == {'16000': 1, '8000': 3}
    assert side.shapes == {'2 x T': 1, '1 x T': 3}
    assert side.stored == {'WAV PCM_16': 3, 'WAV PCM_24': 1}
    assert side.lengths['minimum'] == 0.05 and report.clean


def test_a_side_that_nothing_loads_is_not_read(root):
    report = audit_pairs(dataset(root, load('source', LoadArray())))
    assert report.clean and report.sides['target'].files == 0
    (kind,) = report.notes
    assert kind.startswith('target not read') and len(report.notes[kind]) == 4
    report = audit_pairs(dataset(root, SelectSide('target'), LoadAudio(RATE)))
    assert report.sides['target'].files == 4 and report.clean
    text = report.format()
    assert 'width x height' in text and 'per second' in text


def test_images_beside_arrays_keep_their_sizes(root):
    (root / 'rgb').mkdir()
    for i in range(4):
        image = np.full((8, 10 + i, 3), 200, np.uint8)
        cv2.imwrite(str(root / f'rgb/a{i}.png'), image)
    sides = dict(
        source=dict(folder='rgb', suffix='.png'),
        target=dict(folder='inertial.npz', suffix=''),
    )
    cfg = dataset(root, load('target', LoadArray()), **sides)
    report = audit_pairs(cfg)
    assert report.clean and not report.notes
    assert report.sides['source'].sizes['13x8'] == 1
    assert report.sides['target'].sizes == {}


class Frames(PairedModalityDataset):
    """Several frames of every clip, all of which may be chosen."""

    def to_item(self, pair):
        item = super().to_item(pair)
        path = item['source']['img_path']
        item['source']['frames'] = [path, path.replace('.png', '_1.png')]
        return item


def test_all_frames_are_read(root):
    (root / 'rgb').mkdir()
    image = np.full((8, 12, 3), 200, np.uint8)
    for i in range(4):
        cv2.imwrite(str(root / f'rgb/a{i}.png'), image)
        cv2.imwrite(str(root / f'rgb/a{i}_1.png'), image)
    (root / 'rgb/a2_1.png').unlink()
    (root / 'list.txt').write_text('a0\na1\na2\na3')
    sides = dict(
        source=dict(folder='rgb', suffix='.png'),
        target=dict(folder='audio', suffix='.wav'),
    )
    cfg = dataset(root, load('target', LoadAudio(RATE)), **sides)
    cfg.update(type=Frames, ann_file=str(root / 'list.txt'))
    report = audit_pairs(cfg)
    assert report.sides['source'].files == 7 and report.decoded == 3
    (fault,) = report.faults['unreadable source file']
    assert fault.startswith('a2') and 'a2_1.png' in fault


def test_a_pipeline_without_a_loader(root):
    pipeline = [load('source', lambda item: item)]
    with pytest.raises(ConfigError, match='No transform of the pipeline'):
        audit_pairs(dataset(root, *pipeline))


def test_soundfile_is_missing(root, monkeypatch):
    cfg = dataset(root)
    monkeypatch.setitem(sys.modules, 'soundfile', None)
    with pytest.raises(ConfigError, match=r"pip install 'mmcmcd\[audio\]'"):
        audit_pairs(cfg)


REALDATA = os.environ.get('MMCMCD_REALDATA')


@pytest.mark.skipif(not REALDATA, reason='MMCMCD_REALDATA is not set')
def test_real_actions():
    from mmcmcd.datasets import UTDMHAD

    report = audit_pairs(
        UTDMHAD(
            subjects=(7,),
            sides=('skeleton', 'inertial', 'depth'),
            data_root=f'{REALDATA}/utd_mhad',
            pipeline=[
                load('skeleton', LoadArray('TVC', expected_channels=60)),
                load('inertial', LoadArray('TC', rate=50.0)),
                load('depth', LoadArray('THW')),
            ],
        )
    )
    assert report.clean and report.decoded == report.pairs > 100
    sides = report.sides
    assert sides['skeleton'].shapes == {'60 x T': report.pairs}
    assert sides['depth'].shapes == {'1 x T x 60 x 80': report.pairs}
    assert sides['depth'].stored == {'uint16': report.pairs}
    assert sides['inertial'].lengths['unit'] == 's'
