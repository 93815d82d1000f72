import warnings

import matplotlib
import numpy as np
import pytest
import torch

from mmcmcd.analysis import array_picture as module
from mmcmcd.analysis.array_picture import array_picture, spectrum_picture
from mmcmcd.analysis.image_picture import colour_depth, image_picture

CYCLE = matplotlib.rcParams['axes.prop_cycle'].by_key()['color']


@pytest.fixture
def inside(monkeypatch):
    """Function that cuts the inside of an axis out of the last picture."""
    figures = []

    class Figure(module.Figure):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            figures.append(self)

    monkeypatch.setattr(module, 'Figure', Figure)

    def cut(picture, number=0):
        box = figures[-1].axes[number].get_window_extent()
        top, bottom = len(picture) - box.y1, len(picture) - box.y0
        return picture[
            round(top) + 2 : round(bottom) - 1,
            round(box.x0) + 2 : round(box.x1) - 1,
        ]

    return cut


def ink(picture, colour, tolerance=30):
    """Rows and columns of the pixels of one colour."""
    wanted = np.array(matplotlib.colors.to_rgb(colour))[::-1] * 255
    away = np.abs(picture.astype(float) - wanted).max(axis=-1)
    return np.nonzero(away < tolerance)


def blue(picture):
    """Rows and columns of the pixels that are bluer than red."""
    return np.nonzero(picture[..., 0].astype(int) - picture[..., 2] > 30)


def test_waveform_keeps_single_peaks(inside):
    """One sample of 160000 is seen, at its place and on its side."""
    sound = torch.full((1, 160000), 0.01)
    sound[0, 120000] = 0.8
    sound[0, 40000] = -0.4
    picture = array_picture(sound, 'audio', 16000.0, height=240)
    assert picture.shape == (240, 360, 3) and picture.dtype == np.uint8
    part = inside(picture)
    rows, columns = blue(part)
    height, width = part.shape[:2]
    # The axis ends 5 % above the greatest value.
    assert rows.min() == pytest.approx(height * 0.05 / 2.1, abs=5)
    assert rows.max() == pytest.approx(height * 1.55 / 2.1, abs=5)
    places = [columns[rows.argmax()], columns[rows.argmin()]]
    np.testing.assert_allclose(places, [width / 4, width * 0.75], atol=3)


def test_channels_of_a_waveform_are_below_each_other(inside):
    sound = torch.zeros(2, 1000)
    sound[1] = torch.linspace(-1, 1, 1000)
    picture = array_picture(sound, 'audio', height=240)
    flat, ramp = (blue(inside(picture, i))[0] for i in (0, 1))
    assert np.ptp(flat) < 4
    assert np.ptp(ramp) > 60


@pytest.mark.parametrize('band', [0, 10, 39])
def test_low_bands_of_a_spectrogram_are_below(inside, band):
    mel = torch.full((1, 40, 60), -80.0)
    mel[0, band] = 0.0
    part = inside(array_picture(mel, 'spectrogram', 100.0))
    bright = part.mean(axis=(1, 2)) > 100
    place = np.flatnonzero(bright[::-1]).mean() / len(part)
    assert place == pytest.approx((band + 0.5) / 40, abs=0.02)
    assert bright.mean() < 0.05


def test_series_have_a_line_a_channel_each_on_its_own_scale(inside):
    time = torch.linspace(0, 6.28, 100)
    scales = torch.tensor([1e-3, 1.0, 100.0])
    part = inside(array_picture(torch.sin(time) * scales[:, None], rate=50.0))
    spans = []
    for number in range(3):
        rows, columns = ink(part, CYCLE[number], 60)
        spans.append((rows.min(), rows.max()))
        # A sine: first above, then below.
        assert rows[columns < part.shape[1] / 2].mean() < rows.mean()
    heights = [high - low for low, high in spans]
    assert max(heights) - min(heights) <= 3
    assert spans[0][1] < spans[1][0] and spans[1][1] < spans[2][0]


def test_many_channels_are_colours_about_their_medians(inside):
    series = torch.arange(60.0)[:, None].repeat(1, 30)
    still = inside(array_picture(series))
    assert (still == still[0, 0]).all()
    series[50, 20:] += 1
    series[10, 20:] -= 1
    part = inside(array_picture(series)).astype(int)
    height, width = part.shape[:2]
    red = np.nonzero(part[..., 2] - part[..., 0] > 60)
    blue = np.nonzero(part[..., 0] - part[..., 2] > 60)
    assert red[0].mean() / height == pytest.approx(50.5 / 60, abs=0.02)
    assert blue[0].mean() / height == pytest.approx(10.5 / 60, abs=0.02)
    assert red[1].min() / width == pytest.approx(2 / 3, abs=0.02)


def test_clips_show_frames_in_order_on_one_scale():
    depth = torch.zeros(1, 12, 30, 40)
    for number in range(12):
        depth[0, number, :, :20] = 1 + number
    picture = array_picture(depth, 'clip', 6.0, height=240)
    # Two lines of four frames, enlarged four times, and their times.
    assert picture.shape == (2 * (4 * 30 + 12), 4 * 4 * 40, 3)
    chosen = [0, 2, 3, 5, 6, 8, 9, 11]
    reference = colour_depth(depth[0, chosen].numpy().reshape(-1, 40))
    for place, row in enumerate(reference[::30]):
        top = 132 * (place // 4) + 12
        frame = picture[top : top + 120, 160 * (place % 4) :][:, :160]
        assert (frame[:, :80] == row[0]).all()
        assert (frame[:, 80:] == 0).all()


def test_colour_clips_and_large_ones():
    clip = torch.zeros(3, 2, 300, 400)
    clip[0] = 1  # blue in BGR, red in RGB
    for order, place in (('BGR', 0), ('RGB', 2)):
        picture = array_picture(clip, height=150, channel_order=order)
        assert picture.shape == (150 + 12, 2 * 200, 3)
        colour = np.zeros(3)
        colour[place] = 255
        assert (picture[20:] == colour).all()
    flow = array_picture(torch.rand(2, 3, 20, 20), height=80)
    assert flow.shape == (2 * (2 * 20 + 12), 3 * 2 * 20, 3)


def test_profiles_are_maps(inside):
    radar = torch.zeros(2, 50, 16)
    radar[0, :, 12:] = 5
    radar[1, 25:] = 5
    picture = array_picture(radar, 'series', 10.0, height=300)
    # S runs downwards, time to the right.
    first, second = (inside(picture, i).mean(axis=-1) > 100 for i in (0, 1))
    assert first.mean() == pytest.approx(0.25, abs=0.03)
    assert first[-1].all() and not first[0].any()
    assert second.mean() == pytest.approx(0.5, abs=0.03)
    assert second[:, -1].all() and not second[:, 0].any()


def test_spectrum_shows_the_pitch(inside):
    time = torch.arange(16000) / 8000
    tone = torch.sin(2 * torch.pi * 3000 * time)[None]
    part = inside(spectrum_picture(tone, 8000.0))
    bright = part.mean(axis=(1, 2))[::-1].argmax() / len(part)
    assert bright == pytest.approx(3000 / 4000, abs=0.02)
    silent = inside(spectrum_picture(torch.zeros(1, 8000), 8000.0))
    assert silent.max() < 10


ODD = [
    ('audio', (1, 1)),
    ('audio', (2, 3000)),
    ('series', (6, 1)),
    ('series', (6, 50)),
    ('series', (60, 50)),
    ('series', (3, 4, 5)),
    ('spectrogram', (1, 20, 30)),
    ('spectrogram', (2, 1, 1)),
    ('clip', (1, 3, 8, 9)),
    ('clip', (3, 3, 8, 9)),
    (None, (1, 2, 3, 4, 5)),
]


@pytest.mark.parametrize('modality, shape', ODD)
@pytest.mark.parametrize('value', [7.0, np.nan, None])
def test_anything_is_drawn_without_a_warning(modality, shape, value):
    array = torch.zeros(shape)
    if value is None:
        array[:] = torch.rand(shape)
        array.view(-1)[0] = np.nan
        array.view(-1)[-1] = -np.inf
    else:
        array[:] = value
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        picture = array_picture(array, modality, 25.0, height=160)
        if modality == 'audio':
            assert spectrum_picture(array, 25.0).dtype == np.uint8
    assert picture.dtype == np.uint8 and picture.shape[2] == 3


def test_colour_depth():
    depth = np.array([[0, 1, 2, 3, np.nan, np.inf]], np.float32)
    colours = colour_depth(depth, 0, 100).astype(int)
    assert not colours[0, [0, 4, 5]].any()
    assert colours[0, 1, 2] > colours[0, 1, 0]
    assert colours[0, 3, 2] < colours[0, 3, 0]
    assert not colour_depth(np.zeros((2, 2), np.float32)).any()
    assert colour_depth(np.full((2, 2), 3.0)).any()


def test_images_without_a_scale_are_stretched():
    img = np.array([[[-1.0, 0, 1], [np.nan, np.inf, 0]]], np.float32)
    picture = image_picture(img)
    assert picture[0, 0].tolist() == [0, 127, 255]
    assert picture[0, 1].tolist() == [0, 255, 127]
    assert image_picture(img[..., :1]).shape == (1, 2, 3)
