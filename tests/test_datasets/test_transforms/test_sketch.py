import csv
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.registry import DefaultScope
from PIL import Image

from mmcmcd.datasets.transforms import (
    LoadSketch,
    OnSide,
    PackPairedInputs,
    RandomStrokeWidth,
    SharedGeometry,
    SketchFromImage,
)
from mmcmcd.datasets.transforms.sketch import is_blank, is_inverted
from mmcmcd.errors import ConfigError, DatasetError, UnreadableFileError
from mmcmcd.registry import TRANSFORMS

REAL = Path(os.environ.get('MMCMCD_REALDATA', 'none')) / 'sketchy125'
STYLES = ('canny', 'scharr', 'dog', 'pencil')
needs_real = pytest.mark.skipif(
    not REAL.is_dir(), reason='needs MMCMCD_REALDATA'
)


def drawing(height=48, width=64):
    """Black and softer strokes on white."""
    sketch = np.full((height, width), 255, np.uint8)
    cv2.circle(sketch, (width // 2, height // 2), 15, 0, 1, cv2.LINE_AA)
    cv2.line(sketch, (3, 5), (width - 9, height - 4), 60, 2, cv2.LINE_AA)
    return sketch


def photo(height=96, width=128, seed=0):
    """Coloured shapes on a gradient, BGR."""
    rng = np.random.default_rng(seed)
    ramp = np.linspace(40, 140, width)[None, :, None]
    img = np.repeat(ramp, height, axis=0).repeat(3, axis=2).astype(np.uint8)
    for _ in range(6):
        centre = tuple(int(v) for v in rng.integers(0, (width, height)))
        colour = tuple(int(v) for v in rng.integers(0, 256, 3))
        axes = tuple(int(v) for v in rng.integers(8, 30, 2))
        cv2.ellipse(img, centre, axes, 30, 0, 360, colour, -1)
    return cv2.GaussianBlur(img, (3, 3), 0)


def load(path, **kwargs):
    return LoadSketch(**kwargs)(dict(img_path=str(path)))['img']


def ink(sketch, below=128):
    return (sketch < below).mean()


# Ways to store the same drawing ---------------------------------------------


def on_transparent(grey, colour=0):
    """Strokes of one colour; how dark they are is in the alpha channel."""
    rgba = np.full((*grey.shape, 4), colour, np.uint8)
    rgba[..., 3] = 255 - grey
    return Image.fromarray(rgba)


def palette_with_transparency(grey):
    """Paper is a transparent entry whose colour is black."""
    black_paper = np.where(grey == 255, 0, grey).astype(np.uint8)
    image = Image.fromarray(np.where(grey == 255, 255, grey))
    image = image.convert('P')
    image.putpalette(
        [v for level in range(255) for v in [level] * 3] + [0, 0, 0]
    )
    image.info['transparency'] = 255
    assert np.array_equal(np.array(image.convert('L')), black_paper)
    return image


def colour_key(grey, mode):
    """PNG's tRNS chunk in a picture without palette: one level is paper."""
    stored = np.where(grey == 255, 7, grey).astype(np.uint8)
    image = Image.fromarray(stored).convert(mode)
    image.info['transparency'] = 7 if mode == 'L' else (7, 7, 7)
    return image


def write(image, path):
    extra = {}
    if 'transparency' in image.info:
        extra['transparency'] = image.info['transparency']
    image.save(path, **extra)


STORED = {
    'grey': lambda g: Image.fromarray(g),
    'rgb': lambda g: Image.fromarray(g).convert('RGB'),
    'opaque rgba': lambda g: Image.fromarray(g).convert('RGBA'),
    'opaque la': lambda g: Image.fromarray(g).convert('LA'),
    'black on transparent rgba': on_transparent,
    'black on transparent la': lambda g: Image.merge(
        'LA', [Image.new('L', g.shape[::-1]), Image.fromarray(255 - g)]
    ),
    'palette': lambda g: Image.fromarray(g).convert('P'),
    'palette with alpha': palette_with_transparency,
    'grey with a key': lambda g: colour_key(g, 'L'),
    'rgb with a key': lambda g: colour_key(g, 'RGB'),
    '16 bit': lambda g: Image.fromarray(g.astype(np.uint16) * 257),
}


@pytest.mark.parametrize('kind', STORED)
def test_every_way_of_storing_gives_the_same_pixels(tmp_path, kind):
    grey = drawing()
    grey[grey == 7] = 8  # 7 is the colour key
    path = tmp_path / 'a.png'
    write(STORED[kind](grey), path)
    results = LoadSketch()(dict(img_path=str(path)))
    assert results['img'].dtype == np.uint8
    assert results['img'].flags.writeable
    np.testing.assert_array_equal(results['img'], grey)
    assert results['img_shape'] == results['ori_shape'] == (48, 64)
    assert results['modality'] == 'sketch'


def test_one_bit(tmp_path):
    binary = np.where(drawing() < 128, 0, 255).astype(np.uint8)
    Image.fromarray(binary).convert('1').save(tmp_path / 'a.png')
    np.testing.assert_array_equal(load(tmp_path / 'a.png'), binary)


def test_one_bit_with_transparent_paper(tmp_path):
    """Black is transparent, hence the strokes are the white pixels."""
    binary = np.where(drawing() < 128, 0, 255).astype(np.uint8)
    image = Image.fromarray(255 - binary).convert('1')
    image.save(tmp_path / 'a.png', transparency=0)
    with pytest.raises(UnreadableFileError, match='white on black'):
        load(tmp_path / 'a.png')
    np.testing.assert_array_equal(
        load(tmp_path / 'a.png', on_inverted='invert'), binary
    )


def test_a_stock_loader_would_go_wrong(tmp_path):
    """The trap that LoadSketch is there for is real."""
    path = tmp_path / 'a.png'
    on_transparent(drawing()).save(path)
    assert not cv2.imread(str(path)).any()


def test_colours_become_luminance(tmp_path):
    rgb = np.full((30, 40, 3), 255, np.uint8)
    rgb[5:10, 5:35] = (200, 30, 90)
    Image.fromarray(rgb).save(tmp_path / 'a.png')
    stroke = load(tmp_path / 'a.png')[7, 20]
    assert abs(stroke - (0.299 * 200 + 0.587 * 30 + 0.114 * 90)) <= 0.51


def test_half_transparent_pixels_are_mixed_with_white(tmp_path):
    rgba = np.zeros((20, 20, 4), np.uint8)
    rgba[5:8, :, 3] = 100
    rgba[12:14, :, 3] = 255
    Image.fromarray(rgba).save(tmp_path / 'a.png')
    out = load(tmp_path / 'a.png')
    assert out[6, 3] == 155 and out[13, 3] == 0 and out[0, 0] == 255


@pytest.mark.parametrize('suffix', ['jpg', 'bmp', 'gif', 'webp', 'tiff'])
def test_other_formats(tmp_path, suffix):
    path = tmp_path / f'a.{suffix}'
    Image.fromarray(drawing()).save(path)
    assert np.abs(load(path).astype(int) - drawing()).mean() < 4


def test_soft_grey_jpeg_on_grey_paper(tmp_path):
    rng = np.random.default_rng(0)
    paper = np.linspace(90, 125, 64)[None] + rng.normal(0, 3, (48, 64))
    sketch = paper - (255 - drawing()) * 0.25
    Image.fromarray(sketch.astype(np.uint8)).save(tmp_path / 'a.jpg')
    stored = np.array(Image.open(tmp_path / 'a.jpg'))
    assert stored.max() < 150  # all below or near mid-grey
    np.testing.assert_array_equal(load(tmp_path / 'a.jpg'), stored)


def test_exif_orientation_as_stock_loaders(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / 'a.png'
    Image.fromarray(drawing()).save(path, exif=exif)
    assert load(path).shape == (64, 48)
    np.testing.assert_array_equal(
        load(path), cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    )


# Inverted and blank ---------------------------------------------------------


def with_ink(share, lines, seed=0):
    """A (100, 100) drawing of which the given share is black."""
    rng = np.random.default_rng(seed)
    if lines:
        sketch = np.full((100, 100), 255, np.uint8)
        while ink(sketch) < share:
            ends = rng.integers(0, 100, 4).tolist()
            cv2.line(sketch, ends[:2], ends[2:], 0, 1)
        return sketch
    flat = np.full(10000, 255, np.uint8)
    flat[rng.permutation(10000)[: int(10000 * share)]] = 0
    return flat.reshape(100, 100)


@pytest.mark.parametrize('lines', [True, False])
@pytest.mark.parametrize('share', [0.01, 0.03, 0.1, 0.2, 0.3, 0.4, 0.45])
def test_inverted_is_detected(share, lines):
    for seed in range(5):
        sketch = with_ink(share, lines, seed)
        # Any contrast, some noise, any paper.
        rng = np.random.default_rng(seed)
        for low, high in [(0, 255), (0, 90), (150, 240)]:
            grey = low + sketch / 255 * (high - low)
            grey = np.clip(grey + rng.normal(0, 4, grey.shape), 0, 255)
            grey = grey.astype(np.uint8)
            assert not is_inverted(grey)
            assert is_inverted(255 - grey)


def test_a_speck_does_not_invert():
    sketch = np.full((100, 100), 120, np.uint8)
    sketch[40:43] = 20
    sketch[7, 7] = 255
    assert not is_inverted(sketch)


def test_uneven_light_does_not_invert():
    """A lamp at one side lifts the mean of the paper above its median."""
    light = np.maximum(np.linspace(-70, 40, 100), 0)
    sketch = np.repeat(150 + light[None], 100, axis=0).astype(np.uint8)
    sketch[40:43] = 30
    assert sketch.mean() > np.median(sketch)
    assert not is_inverted(sketch) and is_inverted(255 - sketch)


def test_constant_is_blank_and_not_inverted():
    for level in (0, 90, 255):
        constant = np.full((8, 8), level, np.uint8)
        assert is_blank(constant) and not is_inverted(constant)
    assert not is_blank(drawing())


def test_on_inverted(tmp_path):
    path = tmp_path / 'night.png'
    Image.fromarray(255 - drawing()).save(path)
    with pytest.raises(UnreadableFileError) as error:
        load(path)
    for word in ('night.png', 'white on black', "on_inverted='invert'",
                 "'keep'"):  # fmt: skip
        assert word in str(error.value)
    np.testing.assert_array_equal(load(path, on_inverted='invert'), drawing())
    np.testing.assert_array_equal(
        load(path, on_inverted='keep'), 255 - drawing()
    )
    # Sketches the right way round are left alone.
    Image.fromarray(drawing()).save(path)
    for choice in ('invert', 'keep'):
        np.testing.assert_array_equal(
            load(path, on_inverted=choice), drawing()
        )
    with pytest.raises(ConfigError, match='on_inverted'):
        LoadSketch(on_inverted='maybe')


@pytest.mark.parametrize('colour', [255, 250])
def test_white_on_transparent_does_not_vanish(tmp_path, colour):
    path = tmp_path / 'a.png'
    on_transparent(drawing(), colour).save(path)
    with pytest.raises(UnreadableFileError, match='white on black'):
        load(path)
    out = load(path, on_inverted='invert')
    np.testing.assert_allclose(out, drawing(), atol=255 - colour + 1)
    np.testing.assert_array_equal(load(path, on_inverted='keep'), 255 - out)


def blank_pictures():
    noise = np.random.default_rng(0).integers(248, 256, (30, 30))
    return {
        'white': Image.new('L', (30, 30), 255),
        'black': Image.new('RGB', (30, 30), 0),
        'scan': Image.fromarray(noise.astype(np.uint8)),
        'transparent': Image.new('RGBA', (30, 30), (0, 0, 0, 0)),
        'opaque': Image.new('RGBA', (30, 30), (255, 255, 255, 255)),
    }


@pytest.mark.parametrize('kind', blank_pictures())
def test_blank(tmp_path, kind):
    path = tmp_path / 'empty.png'
    blank_pictures()[kind].save(path)
    with pytest.raises(UnreadableFileError) as error:
        load(path)
    assert 'empty.png' in str(error.value)
    assert 'allow_blank=True' in str(error.value)
    assert (load(path, allow_blank=True) == 255).all()


def test_faint_pencil_is_not_blank(tmp_path):
    faint = (255 - (255 - drawing()) * 0.1).astype(np.uint8)
    Image.fromarray(faint).save(tmp_path / 'a.png')
    np.testing.assert_array_equal(load(tmp_path / 'a.png'), faint)


# Broken files ---------------------------------------------------------------


@pytest.mark.parametrize(
    ('suffix', 'part'), [('png', 0.6), ('png', 0.99), ('jpg', 0.6)]
)
def test_truncated(tmp_path, suffix, part):
    path = tmp_path / f'a.{suffix}'
    Image.fromarray(drawing()).save(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * part)])
    with pytest.raises(UnreadableFileError, match=rf'truncated.*a\.{suffix}'):
        load(path)
    assert LoadSketch(ignore_empty=True)(dict(img_path=str(path))) is None


@pytest.mark.parametrize(
    'content', [b'', b'<svg></svg>', b'\x89PNG\r\n\x1a\n']
)
def test_not_an_image(tmp_path, content):
    path = tmp_path / 'a.png'
    path.write_bytes(content)
    with pytest.raises(UnreadableFileError, match=r'a\.png'):
        load(path)


def test_damaged_pixels(tmp_path):
    path = tmp_path / 'a.png'
    Image.fromarray(drawing()).save(path)
    content = bytearray(path.read_bytes())
    content[60:90] = bytes(30)
    path.write_bytes(content)
    with pytest.raises(UnreadableFileError, match=r'a\.png'):
        load(path)


def test_missing(tmp_path):
    with pytest.raises(UnreadableFileError, match='does not exist'):
        load(tmp_path / 'no.png')


@pytest.mark.parametrize(
    'stored', [drawing().astype(np.float32), drawing() * np.int32(1 << 20)]
)
def test_more_than_16_bits_are_refused(tmp_path, stored):
    path = tmp_path / 'a.tiff'
    Image.fromarray(stored).save(path)
    with pytest.raises(UnreadableFileError, match='16'):
        load(path)


# In pipelines ---------------------------------------------------------------

STOCK = [
    (dict(type='RandomResizedCrop', scale=32), (32, 32)),
    (dict(type='RandomResizedCrop', scale=32, interpolation='area'), (32, 32)),
    (dict(type='Resize', scale=(40, 30)), (30, 40)),
    (dict(type='ResizeEdge', scale=36), (36, 48)),
    (dict(type='CenterCrop', crop_size=24), (24, 24)),
    (
        dict(
            type='CenterCrop',
            crop_size=80,
            auto_pad=True,
            pad_cfg=dict(type='Pad', pad_val=255),
        ),
        (80, 80),
    ),
    (dict(type='RandomFlip', prob=1.0), (48, 64)),
    (dict(type='Pad', size=(70, 70), pad_val=255), (70, 70)),
    (dict(type='RandomCrop', crop_size=32, padding=8, pad_val=255), (32, 32)),
    (dict(type='Rotate', angle=40.0, prob=1.0, pad_val=255), (48, 64)),
    (dict(type='Shear', magnitude=0.4, prob=1.0, pad_val=255), (48, 64)),
    (dict(type='Translate', magnitude=0.3, prob=1.0, pad_val=255), (48, 64)),
]


def stock(cfg):
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return TRANSFORMS.build(cfg)


@pytest.mark.parametrize(
    ('cfg', 'shape'), STOCK, ids=[cfg['type'] for cfg, _ in STOCK]
)
def test_stock_transforms_take_a_sketch(tmp_path, cfg, shape):
    """None adds ink where it pads, and the packed tensor has one channel."""
    sketch = np.full((48, 64), 255, np.uint8)
    sketch[20:28, 28:36] = 0
    Image.fromarray(sketch).save(tmp_path / 'a.png')
    np.random.seed(0)
    results = LoadSketch()(dict(img_path=str(tmp_path / 'a.png')))
    results = stock(cfg)(results)
    assert results['img'].shape == shape and results['img'].dtype == np.uint8
    # All that is dark is one piece, inside white paper.
    dark = (results['img'] < 250).astype(np.uint8)
    assert cv2.connectedComponents(dark)[0] <= 2
    if cfg['type'] not in ('RandomResizedCrop', 'RandomCrop'):
        assert dark.any() and not dark[[0, -1]].any()
    packed = stock(dict(type='PackInputs'))(results)
    assert packed['inputs'].shape == (1, *shape)


def grid(height=60, width=80):
    """A photo and a sketch whose pixels tell where they came from."""
    y, x = np.mgrid[:height, :width].astype(np.uint8)
    return np.stack([x, y, x], axis=-1), (x + y) + np.uint8(60)


@pytest.mark.parametrize(
    'cfg',
    [
        dict(type='RandomFlip', prob=0.5),
        dict(type='RandomResizedCrop', scale=48, interpolation='nearest'),
        dict(type='RandomResizedCrop', scale=48),
        dict(type='mmpretrain.RandomCrop', crop_size=32),
    ],
    ids=str,
)
def test_shared_geometry_keeps_a_sketch_on_its_photo(cfg):
    for seed in range(10):
        np.random.seed(seed)
        source, target = grid()
        with DefaultScope.overwrite_default_scope('mmpretrain'):
            shared = SharedGeometry([cfg])
        pair = shared(
            dict(
                pair_id='a',
                source=dict(img=source, img_shape=(60, 80)),
                target=dict(img=target, img_shape=(60, 80), modality='sketch'),
            )
        )
        moved = pair['source']['img'].astype(int)
        expected = moved[..., 0] + moved[..., 1] + 60
        # Each is rounded on its own when interpolated.
        nearest = 'interpolation' in cfg or 'Resized' not in cfg['type']
        difference = np.abs(pair['target']['img'] - expected)
        assert difference.max() <= (0 if nearest else 2)


def test_sketches_are_interpolated(tmp_path):
    """Nearest shrinking would drop fine strokes; 'depth' gets it."""
    np.random.seed(0)
    sketch = np.full((64, 64), 255, np.uint8)
    sketch[:, 1::2] = 0
    pair = dict(pair_id='a')
    for side in ('source', 'target'):
        pair[side] = dict(img=sketch, img_shape=(64, 64), modality='sketch')
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        cfg = dict(type='Resize', scale=(32, 32))
        pair = SharedGeometry([cfg], interpolation='area')(pair)
    assert set(np.unique(pair['target']['img'])) <= {127, 128}


def test_on_side_names_the_pair_and_the_reason(tmp_path):
    Image.fromarray(255 - drawing()).save(tmp_path / 's.png')
    transform = OnSide('target', [dict(type='mmcmcd.LoadSketch')])
    pair = dict(pair_id='cat/1', target=dict(img_path=str(tmp_path / 's.png')))
    with pytest.raises(UnreadableFileError, match='cat/1.*white on black'):
        transform(pair)


def test_pairs_from_photos_alone(tmp_path):
    cv2.imwrite(str(tmp_path / 'p.png'), photo())
    pair = dict(pair_id='a')
    for side in ('source', 'target'):
        pair[side] = dict(img_path=str(tmp_path / 'p.png'))
    for transform in (
        OnSide(('source', 'target'), [dict(type='mmcmcd.LoadImageStrict')]),
        OnSide('target', [dict(type='mmcmcd.SketchFromImage')]),
        PackPairedInputs(),
    ):
        pair = transform(pair)
    assert pair['inputs']['source'].shape == (3, 96, 128)
    assert pair['inputs']['target'].shape == (1, 96, 128)


# Sketches from images -------------------------------------------------------


def draw(img, seed=0, **kwargs):
    np.random.seed(seed)
    return SketchFromImage(**kwargs)(dict(img=img))['img']


@pytest.mark.parametrize('style', STYLES)
@pytest.mark.parametrize('size', [(1, 1), (2, 3), (17, 40), (96, 128)])
def test_any_size(style, size):
    rng = np.random.default_rng(0)
    for shape in (size, (*size, 1), (*size, 3)):
        img = rng.integers(0, 256, shape, dtype=np.uint8)
        kept = img.copy()
        results = dict(img=img)
        results = SketchFromImage(style)(results)
        assert results['img'].shape == size
        assert results['img'].dtype == np.uint8
        assert results['modality'] == 'sketch'
        np.testing.assert_array_equal(img, kept)


@pytest.mark.parametrize('style', STYLES)
def test_dark_strokes_on_white_paper(style):
    for seed in range(5):
        sketch = draw(photo(seed=seed), seed, styles=style)
        assert np.median(sketch) == 255 and sketch.min() < 30
        assert not is_inverted(sketch) and not is_blank(sketch)


@pytest.mark.parametrize('style', STYLES)
def test_strokes_lie_on_edges(style):
    img = np.full((100, 100), 60, np.uint8)
    img[:, 50:] = 180
    sketch = draw(img, styles=style, drop=(0, 0))
    columns = np.flatnonzero((sketch < 128).mean(axis=0) > 0.9)
    assert len(columns)
    assert columns.min() >= 40 and columns.max() <= 60
    assert (sketch[:, :35] == 255).all() and (sketch[:, 65:] == 255).all()


@pytest.mark.parametrize('style', ['dog', 'pencil'])
def test_line_styles_draw_dark_lines(style):
    img = np.full((100, 100), 200, np.uint8)
    img[:, 49:51] = 120
    sketch = draw(img, styles=style)
    columns = np.flatnonzero((sketch < 128).all(axis=0))
    assert {49, 50} <= set(columns) and len(columns) < 10


def test_seed_decides():
    img = photo()
    for seed in range(4):
        np.testing.assert_array_equal(draw(img, seed), draw(img, seed))
    different = {draw(img, seed).tobytes() for seed in range(8)}
    assert len(different) == 8


def test_every_style_is_drawn():
    img = photo()
    fixed = dict(sigma=(2, 2), ink=(0.05, 0.05), drop=(0, 0))
    alone = {draw(img, styles=s, **fixed).tobytes() for s in STYLES}
    drawn = {draw(img, seed, **fixed).tobytes() for seed in range(40)}
    assert len(alone) == 4 and drawn == alone


@pytest.mark.parametrize('style', STYLES)
def test_brightness_and_contrast_do_not_matter(style):
    img = photo().astype(np.float32)
    img = cv2.cvtColor(img, cv2.COLOR_BGR2GRAY)
    plain = draw(img, styles=style)
    for scale, shift in [(0.1, 0), (0.1, 220), (0.5, 60), (200, 5000)]:
        out = draw(img * scale + shift, styles=style)
        # Rounding moves single edge pixels at most.
        assert (np.abs(out.astype(int) - plain) > 8).mean() < 0.005


@pytest.mark.parametrize('style', STYLES)
def test_dark_and_pale_8_bit_photos_give_strokes(style):
    full = ink(draw(photo(), styles=style))
    for scale, shift in [(0.1, 0), (0.1, 225)]:
        img = (photo() * scale + shift).astype(np.uint8)
        assert 0.3 * full < ink(draw(img, styles=style)) < 3 * full


@pytest.mark.parametrize('style', STYLES)
def test_mirrored_photo_gives_mirrored_sketch(style):
    """Up to the samples that the threshold is estimated from."""
    img = photo(97, 129)  # odd: the same samples
    out = draw(img, styles=style, drop=(0, 0))
    mirrored = draw(img[:, ::-1].copy(), styles=style, drop=(0, 0))
    different = np.abs(out.astype(int) - mirrored[:, ::-1]) > 64
    assert different.mean() < 0.01


@pytest.mark.parametrize('style', STYLES)
def test_flat_images_give_white_paper(style):
    for level in (0, 100, 255):
        img = np.full((40, 40, 3), level, np.uint8)
        assert (draw(img, styles=style) == 255).all()
        img[::2] += np.uint8(3) if level < 255 else np.uint8(0)
        assert (draw(img, styles=style) == 255).all()


@pytest.mark.parametrize('style', STYLES)
def test_a_ramp_is_not_filled(style):
    """A sky has a slope everywhere and an edge nowhere."""
    img = np.linspace(0, 255, 256).astype(np.float32)[None].repeat(256, 0)
    sketch = draw(img, styles=style, drop=(0, 0))
    if style == 'pencil':  # which compares, so black is dark beside grey
        sketch = sketch[:, 32:]
    assert (sketch == 255).all()


@pytest.mark.parametrize('style', ['canny', 'scharr', 'dog'])
def test_faint_texture_beside_a_strong_edge_stays_out(style):
    rng = np.random.default_rng(0)
    texture = cv2.GaussianBlur(rng.normal(0, 1, (256, 256)), (0, 0), 4)
    img = 120 + 1.5 * texture / texture.std()
    img[:, 128:] += 100
    out = draw(img.astype(np.float32), styles=style, ink=(0.2, 0.2))
    assert ink(out) > 0.004
    assert (out[:, :96] == 255).all() and (out[:, 160:] == 255).all()


@pytest.mark.parametrize('style', STYLES)
def test_specks_stay_out(style):
    img = np.full((256, 256), 255, np.uint8)
    img[10:246, 60:64] = 0
    img[20:240:20, 150:152] = 0
    out = draw(img, styles=style, drop=(0, 0))
    assert ink(out[:, :100]) > 0.01
    assert (out[:, 100:] == 255).all()


@pytest.mark.parametrize('style', ['scharr', 'dog', 'pencil'])
@pytest.mark.parametrize('share', [0.02, 0.05, 0.1])
def test_share_of_ink(style, share):
    """Random texture has edges enough: only short strokes are missing."""
    noise = np.random.default_rng(0).uniform(0, 255, (256, 256))
    img = cv2.GaussianBlur(noise, (0, 0), 6).astype(np.float32)
    out = draw(img, styles=style, ink=(share, share), drop=(0, 0))
    assert 0.5 * share < ink(out) < 1.3 * share


def test_more_ink_more_strokes():
    img = photo()
    for style in STYLES:
        few, many = (
            ink(draw(img, styles=style, ink=(s, s), drop=(0, 0)))
            for s in (0.02, 0.15)
        )
        assert few < many


@pytest.mark.parametrize('style', STYLES)
def test_strokes_scale_with_the_image(style):
    """The same drawing whatever the resolution."""
    img = photo(240, 320)
    large = cv2.resize(img, (640, 480), interpolation=cv2.INTER_CUBIC)
    fixed = dict(styles=style, sigma=(3, 3), ink=(0.06, 0.06), drop=(0, 0))
    small = draw(img, **fixed).astype(np.float32)
    shrunk = cv2.resize(
        draw(large, **fixed), (320, 240), interpolation=cv2.INTER_AREA
    )
    blurred = [cv2.GaussianBlur(s, (0, 0), 3).ravel() for s in (small, shrunk)]
    assert np.corrcoef(*blurred)[0, 1] > 0.9


def test_dropped_strokes():
    img = np.full((200, 200), 255, np.uint8)
    for k in range(10):
        cv2.circle(img, (20 + 40 * (k % 5), 50 + 100 * (k // 5)), 15, 0, -1)
    img[180:184] = 0  # the longest

    def count(drop, seed):
        sketch = draw(img, seed, styles='canny', ink=(0.1, 0.1), drop=drop)
        dark = (sketch < 255).astype(np.uint8)
        assert sketch[176:188].min() < 128
        return cv2.connectedComponents(dark)[0] - 1

    everything = count((0, 0), 0)
    assert everything >= 11
    assert count((1, 1), 0) == 1
    half = [count((0.5, 0.5), seed) for seed in range(20)]
    assert 0.3 * everything < np.mean(half) < 0.75 * everything


@pytest.mark.parametrize(
    ('wrong', 'message'),
    [
        (dict(styles=['canny', 'oil']), "'canny', 'scharr', 'dog', 'pencil'"),
        (dict(styles=[]), 'styles'),
        (dict(sigma=(2, 1)), 'sigma'),
        (dict(sigma=(0, 1)), 'sigma'),
        (dict(ink=(0.1, 0.9)), 'ink'),
        (dict(drop=(-0.1, 0.9)), 'drop'),
    ],
)
def test_wrong_arguments(wrong, message):
    with pytest.raises(ConfigError, match=message):
        SketchFromImage(**wrong)


@pytest.mark.parametrize('shape', [(8, 8, 4), (8, 8, 2), (8,)])
def test_wrong_image(shape):
    with pytest.raises(DatasetError, match='BGR'):
        SketchFromImage()(dict(img=np.zeros(shape, np.uint8)))


# Width of strokes -----------------------------------------------------------


def with_width(sketch, change, **kwargs):
    transform = RandomStrokeWidth((change, change), prob=1.0, **kwargs)
    return transform(dict(img=sketch))['img']


def test_width_grows_by_pixels():
    sketch = np.full((256, 256), 255, np.uint8)
    sketch[:, 100:103] = 0
    for pixels in (1, 2, 4):
        out = with_width(sketch, pixels)
        assert (out[128] == 0).sum() == 3 + 2 * pixels
    out = with_width(sketch, 0.5)
    assert out[128, 99] == out[128, 103] == 128 and out[128, 98] == 255
    # Half the size, half the pixels.
    assert (with_width(sketch[:128], 2)[60] == 0).sum() == 5


def test_width_changes_monotonically_and_never_erases():
    sketch = np.full((256, 256), 255, np.uint8)
    cv2.circle(sketch, (128, 128), 60, 0, 1)
    sums = [
        with_width(sketch, change).astype(int).sum()
        for change in (-0.5, -0.25, 0, 0.3, 1, 1.5)
    ]
    assert sums == sorted(sums, reverse=True) and len(set(sums)) == 6
    np.testing.assert_array_equal(with_width(sketch, 0), sketch)
    assert not is_blank(with_width(sketch, -0.5))


def test_width_is_random_by_seed_and_prob():
    sketch = drawing()
    transform = RandomStrokeWidth()
    outs = []
    for seed in [*range(12), *range(12)]:
        np.random.seed(seed)
        outs.append(transform(dict(img=sketch))['img'].tobytes())
    assert outs[:12] == outs[12:]
    assert 3 < len(set(outs)) < 12  # some are left as they are
    untouched = RandomStrokeWidth(prob=0)(dict(img=sketch))['img']
    assert untouched is sketch


@pytest.mark.parametrize('change', [(1, 0), (-2, 0)])
def test_wrong_width(change):
    with pytest.raises(ConfigError, match='change'):
        RandomStrokeWidth(change)


# Real data ------------------------------------------------------------------


def real(column, count):
    with open(REAL / 'pairs.csv', newline='') as file:
        paths = sorted({row[column] for row in csv.DictReader(file)})
    return [str(REAL / path) for path in paths[:: len(paths) // count]]


@needs_real
def test_real_sketches_are_as_expected():
    for path in real('sketch', 200):
        sketch = load(path)
        assert np.median(sketch) == 255 and 0.002 < ink(sketch) < 0.2
        assert is_inverted(255 - sketch)


@needs_real
@pytest.mark.parametrize('style', STYLES)
def test_real_photos_give_as_much_ink_as_people_use(style):
    drawn = np.median([ink(load(path)) for path in real('sketch', 100)])
    shares = []
    for seed, path in enumerate(real('photo', 40)):
        sketch = draw(cv2.imread(path), seed, styles=style)
        shares.append(ink(sketch))
        assert 0.002 < shares[-1] < 0.2, path
        assert not is_inverted(sketch)
    assert 0.5 * drawn < np.median(shares) < 2 * drawn
