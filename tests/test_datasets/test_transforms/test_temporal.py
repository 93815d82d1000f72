"""Time is kept together: every value here tells the second it was taken."""

import numpy as np
import pytest
import torch

from mmcmcd.datasets.transforms import (
    CenterTimeCrop,
    OnSide,
    RandomTimeCrop,
    SharedTemporalCrop,
)
from mmcmcd.errors import ConfigError, UnreadableFileError

LENGTH = 10.0  # seconds


def clock(rate, length=LENGTH, channels=2, space=()):
    """A side whose samples are their own times in seconds."""
    times = torch.arange(round(rate * length)) / rate
    shape = (1, -1, *[1] * len(space))
    img = times.reshape(shape).repeat(channels, 1, *space)
    return dict(img=img, img_path='x', rate=float(rate))


def frames(times, **extra):
    """Frames whose names are their times."""
    paths = [f'{time:.3f}' for time in times]
    return dict(
        img_path=paths[0], frames=paths, frame_times=list(times), **extra
    )


def pair(**sides):
    return dict(pair_id='p7', sides=tuple(sides), **sides)


def moment(item):
    """First second and length of what is left of a side."""
    if 'segment' in item:
        return item['segment']
    if 'frames' in item:
        return float(item['img_path']), 0.0
    times = (
        item['img'][0].flatten(1)[:, 0]
        if item['img'].ndim > 2
        else (item['img'][0])
    )
    return times[0].item(), len(times) / item['rate']


def middles(results):
    found = {}
    for side in results['sides']:
        start, length = moment(results[side])
        found[side] = start + length / 2
    return found


def spread(results):
    """How far apart the sides are, in seconds."""
    found = middles(results).values()
    return max(found) - min(found)


# -------------------------------------------------- one draw for all sides


def two_sides():
    return pair(skeleton=clock(30), inertial=clock(50))


def three_sides():
    return pair(
        skeleton=clock(30),
        inertial=clock(50),
        depth=clock(25, channels=1, space=(2, 3)),
    )


def frames_and_sound():
    return pair(
        source=frames(np.arange(0.25, LENGTH, 0.5)),
        target=dict(img_path='x.wav', duration=LENGTH),
    )


def frames_and_series():
    return pair(
        source=frames(np.arange(0.25, LENGTH, 0.5), duration=LENGTH),
        target=clock(100),
        third=dict(img_path='x.wav', duration=LENGTH),
    )


MAKERS = [two_sides, three_sides, frames_and_sound, frames_and_series]
CROPS = [dict(duration=2.0), dict(fraction=(0.2, 0.6)), dict(fraction=0.3)]
# Half a step between frames, and half a sample on either side.
TOLERANCE = 0.25 + 1 / 25


@pytest.mark.parametrize('make', MAKERS)
@pytest.mark.parametrize('crop', CROPS, ids=str)
def test_all_sides_come_from_the_same_moment(make, crop):
    np.random.seed(0)
    transform = SharedTemporalCrop(**crop)
    places = []
    for _ in range(200):
        results = transform(make())
        assert spread(results) <= TOLERANCE
        places.append(next(iter(middles(results).values())))
    # It really draws: moments from the beginning to the end.
    assert min(places) < 2.5 and max(places) > 7.5


def test_a_crop_by_side_would_not_pass():
    """The test above can fail: one draw per side is far apart."""
    np.random.seed(0)
    alone = RandomTimeCrop((0.2, 0.6))
    transform = OnSide(('skeleton', 'inertial', 'depth'), [alone])
    apart = [spread(transform(three_sides())) for _ in range(200)]
    assert np.mean(np.array(apart) > TOLERANCE) > 0.8


def test_as_many_numbers_are_drawn_for_any_number_of_sides():
    left = []
    for make in MAKERS:
        np.random.seed(3)
        SharedTemporalCrop(duration=2.0)(make())
        left.append(np.random.rand())
    assert len(set(left)) == 1


def test_sizes_follow_the_rate():
    np.random.seed(0)
    for _ in range(50):
        results = SharedTemporalCrop(duration=2.0)(three_sides())
        shapes = [tuple(results[s]['img'].shape) for s in results['sides']]
        # Always the same, hence a batch can be stacked.
        assert shapes == [(2, 60), (2, 100), (1, 50, 2, 3)]
        assert results['depth']['img_shape'] == (1, 50, 2, 3)
        assert results['inertial']['img'].is_contiguous()


def test_fractions_of_sides_of_unequal_length():
    """UTD-MHAD: clips of the sensors differ in length, so only shares fit."""
    np.random.seed(0)
    for _ in range(100):
        sides = pair(a=clock(30, 1.6), b=clock(50, 3.2))
        results = SharedTemporalCrop(fraction=(0.3, 0.9))(sides)
        a, b = (np.array(moment(results[side])) for side in 'ab')
        np.testing.assert_allclose(a / 1.6, b / 3.2, atol=0.025)


def test_range_of_fractions():
    np.random.seed(0)
    crop = SharedTemporalCrop(fraction=(0.5, 0.8))
    kept = [
        crop(pair(a=clock(100), b=clock(50)))['a']['img'].shape[1] / 1000
        for _ in range(300)
    ]
    assert 0.5 <= min(kept) < 0.52 and 0.78 < max(kept) <= 0.8


def test_without_randomness_it_is_the_middle():
    state = np.random.get_state()[1].copy()
    crop = SharedTemporalCrop(duration=2.0, random=False)
    results = crop(frames_and_series())
    assert results['third']['segment'] == (4.0, 2.0)
    assert moment(results['target']) == pytest.approx((4.0, 2.0))
    assert results['source']['img_path'] in ('4.750', '5.250')
    crop = SharedTemporalCrop(fraction=(0.2, 0.5), random=False)
    results = crop(frames_and_series())
    assert results['third']['segment'] == (2.5, 5.0)
    assert moment(results['target']) == pytest.approx((2.5, 5.0))
    np.testing.assert_array_equal(np.random.get_state()[1], state)


def test_the_shorter_side_limits_the_draw():
    np.random.seed(0)
    crop = SharedTemporalCrop(duration=2.0)
    starts = []
    for _ in range(200):
        results = crop(pair(a=clock(50), b=clock(50, 4.0)))
        assert spread(results) < 0.021
        starts.append(moment(results['b'])[0])
    assert max(starts) <= 2.0 and max(starts) > 1.9


def test_a_single_frame_lies_within_the_segment():
    np.random.seed(0)
    crop = SharedTemporalCrop(duration=3.0)
    starts = []
    for _ in range(200):
        sound = dict(img_path='x.wav', duration=LENGTH)
        results = crop(pair(source=frames([7.0]), target=sound))
        start, length = results['target']['segment']
        assert start <= 7.0 <= start + length <= LENGTH + 1e-9
        starts.append(start)
    assert min(starts) < 4.1 and max(starts) > 6.8


def test_whole_clip():
    """A segment as long as the clip leaves it as it is."""
    results = SharedTemporalCrop(duration=LENGTH)(three_sides())
    for side, item in three_sides().items():
        if isinstance(item, dict):
            assert torch.equal(results[side]['img'], item['img'])
    results = SharedTemporalCrop(fraction=1.0)(three_sides())
    assert results['skeleton']['img'].shape == (2, 300)


# ------------------------------------------------------------- bad input


def test_short_side_is_an_error_that_drops_the_pair():
    sides = pair(a=clock(50), b=clock(50, 1.5))
    with pytest.raises(UnreadableFileError) as caught:
        SharedTemporalCrop(duration=2.0)(sides)
    message = str(caught.value)
    assert "side 'b' of pair 'p7' (x) lasts 1.500 s" in message
    assert "'repeat'" in message


@pytest.mark.parametrize(
    'short, last', [('zero', 0.0), ('edge', 1.48), ('repeat', 0.48)]
)
def test_short_side_is_lengthened(short, last):
    np.random.seed(0)
    sound = dict(img_path='x.wav', duration=LENGTH)
    sides = pair(a=clock(50), b=clock(50, 1.5), c=sound)
    results = SharedTemporalCrop(duration=2.0, short=short)(sides)
    # The others are cut to the beginning, which is where the short one is.
    assert results['c']['segment'] == (0.0, 2.0)
    assert moment(results['a']) == (0.0, 2.0)
    assert results['b']['img'].shape == (2, 100)
    assert torch.equal(results['b']['img'][:, :75], clock(50, 1.5)['img'])
    assert results['b']['img'][0, -1].item() == pytest.approx(last)


def test_no_common_moment():
    sound = dict(img_path='x.wav', duration=3.0)
    with pytest.raises(UnreadableFileError, match='no moment in common'):
        SharedTemporalCrop(duration=1.0)(
            pair(source=frames([9.0]), target=sound)
        )


@pytest.mark.parametrize(
    'item, words',
    [
        (dict(img_path='x'), 'has no time'),
        (dict(frames=[], frame_times=[]), 'has no time'),
        (None, 'it has nothing'),
        (dict(img=torch.ones(2, 9)), "also its 'rate'"),
        (dict(img=np.ones((9, 9, 3))), 'got ndarray'),
        (
            dict(img=torch.ones(1, 64, 9), modality='spectrogram', rate=1.0),
            'before mmcmcd.LogMel',
        ),
    ],
)
def test_side_without_time(item, words):
    with pytest.raises(ConfigError) as caught:
        SharedTemporalCrop(duration=1.0)(pair(a=clock(50), b=item))
    assert words in str(caught.value)


def test_fractions_need_no_rate():
    item = clock(50)
    del item['rate']
    results = SharedTemporalCrop(fraction=0.5)(pair(a=item, b=clock(10)))
    assert results['a']['img'].shape == (2, 250)


@pytest.mark.parametrize(
    'kwargs',
    [
        {},
        dict(duration=1.0, fraction=0.5),
        dict(duration=0),
        dict(fraction=0.0),
        dict(fraction=(0.8, 0.5)),
        dict(fraction=(0.5, 1.5)),
        dict(fraction=(0.2, 0.5, 0.8)),
        dict(fraction='0.5'),
        dict(duration='2'),
        dict(duration=1.0, short='pad'),
    ],
)
def test_wrong_arguments(kwargs):
    with pytest.raises(ConfigError, match='SharedTemporalCrop'):
        SharedTemporalCrop(**kwargs)


# -------------------------------------------------------- of one array


def test_random_time_crop():
    np.random.seed(0)
    crop = RandomTimeCrop((0.5, 0.8))
    lengths, starts = [], []
    for _ in range(300):
        img = crop(clock(100))['img']
        steps = img[0].diff()
        torch.testing.assert_close(steps, torch.full_like(steps, 0.01))
        lengths.append(img.shape[1] / 1000)
        starts.append(img[0, 0].item())
    assert 0.5 <= min(lengths) < 0.52 and 0.78 < max(lengths) <= 0.8
    assert min(starts) < 0.2 and max(starts) > 3.5
    assert crop(clock(1, 1))['img'].shape == (2, 1)  # never empty
    with pytest.raises(ConfigError, match='RandomTimeCrop'):
        RandomTimeCrop((0.9, 0.2))


@pytest.mark.parametrize(
    'length, short, expected',
    [
        (3, 'error', [1, 2, 3]),
        (2, 'error', [1, 2]),
        (5, 'error', [0, 1, 2, 3, 4]),
        (7, 'zero', [0, 1, 2, 3, 4, 0, 0]),
        (7, 'edge', [0, 1, 2, 3, 4, 4, 4]),
        (12, 'repeat', [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1]),
    ],
)
def test_center_time_crop(length, short, expected):
    item = clock(1, 5)
    results = CenterTimeCrop(length, short)(item)
    assert results['img'].tolist() == [expected, expected]
    assert results['img_shape'] == (2, length)


def test_center_time_crop_refuses():
    with pytest.raises(UnreadableFileError, match='x has 5 samples'):
        CenterTimeCrop(6)(clock(1, 5))
    with pytest.raises(ConfigError, match='1 or more'):
        CenterTimeCrop(0)
    with pytest.raises(ConfigError, match='1 or more'):
        CenterTimeCrop('64')
    with pytest.raises(ConfigError, match='short must be'):
        CenterTimeCrop(5, 'loop')
