import h5py
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmpretrain.datasets.transforms import PackInputs

from mmcmcd.datasets.transforms import (
    ClampArray,
    LoadArray,
    NormalizeArray,
    RandomChannelScale,
    RandomFlipClip,
    RandomJitter,
    RandomResizedCropClip,
    RandomRotation3D,
    RandomTimeMask,
    ResampleArray,
    ResizeClip,
)
from mmcmcd.errors import ConfigError, UnreadableFileError


def save(root, name, array):
    """Write an array in the format of its name; return its path."""
    path = root / name
    if '.npz/' in name or '.h5/' in name:
        archive, member = root / name.split('/')[0], name.split('/', 1)[1]
        if '.npz/' in name:
            np.savez(archive, **{member: array})
        else:
            with h5py.File(archive, 'w') as file:
                file[member] = array
    elif path.suffix == '.csv':
        np.savetxt(path, array, delimiter=',', fmt='%.9g')
    else:
        np.save(path, array)
    return str(path)


def load(path, **kwargs):
    return LoadArray(**kwargs)(dict(img_path=str(path)))


def run(transform, array, **extra):
    array = torch.as_tensor(array, dtype=torch.float32)
    before = array.clone()
    results = transform(dict(img=array, **extra))
    assert torch.equal(array, before)  # inputs are not changed
    assert results['img'].dtype == torch.float32
    assert results['img'].is_contiguous()
    return results['img']


# -------------------------------------------------------------- loading


@pytest.mark.parametrize(
    'name', ['a.npy', 'a.csv', 'a.npz/k', 'a.h5/k', 'a.h5/deep/er/k']
)
@pytest.mark.parametrize('dtype', ['float32', 'float64', 'int16', 'uint16'])
def test_formats(tmp_path, name, dtype):
    array = np.arange(12).reshape(4, 3).astype(dtype)
    results = load(save(tmp_path, name, array))
    expected = torch.from_numpy(array.T.astype(np.float32))
    assert torch.equal(results['img'], expected)
    assert results['img'].is_contiguous()
    assert results['img_shape'] == results['ori_shape'] == (3, 4)
    assert results['modality'] == 'series' and 'rate' not in results


@pytest.mark.parametrize(
    'axes, shape, order, result',
    [
        ('TC', (5, 3), 'ab->ba', (3, 5)),
        ('CT', (3, 5), 'ab->ab', (3, 5)),
        ('T', (5,), 'a->a', (1, 5)),
        ('TVC', (5, 4, 3), 'abc->bca', (12, 5)),
        ('VCT', (4, 3, 5), 'abc->abc', (12, 5)),
        ('THW', (5, 6, 7), 'abc->abc', (1, 5, 6, 7)),
        ('HWTC', (6, 7, 5, 2), 'abcd->dcab', (2, 5, 6, 7)),
        ('TWH', (5, 7, 6), 'abc->acb', (1, 5, 6, 7)),
        ('WTDH', (7, 5, 3, 6), 'abcd->bcda', (1, 5, 3, 6, 7)),
    ],
)
def test_axes(tmp_path, axes, shape, order, result):
    array = np.arange(np.prod(shape)).reshape(shape)
    loaded = load(save(tmp_path, 'a.npy', array), axes=axes, rate=50)
    expected = np.einsum(order, array).reshape(result)
    np.testing.assert_array_equal(loaded['img'].numpy(), expected)
    assert loaded['rate'] == 50.0
    kind = 'clip' if len(result) > 2 else 'series'
    assert loaded['modality'] == kind


def test_joints_are_flattened_in_stored_order(tmp_path):
    skeleton = np.random.default_rng(0).random((5, 20, 3), np.float32)
    loaded = load(save(tmp_path, 'a.npy', skeleton), axes='TVC')['img']
    for joint in range(20):
        for axis in range(3):
            np.testing.assert_array_equal(
                loaded[3 * joint + axis], skeleton[:, joint, axis]
            )


@pytest.mark.parametrize(
    'text',
    [
        'x,y\n1,2\n3,4\n',
        '1,2\n3,4\n',
        '\ufeffacc x,acc y\n1,2\n\n3,4\n',
        'x;y\r\n1;2\r\n3;4\r\n',
        '1\t2\n3\t4',
        '1 2\n3 4\n',
        '1e0, 2\n 3, 4.0\n',
    ],
)
def test_csv(tmp_path, text):
    path = tmp_path / 'a.csv'
    path.write_bytes(text.encode())
    assert load(path)['img'].tolist() == [[1, 3], [2, 4]]


@pytest.mark.parametrize(
    'text',
    [
        '1,,3\n4,5,6\n',
        'NA,2,3\n4,5,6\n',
        'x,y,z\n1, nan,3\n4,5,6',
        ',y,z\n1,null,3\n4,5,6',
        'NA,NA,NA\n4,5,6\n',
        '#a,y,z\n1,,3\n',
    ],
)
def test_no_row_of_a_csv_is_lost(tmp_path, text):
    path = tmp_path / 'a.csv'
    path.write_text(text)
    rows = [line for line in text.splitlines() if set(line) & set('123456')]
    rows += ['NA,NA,NA'] * text.startswith('NA,NA')
    with pytest.raises(UnreadableFileError, match='Not finite.*invalid=0'):
        load(path)
    array = load(path, invalid=-1.0)['img']
    assert array.shape == (3, len(rows))
    assert (array == -1).any() and array.max() >= 3


def test_rows_that_begin_with_a_hash_are_no_comments(tmp_path):
    (tmp_path / 'a.csv').write_text('1,2\n#3,4\n')
    with pytest.raises(UnreadableFileError, match='#3'):
        load(tmp_path / 'a.csv')


def test_some_channels(tmp_path):
    table = np.arange(12.0).reshape(4, 3)
    table[:, 0] = 1e9  # timestamps
    path = save(tmp_path, 'a.npy', table)
    array = load(path, channels=[2, 1], expected_channels=3)['img']
    np.testing.assert_array_equal(array, table.T[[2, 1]])
    assert array.is_contiguous()
    with pytest.raises(UnreadableFileError, match='a.npy has 3, '):
        load(path, channels=[3])


def test_stock_packing_takes_it(tmp_path):
    results = load(save(tmp_path, 'a.npy', np.ones((5, 3))))
    packed = PackInputs()(dict(results, gt_label=2))
    assert torch.equal(packed['inputs'], torch.ones(3, 5))
    assert packed['data_samples'].img_shape == (3, 5)


BAD = np.zeros((4, 3))
BAD[2, 1] = np.nan
BAD[3, 0] = np.inf


@pytest.mark.parametrize(
    'name, content, kwargs, words',
    [
        ('a.npy', None, {}, 'does not exist'),
        ('a.npy', b'', {}, 'empty (0 bytes)'),
        ('a.npy', b'\x93NUMPY', {}, 'Cannot decode'),
        ('a.npy', np.ones((4, 3, 2)), {}, "shape (4, 3, 2), axes='TC'"),
        ('a.npy', np.ones((0, 3)), {}, 'Empty array'),
        ('a.npy', np.array([['a']]), {}, 'Not numeric'),
        ('a.npy', np.array([[{}]], dtype=object), {}, 'plain numeric'),
        ('a.npy', np.ones((4, 3)), dict(expected_channels=6), 'is 6'),
        ('a.npy', BAD, {}, '2 NaN or infinite values of 12, the first'),
        ('a.npy', BAD, {}, 'index (2, 1)'),
        ('a.npy', np.full((2, 2), 1e300), {}, 'Not finite'),
        ('a.npz/k', np.ones(3), {}, "axes='TC' names 2"),
        ('a.csv', b'x,y\n', {}, 'Empty array'),
        ('a.csv', b'1,2\n3\n', {}, 'not a table of numbers'),
        ('a.csv', b'1,2\n3,\n', {}, 'Not finite'),
        ('a.csv', b'x,2\n3,4\n', {}, 'not a table of numbers'),
        ('a.csv', b'x,y\n1,b\n', {}, 'not a table of numbers'),
        ('a.csv', b'\xff\xfe1,2', {}, 'not a table of numbers'),
        ('a.mat', b'x', {}, "ends with '.mat'"),
    ],
)
def test_unreadable(tmp_path, name, content, kwargs, words):
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        save(tmp_path, name, content)
    with pytest.raises(UnreadableFileError) as caught:
        load(path, **kwargs)
    assert words in str(caught.value) and str(path) in str(caught.value)


def test_missing_key_lists_some_that_exist(tmp_path):
    save(tmp_path, 'a.npz/k', np.ones((2, 2)))
    with pytest.raises(UnreadableFileError, match="'gone'; it holds 1: k"):
        load(tmp_path / 'a.npz/gone')


def test_invalid_values_are_filled(tmp_path):
    filled = load(save(tmp_path, 'a.npy', BAD), invalid=-1)['img']
    assert filled[1, 2] == filled[0, 3] == -1
    assert (filled == 0).sum() == 10


@pytest.mark.parametrize(
    'kwargs',
    [
        dict(axes='VC'),
        dict(axes=None),
        dict(rate='50'),
        dict(channels=2),
        dict(channels=[]),
        dict(channels=[-1]),
        dict(channels=['x']),
        dict(axes='TCC'),
        dict(axes='TTC'),
        dict(rate=0),
        dict(rate=-1),
        dict(invalid='drop'),
        dict(invalid=float('nan')),
    ],
)
def test_load_arguments(kwargs):
    with pytest.raises(ConfigError, match='LoadArray'):
        LoadArray(**kwargs)


# ---------------------------------------------------------- normalising


def test_normalize():
    array = torch.randn(3, 4, 5, 6)
    out = run(NormalizeArray([1, 2, 3], [4, 5, 6]), array)
    for channel in range(3):
        expected = (array[channel] - (channel + 1)) / (channel + 4)
        torch.testing.assert_close(out[channel], expected)
    same = run(NormalizeArray(1.0, 2.0), array)
    torch.testing.assert_close(same, (array - 1) / 2)


def test_normalize_by_file(tmp_path):
    path = tmp_path / 'statistics.json'
    path.write_text('{"imu": {"mean": [1, 5], "std": [2, 0]}}')
    normalize = NormalizeArray(statistics=str(path), side='imu')
    out = run(normalize, [[3.0, 5.0], [5.0, 6.0]])
    # A channel that never changed is only shifted.
    assert out.tolist() == [[1, 2], [0, 1]]


@pytest.mark.parametrize(
    'text, words',
    [
        (None, 'tools/misc/array_statistics.py CONFIG'),
        ('{', 'not valid JSON'),
        ('[]', "no statistics of side 'imu'"),
        ('{"audio": {"mean": [1], "std": [1]}}', "it has ['audio']"),
        ('{"imu": {"mean": [1]}}', "no statistics of side 'imu'"),
        ('{"imu": {"mean": [1, 2], "std": [1]}}', 'one value per channel'),
        ('{"imu": {"mean": [1, NaN, 2], "std": [1, 1, 1]}}', 'finite'),
        ('{"imu": {"mean": [1, 3, 2], "std": [1, -1, 1]}}', 'positive'),
        ('{"imu": {"mean": 1, "std": "a"}}', 'finite'),
        ('{', 'config of the distillation'),
        ('{"imu": {"mean": [1, 2], "std": [1, 2]}}', 'statistics of 2'),
    ],
)
def test_normalize_refuses_a_file(tmp_path, text, words):
    path = tmp_path / 'statistics.json'
    if text is not None:
        path.write_text(text)
    # Building needs no file: configs are built before data are there.
    normalize = NormalizeArray(statistics=str(path), side='imu')
    with pytest.raises(ConfigError) as caught:
        normalize(dict(img=torch.ones(3, 5)))
    assert words in str(caught.value)


def test_a_folder_is_no_statistics(tmp_path):
    normalize = NormalizeArray(statistics=str(tmp_path), side='imu')
    with pytest.raises(ConfigError, match='expected a JSON file'):
        normalize(dict(img=torch.ones(3, 5)))


@pytest.mark.parametrize(
    'kwargs',
    [
        {},
        dict(mean=1),
        dict(mean=1, std=0),
        dict(mean='1', std=1),
        dict(mean='abc', std='abc'),
        dict(mean=[1, 'b'], std=[1, 1]),
        dict(mean=[[1]], std=[[1]]),
        dict(mean=[1, 2], std=1),
        dict(mean=float('nan'), std=1),
        dict(mean=[], std=[]),
        dict(mean=1, std=[1, -1]),
        dict(mean=1, std=1, side='imu'),
        dict(mean=1, std=1, statistics='a.json', side='imu'),
        dict(mean=1, statistics='a.json'),
        dict(statistics='a.json'),
        dict(side='imu'),
        dict(mean=1, side='imu'),
        dict(std=1, statistics='a.json'),
    ],
)
def test_normalize_arguments(kwargs):
    with pytest.raises(ConfigError, match='NormalizeArray'):
        NormalizeArray(**kwargs)


# ------------------------------------------------------------ resampling


@settings(max_examples=50, deadline=None)
@given(
    old=st.integers(1, 40),
    new=st.integers(2, 60),
    space=st.sampled_from([(), (2, 3)]),
)
def test_resample_equals_numpy(old, new, space):
    array = np.random.default_rng(old).standard_normal((3, old, *space))
    out = run(ResampleArray(new), array).numpy()
    place = np.linspace(0, old - 1, new)
    rows = np.moveaxis(array, 1, -1)
    expected = np.apply_along_axis(
        lambda row: np.interp(place, np.arange(old), row), -1, rows
    )
    expected = np.moveaxis(expected, -1, 1)
    np.testing.assert_allclose(out, expected, atol=1e-5)


@pytest.mark.parametrize('old,new', [(5, 9), (9, 5), (7, 7), (1, 3)])
def test_nearest_resampling_invents_no_values(old, new):
    clip = torch.randn(2, old, 3, 4)
    out = run(ResampleArray(new, 'nearest'), clip)
    for step, place in enumerate(np.linspace(0, old - 1, new)):
        near = int(np.floor(place + 0.5))
        assert torch.equal(out[:, step], clip[:, near])


def test_resample_keeps_first_and_last_and_tells_the_rate():
    array = torch.arange(11.0)[None]
    results = ResampleArray(21)(dict(img=array, rate=10.0))
    assert results['img'][0, [0, -1]].tolist() == [0, 10]
    # 1 s lies between the first and last sample, before and after.
    assert results['rate'] == 20.0
    assert results['img_shape'] == (1, 21)
    with pytest.raises(ConfigError, match='2 or more'):
        ResampleArray(1)
    with pytest.raises(ConfigError, match='linear'):
        ResampleArray(4, mode='cubic')


def test_clamp():
    depth = [[[[0.0, 1500.0], [4000.0, 9000.0]]]]
    out = run(ClampArray(1, 4, scale=0.001), depth)
    assert out.tolist() == [[[[1, pytest.approx(1.5)], [4, 4]]]]
    with pytest.raises(ConfigError, match='low < high'):
        ClampArray(4, 0)


def test_what_is_missing_gets_a_value_of_its_own():
    depth = torch.tensor([[0.0, 500.0, 2500.0, 9000.0]])
    out = run(ClampArray(1, 4, scale=0.001, missing=4.5), depth)
    torch.testing.assert_close(out, torch.tensor([[4.5, 1.0, 2.5, 4.0]]))
    out = run(ClampArray(1, 4, scale=0.001), depth)
    assert out[0, 0] == 1


# ---------------------------------------------------------- augmentation

SERIES = torch.randn(6, 50, generator=torch.Generator().manual_seed(0))
CLIP = torch.arange(3 * 8 * 12.0).reshape(1, 3, 8, 12)
RANDOM = [
    (RandomJitter(0.5), SERIES),
    (RandomChannelScale(0.5), SERIES),
    (RandomTimeMask(0.9), SERIES),
    (RandomRotation3D(90), SERIES),
    (RandomResizedCropClip((8, 12), (0.2, 0.5)), CLIP),
    (RandomFlipClip(1.0), CLIP),
]


@pytest.mark.parametrize(
    'transform, array', RANDOM, ids=[type(t).__name__ for t, _ in RANDOM]
)
def test_random_transforms(transform, array):
    np.random.seed(1)
    first = run(transform, array)
    second = run(transform, array)
    assert first.shape == array.shape
    assert not torch.equal(first, array)
    if not isinstance(transform, RandomFlipClip):
        assert not torch.equal(first, second)
    np.random.seed(1)
    assert torch.equal(run(transform, array), first)
    # What mmcv looks at when several fields share one draw.
    assert type(transform)._methods_with_randomness == ['_draw']
    assert f'prob={transform.prob}' in repr(transform)


@pytest.mark.parametrize(
    'make, array',
    [
        (lambda prob: RandomJitter(0.5, prob), SERIES),
        (lambda prob: RandomChannelScale(0.5, prob), SERIES),
        (lambda prob: RandomTimeMask(1.0, prob=prob), SERIES),
        (lambda prob: RandomRotation3D(90, prob=prob), SERIES),
        (RandomFlipClip, CLIP),
    ],
)
def test_probability(make, array):
    np.random.seed(0)
    transform = make(0.3)
    changed = [
        not torch.equal(run(transform, array), array) for _ in range(400)
    ]
    assert 0.2 < np.mean(changed) < 0.4
    with pytest.raises(ConfigError, match='prob'):
        make(1.5)


def test_jitter_and_scale_have_their_deviation():
    np.random.seed(0)
    noise = run(RandomJitter(0.3), torch.zeros(10, 5000))
    assert abs(noise.std() - 0.3) < 0.01 and abs(noise.mean()) < 0.01
    factors = run(RandomChannelScale(0.2), torch.ones(5000, 3))
    assert torch.equal(factors[:, 0], factors[:, 2])
    assert abs(factors.std() - 0.2) < 0.01
    assert abs(factors.mean() - 1) < 0.01


def test_time_mask_is_one_stretch_of_all_channels():
    np.random.seed(0)
    lengths = []
    for _ in range(300):
        masked = run(RandomTimeMask(0.4, fill=9.0), SERIES) == 9
        assert (masked == masked[:1]).all()
        where = masked[0].nonzero().flatten()
        lengths.append(len(where))
        assert not len(where) or where[-1] - where[0] == len(where) - 1
    assert min(lengths) == 0 and max(lengths) == 20


@pytest.mark.parametrize('axis', 'xyz')
def test_rotation_is_rigid_and_keeps_its_axis(axis):
    from scipy.spatial.transform import Rotation

    np.random.seed(0)
    transform = RandomRotation3D(90, axis=axis)
    transform._draw = lambda shape: np.radians(40.0)
    points = SERIES.reshape(2, 3, 50).movedim(1, -1).reshape(-1, 3).numpy()
    centre = points.mean(axis=0)
    turn = Rotation.from_euler(axis, 40, degrees=True)
    expected = turn.apply(points - centre) + centre
    out = run(transform, SERIES)
    out = out.reshape(2, 3, 50).movedim(1, -1).reshape(-1, 3)
    np.testing.assert_allclose(out, expected, atol=1e-5)


def test_crop_and_flip_are_one_draw_for_all_frames():
    """Frames of one picture stay frames of one picture."""
    np.random.seed(0)
    still = torch.arange(8 * 12.0).reshape(1, 1, 8, 12).repeat(2, 5, 1, 1)
    sizes = set()
    for _ in range(50):
        out = run(RandomResizedCropClip((6, 6), (0.1, 1.0)), still)
        assert out.shape == (2, 5, 6, 6)
        assert (out == out[:1, :1]).all()
        values = out[0, 0].unique()
        assert set(values.tolist()) <= set(range(96))  # nearest: no mixing
        sizes.add(len(values))
    assert len(sizes) > 3
    flipped = run(RandomFlipClip(1.0), CLIP)
    np.testing.assert_array_equal(flipped, CLIP.numpy()[..., ::-1])


def test_resize_clip():
    out = run(ResizeClip((4, 6)), CLIP)
    # The pixel at the centre of each cell.
    np.testing.assert_array_equal(out, CLIP[..., 1::2, 1::2])
    smooth = run(ResizeClip((4, 6), 'bilinear'), CLIP)
    cells = CLIP.reshape(1, 3, 4, 2, 6, 2).mean(dim=(3, 5))
    torch.testing.assert_close(smooth, cells)
    assert run(ResizeClip(5), CLIP).shape == (1, 3, 5, 5)


@pytest.mark.parametrize(
    'make',
    [
        lambda: RandomJitter(-1),
        lambda: RandomChannelScale(float('nan')),
        lambda: RandomTimeMask(1.5),
        lambda: RandomRotation3D(10, axis='w'),
        lambda: RandomResizedCropClip(8, area_ratio=(0.5, 1.5)),
        lambda: RandomResizedCropClip(8, aspect_ratio=(2, 1)),
        lambda: RandomResizedCropClip(8, interpolation='cubic'),
        lambda: ResizeClip(8, 'cubic'),
        lambda: ResizeClip('3'),
        lambda: ResizeClip((3, 4, 5)),
        lambda: ResizeClip(0),
        lambda: RandomResizedCropClip(8, area_ratio=0.5),
        lambda: ResampleArray('64'),
        lambda: ResampleArray(64.5),
        lambda: ClampArray('1', '2'),
        lambda: RandomJitter('0.1'),
        lambda: RandomJitter(1, prob='1'),
        lambda: RandomRotation3D('90'),
    ],
)
def test_wrong_arguments(make):
    with pytest.raises(ConfigError):
        make()


@pytest.mark.parametrize(
    'transform, item, words',
    [
        (ResampleArray(4), dict(img=np.ones((4, 4))), 'got ndarray'),
        (ResampleArray(4), dict(img_path='a.npy'), 'behind a loader'),
        (
            ResampleArray(4),
            dict(img=torch.ones(1, 4, 4), modality='spectrogram'),
            'before mmcmcd.LogMel',
        ),
        (RandomFlipClip(0.0), dict(img=torch.ones(3, 4)), 'got shape (3, 4)'),
        (ResizeClip(4), dict(img=torch.ones(3, 4)), 'got shape (3, 4)'),
        (RandomRotation3D(9), dict(img=torch.ones(4, 4)), 'got shape (4, 4)'),
    ],
)
def test_wrong_inputs(transform, item, words):
    with pytest.raises(ConfigError) as caught:
        transform(item)
    assert words in str(caught.value)
