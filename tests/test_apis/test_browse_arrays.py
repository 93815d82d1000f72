"""Pictures of pairs of which at least one side is no image."""

import importlib.util
import os
import sys
import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmcv.transforms import Compose

from mmcmcd.apis import run_tool
from mmcmcd.apis.browse import (
    SideView,
    as_picture,
    browse_dataset,
    draw_stages,
    trace_pipeline,
)
from mmcmcd.datasets.transforms import (
    LoadAudio,
    OnSide,
    SharedTemporalCrop,
)
from mmcmcd.errors import ConfigError

REPO = Path(__file__).resolve().parents[2]
IMAGE = np.random.default_rng(0).integers(0, 256, (60, 220, 3), np.uint8)


class Load:
    """Stands for a loader: what it was told is what the side holds."""

    def __init__(self, img, **item):
        self.new = dict(img=img, **item)

    def __call__(self, item):
        return {**item, **self.new}


class Change:
    def __init__(self, change, **item):
        self.change = change
        self.new = item

    def __call__(self, item):
        return {**item, 'img': self.change(item['img']), **self.new}


class Pairs:
    """As much of a data set as browsing needs."""

    metainfo = {}

    def __init__(self, sides, *steps, length=2):
        self.sides = sides
        self.pipeline = Compose(steps)
        self.length = length

    def __len__(self):
        return self.length

    def get_data_info(self, index):
        items = {name: dict(item) for name, item in self.sides.items()}
        return dict(pair_id=f'a{index}', sides=tuple(items), **items)


def sound_pairs(**target):
    sound = torch.randn(1, 8000) / 10
    return Pairs(
        dict(source={}, target=target),
        OnSide('source', [Load(IMAGE)]),
        OnSide(
            'target',
            [
                Load(sound, modality='audio', rate=4000.0),
                Change(lambda x: x * 0.5),
                Change(
                    lambda x: x.view(1, 80, 100),
                    modality='spectrogram',
                    rate=50.0,
                ),
            ],
        ),
    )


@pytest.fixture
def captions(monkeypatch):
    """All texts of the pictures drawn from now on."""
    texts = []
    put = cv2.putText

    def note(picture, text, *args):
        texts.append(text)
        return put(picture, text, *args)

    monkeypatch.setattr(cv2, 'putText', note)
    return texts


def test_every_transform_of_a_side_is_a_stage(captions):
    name, stages = trace_pipeline(sound_pairs(), 0)
    assert name == 'a0'
    assert [stage['name'] for stage in stages] == [
        'Load of target',
        'Change of target',
        'Change of target',
    ]
    kinds = [stage['sides']['target'].modality for stage in stages]
    assert kinds == ['audio', 'audio', 'spectrogram']
    picture = draw_stages(stages, caption=name)
    # An image, the waveform, its spectrum; below the spectrogram alone.
    assert picture.shape[1] == 220 + 2 * 360 + 3 * 4
    assert captions.count('spectrum of target') == 2
    assert 'a0  Load of target' in captions
    assert 'source 220x60' in captions
    label = next(t for t in captions if t.startswith('target 1x8000, 4000 Hz'))
    low, high = (float(x) for x in label.split(', ')[-1].split(' to '))
    assert low < -0.2 and high > 0.2
    assert any(t.startswith('target 1x80x100, 50 Hz, ') for t in captions)


def test_stages_are_not_changed_by_later_transforms():
    pairs = Pairs(
        dict(source={}, target={}),
        OnSide(('source', 'target'), [Load(torch.zeros(2, 5))]),
        OnSide('target', [Change(lambda x: x.add_(1))]),
    )
    _, stages = trace_pipeline(pairs, 0)
    assert not stages[0]['sides']['target'].img.any()


def test_the_moment_of_a_segment_and_of_a_frame(tmp_path, captions):
    """The loader forgets the segment; the picture still tells it."""
    soundfile = pytest.importorskip('soundfile')
    soundfile.write(tmp_path / 'a.wav', np.tile([0.5, -0.5], 40), 10)
    crop = SharedTemporalCrop(duration=2.0, random=False)
    pairs = Pairs(
        dict(
            source=dict(
                img_path='a', frames=['a', 'b'], frame_times=[1.0, 4.5]
            ),
            target=dict(img_path=str(tmp_path / 'a.wav'), duration=8.0),
        ),
        crop,
        OnSide('source', [Load(IMAGE)]),
        OnSide('target', [LoadAudio(10)]),
        OnSide('target', [Change(lambda x: -x)]),
    )
    _, stages = trace_pipeline(pairs, 0)
    draw_stages(stages)
    (source,) = {t for t in captions if t.startswith('source ')}
    (target,) = {t for t in captions if t.startswith('target ')}
    frame = stages[0]['sides']['source'].start
    start = stages[0]['sides']['target'].start
    assert frame in (1.0, 4.5) and abs(frame - (start + 1)) <= 1.75
    assert source == f'source 220x60, at {frame:.2f} s'
    assert target == f'target 1x20, 10 Hz, from {start:.2f} s, -0.5 to 0.5'


def test_no_image_at_all_and_three_sides(tmp_path, captions):
    pairs = Pairs(
        dict(skeleton={}, inertial={}, depth={}),
        OnSide('skeleton', [Load(torch.randn(60, 30), modality='series')]),
        OnSide('inertial', [Load(torch.randn(6, 90), modality='series')]),
        OnSide('depth', [Load(torch.rand(1, 4, 60, 80), modality='clip')]),
    )
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        files = browse_dataset(pairs, str(tmp_path))
    assert [os.path.basename(file) for file in files] == [
        'a0.png',
        'a1.png',
        'contact_sheet.png',
    ]
    assert sum(t.startswith('skeleton 60x30, ') for t in captions) == 2
    assert not any('of' in t.split()[:2] for t in captions)  # no overlay
    picture = cv2.imread(files[0])
    assert picture.shape[1] == 2 * 360 + 4 * 80 * 4 + 3 * 4


def test_arrays_are_as_high_as_the_image():
    image = np.zeros((300, 400, 3), np.uint8)
    view = SideView(torch.randn(6, 50), 'series', 50.0)
    stage = dict(name='x', seg_map=None, aligned=True)
    pair = dict(source=SideView(image), target=view)
    picture = draw_stages([dict(stage, sides=pair)])
    assert picture.shape == (18 + 18 + 300 + 4, 400 + 450 + 8, 3)
    huge = dict(
        source=SideView(np.zeros((2000, 400, 3), np.uint8)), target=view
    )
    picture = draw_stages([dict(stage, sides=huge)])
    assert picture.shape[1] == 400 + 720 + 8


def test_views_of_an_array():
    pairs = Pairs(
        dict(source={}, target={}),
        OnSide(
            ('source', 'target'),
            [
                Load(torch.zeros(3, 20), modality='series'),
                Change(lambda x: [x, x + 1]),
            ],
        ),
    )
    _, stages = trace_pipeline(pairs, 0)
    last = stages[-1]
    assert list(last['sides']) == [
        'source 0',
        'source 1',
        'target 0',
        'target 1',
    ]
    assert not last['aligned'] and last['sides']['source 1'].img.min() == 1
    assert draw_stages([last]).shape[1] == 4 * (360 + 4)


def test_values_that_are_not_finite_are_counted(captions):
    array = torch.zeros(2, 10)
    array[0, :3] = float('nan')
    array[1, 0] = float('inf')
    stage = dict(
        name='x',
        sides=dict(input=SideView(array)),
        seg_map=None,
        aligned=True,
    )
    draw_stages([stage])
    assert 'input 2x10, 0 to 0, 4 not finite' in captions


def test_images_may_be_tensors():
    tensor = torch.from_numpy(IMAGE).permute(2, 0, 1)
    np.testing.assert_array_equal(as_picture(SideView(tensor)), IMAGE)


def test_mode_original_is_before_the_first_change(tmp_path, captions):
    browse_dataset(sound_pairs(), str(tmp_path), mode='original')
    assert 'a0  Load of target' in captions
    assert not any('Change' in text for text in captions)


def test_nothing_is_loaded():
    with pytest.raises(ConfigError, match='loads no image or array'):
        trace_pipeline(Pairs(dict(source={}, target={})), 0)


REALDATA = os.environ.get('MMCMCD_REALDATA')


def run(monkeypatch, tool, *args):
    """Exit status of a tool, run in this process."""
    path = REPO / f'tools/misc/{tool}'
    spec = importlib.util.spec_from_file_location('misc_tool', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(sys, 'argv', [tool, *map(str, args)])
    with pytest.raises(SystemExit) as end:
        run_tool(module.main)
    return end.value.code or 0


@pytest.mark.skipif(not REALDATA, reason='MMCMCD_REALDATA is not set')
@pytest.mark.parametrize(
    'config', ['cmcd/inertial_utdmhad', 'cmcd/depthvideo_utdmhad']
)
def test_real_arrays(config, monkeypatch, tmp_path, captions):
    args = [REPO / f'configs/{config}.py', '-o', tmp_path, '-n', 2, '-m']
    assert run(monkeypatch, 'browse_dataset.py', *args, 'concat') == 0
    assert len(list(tmp_path.iterdir())) == 3
    shapes = {t.split(',')[0] for t in captions if t.startswith('source ')}
    assert 'source 60x48' in shapes  # as loaded: a01_s1_t1
