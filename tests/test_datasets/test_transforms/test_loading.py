import cv2
import numpy as np
import pytest
from mmengine.registry import DefaultScope

from mmcmcd.datasets.transforms import LoadDepthFromFile, LoadImageStrict
from mmcmcd.errors import ConfigError, UnreadableFileError
from mmcmcd.registry import TRANSFORMS


def smooth(shape, dtype, high, seed=0):
    img = np.random.default_rng(seed).uniform(0, high, shape)
    return cv2.GaussianBlur(img, (9, 9), 0).astype(dtype)


def load_depth(path, **kwargs):
    kwargs.setdefault('depth_scale', 1000)
    results = LoadDepthFromFile(**kwargs)(dict(img_path=str(path)))
    return results if results is None else results['img']


@pytest.fixture
def png16(tmp_path):
    stored = smooth((40, 60), np.uint16, 9000)
    stored[:3] = 0
    path = tmp_path / 'depth.png'
    cv2.imwrite(str(path), stored)
    return path, stored


def test_16_bit_png_is_millimetres(png16):
    path, stored = png16
    results = LoadDepthFromFile(1000, expected_dtype='uint16')(
        dict(img_path=str(path))
    )
    assert results['img'].dtype == np.float32
    np.testing.assert_array_equal(
        results['img'], stored.astype(np.float32) / np.float32(1000)
    )
    assert not results['img'][:3].any()
    assert results['img_shape'] == results['ori_shape'] == (40, 60)
    assert results['modality'] == 'depth'


@pytest.mark.parametrize(
    ('suffix', 'dtype', 'scale'),
    [
        ('png', np.uint8, 25.5),
        ('tiff', np.float32, 1),
        ('tiff', np.uint16, 1000),
        ('npy', np.float64, 1),
        ('npy', np.float16, 1),
        ('npy', np.int32, 1000),
    ],
)
def test_formats(tmp_path, suffix, dtype, scale):
    stored = smooth((20, 30), np.float64, 9) * scale
    stored = stored.astype(dtype)
    path = tmp_path / f'a.{suffix}'
    if suffix == 'npy':
        np.save(path, stored)
    else:
        cv2.imwrite(str(path), stored)
    depth = load_depth(path, depth_scale=scale, expected_dtype=dtype)
    assert depth.dtype == np.float32
    np.testing.assert_allclose(depth, stored / scale, rtol=1e-6)


def test_one_channel_axis_is_dropped(tmp_path):
    np.save(tmp_path / 'a.npy', np.ones((4, 5, 1), np.float32))
    assert load_depth(tmp_path / 'a.npy', depth_scale=1).shape == (4, 5)


def test_invalid_values_become_zero(tmp_path):
    stored = np.array([[np.nan, np.inf, -np.inf, -1, 0, 0.5, 2, 9, 11]])
    np.save(tmp_path / 'a.npy', stored)
    depth = load_depth(
        tmp_path / 'a.npy',
        depth_scale=1,
        min_depth=1,
        max_depth=10,
        invalid_values=(0, 9),
    )
    np.testing.assert_array_equal(depth, [[0, 0, 0, 0, 0, 0, 2, 0, 0]])


def test_negative_integers_and_sentinel_are_invalid(tmp_path):
    np.save(tmp_path / 'a.npy', np.array([[-5, 65535, 1000]], np.int32))
    depth = load_depth(tmp_path / 'a.npy', invalid_values=(0, 65535))
    np.testing.assert_array_equal(depth, [[0, 0, 1]])


def test_all_invalid_is_accepted_unless_a_minimum_is_asked(tmp_path):
    path = str(tmp_path / 'a.png')
    cv2.imwrite(path, np.zeros((6, 8), np.uint16))
    assert not load_depth(path).any()
    with pytest.raises(UnreadableFileError, match=r'Too few valid.*0\.0%'):
        load_depth(path, min_valid_fraction=0.1)
    half = np.zeros((6, 8), np.uint16)
    half[:3] = 1000
    cv2.imwrite(path, half)
    assert load_depth(path, min_valid_fraction=0.5).any()
    with pytest.raises(UnreadableFileError, match=r'50\.0%'):
        load_depth(path, min_valid_fraction=0.51)


def test_missing_and_empty_file(tmp_path):
    with pytest.raises(UnreadableFileError, match='does not exist.*nope'):
        load_depth(tmp_path / 'nope.png')
    (tmp_path / 'a.png').write_bytes(b'')
    with pytest.raises(UnreadableFileError, match=r'0 bytes.*a\.png'):
        load_depth(tmp_path / 'a.png')
    with pytest.raises(UnreadableFileError, match='Cannot read'):
        load_depth(tmp_path)


@pytest.mark.parametrize('keep', [0.05, 0.5, 0.9, 0.999])
def test_truncated_png(png16, keep):
    path, _ = png16
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(UnreadableFileError, match=r'truncated.*depth\.png'):
        load_depth(path)


def test_damaged_png_and_text_file(png16):
    path, _ = png16
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(bytes(content))
    with pytest.raises(UnreadableFileError, match='Cannot decode'):
        load_depth(path)
    path.write_text('404 not found')
    with pytest.raises(UnreadableFileError, match='404 not'):
        load_depth(path)


def test_truncated_tiff_and_npy(tmp_path):
    depth = smooth((20, 30), np.float32, 9)
    cv2.imwrite(str(tmp_path / 'a.tiff'), depth)
    np.save(tmp_path / 'a.npy', depth)
    for name in ('a.tiff', 'a.npy'):
        path = tmp_path / name
        path.write_bytes(path.read_bytes()[:-200])
        with pytest.raises(UnreadableFileError, match=name):
            load_depth(path, depth_scale=1)


def test_8_bit_where_16_was_promised(tmp_path):
    path = str(tmp_path / 'a.png')
    cv2.imwrite(path, np.full((6, 8), 7, np.uint8))
    with pytest.raises(
        UnreadableFileError, match='stores uint8, expected_dtype is uint16'
    ):
        load_depth(path, expected_dtype='uint16')


def test_colour_object_and_wrong_ndim(tmp_path):
    cv2.imwrite(str(tmp_path / 'a.png'), np.zeros((6, 8, 3), np.uint8))
    with pytest.raises(UnreadableFileError, match=r'\(6, 8, 3\).*colour'):
        load_depth(tmp_path / 'a.png')
    np.save(tmp_path / 'a.npy', np.zeros(7))
    with pytest.raises(UnreadableFileError, match=r'\(7,\)'):
        load_depth(tmp_path / 'a.npy')
    np.save(tmp_path / 'a.npy', np.zeros((2, 2), complex))
    with pytest.raises(UnreadableFileError, match='complex'):
        load_depth(tmp_path / 'a.npy')
    np.save(tmp_path / 'a.npy', np.array([[{}]], object), allow_pickle=True)
    with pytest.raises(UnreadableFileError, match='plain numeric'):
        load_depth(tmp_path / 'a.npy')


def test_exr_without_switch_is_explained(tmp_path, monkeypatch):
    path = tmp_path / 'a.exr'
    path.write_bytes(b'v/1\x01' + bytes(64))
    monkeypatch.delenv('OPENCV_IO_ENABLE_OPENEXR', raising=False)
    with pytest.raises(UnreadableFileError, match='OPENEXR=1'):
        load_depth(path)
    monkeypatch.setenv('OPENCV_IO_ENABLE_OPENEXR', '1')
    with pytest.raises(UnreadableFileError, match='built without EXR'):
        load_depth(path)


def test_ignore_empty_gives_none(tmp_path):
    assert load_depth(tmp_path / 'no.png', ignore_empty=True) is None
    loader = LoadImageStrict(ignore_empty=True)
    assert loader(dict(img_path=str(tmp_path / 'no.jpg'))) is None


@pytest.mark.parametrize(
    'kwargs', [dict(depth_scale=0), dict(depth_scale=1, max_depth=0)]
)
def test_bad_arguments(kwargs):
    with pytest.raises(ConfigError):
        LoadDepthFromFile(**kwargs)


def test_backend_args_are_used(png16):
    path, stored = png16
    depth = load_depth(path, backend_args=dict(backend='local'))
    assert depth.shape == stored.shape
    with pytest.raises(Exception, match='nonsense'):
        load_depth(path, backend_args=dict(backend='nonsense'))


@pytest.mark.parametrize('suffix', ['jpg', 'png', 'bmp'])
@pytest.mark.parametrize('to_float32', [False, True])
def test_image_equals_stock(tmp_path, suffix, to_float32):
    path = str(tmp_path / f'a.{suffix}')
    cv2.imwrite(path, smooth((40, 60, 3), np.uint8, 255))
    cfg = dict(to_float32=to_float32)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        stock = TRANSFORMS.build(dict(type='LoadImageFromFile', **cfg))
        ours = TRANSFORMS.build(dict(type='mmcmcd.LoadImageStrict', **cfg))
    expected, got = (t(dict(img_path=path)) for t in (stock, ours))
    np.testing.assert_array_equal(got.pop('img'), expected.pop('img'))
    assert got == expected


def jpeg(progressive=False):
    img = smooth((64, 96, 3), np.uint8, 255)
    flags = [cv2.IMWRITE_JPEG_PROGRESSIVE, int(progressive)]
    return cv2.imencode('.jpg', img, flags)[1].tobytes()


@pytest.mark.parametrize('progressive', [False, True])
@pytest.mark.parametrize('drop', [0.9, 0.5, 0.1, 2])
def test_truncated_jpeg(tmp_path, progressive, drop):
    content = jpeg(progressive)
    end = -drop if drop == 2 else int(len(content) * (1 - drop))
    path = tmp_path / 'a.jpg'
    path.write_bytes(content[:end])
    with pytest.raises(UnreadableFileError, match=r'truncated.*a\.jpg'):
        LoadImageStrict()(dict(img_path=str(path)))


def test_jpeg_with_thumbnail_and_trailer(tmp_path):
    content = jpeg()
    thumbnail = b'\xff\xd8thumb\xff\xd9'
    app1 = b'\xff\xe1' + (len(thumbnail) + 2).to_bytes(2, 'big') + thumbnail
    content = content[:2] + app1 + content[2:]
    path = tmp_path / 'a.jpg'
    path.write_bytes(content + bytes(50))  # cameras append data
    loaded = LoadImageStrict()(dict(img_path=str(path)))
    assert loaded['img'].shape == (64, 96, 3)
    # The thumbnail's end marker must not vouch for the picture.
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(UnreadableFileError, match='truncated'):
        LoadImageStrict()(dict(img_path=str(path)))


def test_broken_images(tmp_path):
    path = tmp_path / 'a.jpg'
    for content, words in [
        (b'', '0 bytes'),
        (b'<html>', 'not an image'),
        (b'\xff\xd8', 'truncated'),
    ]:
        path.write_bytes(content)
        with pytest.raises(UnreadableFileError, match=words):
            LoadImageStrict()(dict(img_path=str(path)))
    path.write_bytes(b'<html>')
    with pytest.raises(UnreadableFileError, match='Cannot decode image'):
        LoadImageStrict(imdecode_backend='pillow')(dict(img_path=str(path)))


def test_arrays_in_archives_have_loaders_of_their_own(tmp_path):
    path = tmp_path / 'dep.npz'
    np.savez(path, k1=np.ones((4, 4)))
    with pytest.raises(UnreadableFileError, match='mmcmcd.LoadArray'):
        LoadImageStrict()(dict(img_path=f'{path}/k1'))
