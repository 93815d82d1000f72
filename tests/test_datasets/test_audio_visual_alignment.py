"""The source and the target of a pair are of one moment.

From clips on disk to what the networks get: every clip says the time by its
brightness and by its pitch.
"""

import numpy as np
import pytest
from chirp_clips import FPS, time_by_brightness, time_by_pitch, write_clip
from mmengine.registry import DATASETS

import mmcmcd.registry  # noqa: F401
from mmcmcd.datasets.converters import ClipSettings, convert_vggsound

pytest.importorskip('soundfile')
RATE = 8000
DURATION = 4.0
NUM_FRAMES = 8
SPACING = DURATION / NUM_FRAMES
CROP = 1.0


@pytest.fixture(scope='module', params=['wav', 'flac'])
def root(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    starts = dict(abc_000000=dict(), def_000000=dict(audio_start=0.5))
    for name, start in starts.items():
        write_clip(folder / f'clips/{name}.mp4', DURATION, **start)
    (folder / 'vggsound.csv').write_text('abc,0,a,train\ndef,0,b,train\n')
    settings = ClipSettings(NUM_FRAMES, 32, RATE, request.param)
    convert_vggsound(
        folder / 'clips', folder / 'vggsound.csv', folder / 'out', settings
    )
    return folder / 'out'


def build(root, *temporal):
    load = dict(source='LoadImageStrict', target='LoadAudio')
    options = dict(source={}, target=dict(sampling_rate=RATE))
    return DATASETS.build(
        dict(
            type='mmcmcd.VGGSound',
            data_root=str(root),
            pipeline=[
                *temporal,
                *(
                    dict(
                        type='mmcmcd.OnSide',
                        sides=side,
                        transforms=[
                            dict(type=f'mmcmcd.{name}', **options[side])
                        ],
                    )
                    for side, name in load.items()
                ),
                dict(type='mmcmcd.PackPairedInputs'),
            ],
        )
    )


def times(dataset, index):
    """What the picture and the middle of the sound say, in seconds."""
    inputs = dataset[index]['inputs']
    wave = inputs['target'].numpy()[0]
    return (
        time_by_brightness(inputs['source'].numpy()),
        time_by_pitch(wave, RATE),
        len(wave) / RATE,
    )


def test_many_draws(root):
    np.random.seed(0)
    dataset = build(
        root, dict(type='mmcmcd.SharedTemporalCrop', duration=CROP)
    )
    drawn = np.array([times(dataset, i % 2) for i in range(80)])
    seen, heard, lengths = drawn.T
    assert lengths == pytest.approx(CROP)
    # The frame is the nearest one, and up to one picture of the video old.
    assert np.abs(seen - heard).max() < SPACING / 2 + 1 / FPS + 0.03
    # The draws cover the clip, up to half a segment at its ends.
    assert heard.min() < 0.8 and heard.max() > DURATION - 0.8
    assert len(np.unique(heard.round(2))) > 40


def test_middle_is_not_drawn(root):
    crop = dict(type='mmcmcd.SharedTemporalCrop', duration=CROP, random=False)
    first, second = (times(build(root, crop), 0) for _ in range(2))
    assert first == second
    assert first[1] == pytest.approx(DURATION / 2, abs=0.03)


def test_whole_clip(root):
    """Without a crop of time the middle frame comes with all the sound."""
    seen, heard, length = times(build(root), 1)
    assert length == pytest.approx(DURATION - 0.5, abs=0.08)
    assert heard == pytest.approx(0.5 + length / 2, abs=0.1)
    assert seen == pytest.approx(heard, abs=SPACING)
