import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from mmcmcd.datasets.transforms import (
    LoadDepthFromFile,
    LoadImageStrict,
    LoadSketch,
)
from mmcmcd.datasets.transforms.image_headers import MAX_PIXELS, image_size
from mmcmcd.errors import ConfigError, UnreadableFileError

IMAGE = np.random.default_rng(0).integers(0, 256, (9, 14), dtype=np.uint8)


def encoded(kind, **kwargs):
    file = io.BytesIO()
    Image.fromarray(IMAGE).convert('RGB').save(file, kind, **kwargs)
    return file.getvalue()


@pytest.mark.parametrize(
    'kind, kwargs',
    [
        ('PNG', {}),
        ('JPEG', {}),
        ('JPEG', dict(progressive=True)),
        ('TIFF', {}),
        ('TIFF', dict(big_tiff=True)),
        ('BMP', {}),
        ('GIF', {}),
        ('PPM', {}),
        ('WEBP', dict(lossless=True)),
        ('WEBP', dict(quality=80)),
        ('WEBP', dict(quality=80, exif=b'Exif\0\0II*\0' + bytes(8))),
    ],
)
def test_size_is_that_of_the_decoded_image(kind, kwargs):
    content = encoded(kind, **kwargs)
    assert image_size(content) == (14, 9)
    # Nothing that is cut off has a size that is made up.
    for end in range(len(content)):
        assert image_size(content[:end]) in (None, (14, 9))


def test_limit_is_that_of_pillow():
    assert MAX_PIXELS == 1024**3 // 4 // 3 == Image.MAX_IMAGE_PIXELS


def png(width, height):
    head = struct.pack('>IIBBBBB', width, height, 8, 0, 0, 0, 0)
    chunks = [(b'IHDR', head), (b'IDAT', zlib.compress(b'0')), (b'IEND', b'')]
    return b'\x89PNG\r\n\x1a\n' + b''.join(
        struct.pack('>I', len(body))
        + kind
        + body
        + struct.pack('>I', zlib.crc32(kind + body))
        for kind, body in chunks
    )


def jpeg(width, height):
    content = bytearray(encoded('JPEG'))
    place = content.index(b'\xff\xc0')
    content[place + 5 : place + 9] = struct.pack('>HH', height, width)
    return bytes(content)


def tiff(width, height, order='<', big=False):
    mark = b'II' if order == '<' else b'MM'
    fields, entry = ('HHHQQ', 'HHQQ') if big else ('HIH', 'HHII')
    if big:
        head = struct.pack(f'{order}HHHQQ', 43, 8, 0, 16, 2)
    else:
        head = struct.pack(f'{order}HIH', 42, 8, 2)
    assert len(head) == struct.calcsize(order + fields)
    for tag, value in ((256, width), (257, height)):
        head += struct.pack(order + entry, tag, 4, 1, value)
        if order == '>' and big:  # four bytes of the field are used
            head = head[:-8] + struct.pack('>I4x', value)
    return mark + head + bytes(8)


def webp(width, height):
    sides = b''.join((n - 1).to_bytes(3, 'little') for n in (width, height))
    body = b'WEBPVP8X' + struct.pack('<I', 10) + bytes(4) + sides
    return b'RIFF' + struct.pack('<I', len(body)) + body


def bmp(width, height):
    content = bytearray(encoded('BMP'))
    struct.pack_into('<ii', content, 18, width, height)
    return bytes(content)


def gif(width, height):
    content = bytearray(encoded('GIF'))
    struct.pack_into('<HH', content, 6, width, height)
    return bytes(content)


def exr(width, height):
    window = struct.pack('<4i', 0, 0, width - 1, height - 1)
    return b'v/1\x01' + bytes(4) + b'dataWindow\0box2i\0\x10\0\0\0' + window


def two_headers(width, height):
    """A small frame first; which one would a decoder take?"""
    content = jpeg(width, height)
    small = b'\xff\xc0' + struct.pack('>HBHHBBBB', 11, 8, 8, 8, 1, 1, 17, 0)
    return content[:2] + small + content[2:]


BOMBS = dict(
    png=png,
    jpg=jpeg,
    tiff=tiff,
    tiff_be=lambda w, h: tiff(w, h, '>'),
    bigtiff=lambda w, h: tiff(w, h, big=True),
    bigtiff_be=lambda w, h: tiff(w, h, '>', big=True),
    webp=webp,
    bmp=bmp,
    gif=gif,
    exr=exr,
    twice=two_headers,
)


@pytest.mark.parametrize('kind', BOMBS)
@pytest.mark.parametrize(
    'loader',
    [
        LoadImageStrict(),
        LoadImageStrict(imdecode_backend='pillow'),
        LoadDepthFromFile(depth_scale=1.0),
        LoadSketch(),
    ],
)
def test_bombs_are_not_decoded(tmp_path, kind, loader, monkeypatch):
    path = tmp_path / 'a'
    path.write_bytes(BOMBS[kind](60000, 60000))
    assert path.stat().st_size < 2000

    def explode(*_, **__):
        raise AssertionError('decoded')

    monkeypatch.setattr('mmcv.imfrombytes', explode)
    monkeypatch.setattr(cv2, 'imdecode', explode)
    monkeypatch.setattr(Image.Image, 'load', explode)
    with pytest.raises(UnreadableFileError, match='too large') as error:
        loader(dict(img_path=str(path)))
    assert str(path) in str(error.value)


def test_limit_can_be_moved(tmp_path):
    path = tmp_path / 'a.png'
    path.write_bytes(encoded('PNG'))
    item = dict(img_path=str(path))
    for cls, kwargs in (
        (LoadImageStrict, {}),
        (LoadSketch, dict(on_inverted='keep')),
    ):
        assert 'img' in cls(max_pixels=126, **kwargs)(dict(item))
        with pytest.raises(UnreadableFileError, match='14 x 9.*is 125'):
            cls(max_pixels=125, **kwargs)(dict(item))
        assert cls(max_pixels=1, ignore_empty=True)(dict(item)) is None
    cv2.imwrite(str(path), IMAGE.astype(np.uint16))
    assert LoadDepthFromFile(1.0, max_pixels=126)(dict(item))
    with pytest.raises(UnreadableFileError, match='14 x 9.*is 125'):
        LoadDepthFromFile(1.0, max_pixels=125)(dict(item))


@pytest.mark.parametrize('max_pixels', [0, -1, None, '9'])
def test_limit_must_be_a_number(max_pixels):
    for make in (
        LoadImageStrict,
        LoadSketch,
        lambda **kwargs: LoadDepthFromFile(1.0, **kwargs),
    ):
        with pytest.raises(ConfigError, match='max_pixels'):
            make(max_pixels=max_pixels)


def test_header_of_the_wrong_length(tmp_path):
    content = bytearray(encoded('PNG'))
    content[8:12] = struct.pack('>I', 2)
    path = tmp_path / 'a.png'
    path.write_bytes(content)
    assert image_size(bytes(content)) is None
    for backend in ('cv2', 'pillow'):
        with pytest.raises(UnreadableFileError, match='truncated|Cannot dec'):
            LoadImageStrict(imdecode_backend=backend)(dict(img_path=str(path)))


def test_limit_of_pillow_is_no_bug(tmp_path, monkeypatch):
    """It holds where max_pixels is larger."""
    path = tmp_path / 'a.png'
    path.write_bytes(encoded('PNG'))
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 10)
    loader = LoadImageStrict(imdecode_backend='pillow')
    with pytest.raises(UnreadableFileError, match='Cannot decode'):
        loader(dict(img_path=str(path)))
    path.write_bytes(encoded('BMP'))
    with pytest.raises(UnreadableFileError, match=r'a\.png.*limit of Pillow'):
        LoadImageStrict()(dict(img_path=str(path)))


@pytest.mark.parametrize('size', [600, 2**16, 2**30, 2**31 - 1, 2**32 - 1])
def test_part_of_a_png_that_claims_to_be_long(tmp_path, size, monkeypatch):
    """OpenCV would take that much memory first."""
    content = bytearray(encoded('PNG'))
    place = content.index(b'IDAT')
    content[place - 4 : place] = struct.pack('>I', size)
    path = tmp_path / 'a.png'
    path.write_bytes(content)
    assert len(content) < 600 and content.endswith(b'IEND\xaeB`\x82')

    def explode(*_, **__):
        raise AssertionError('decoded')

    monkeypatch.setattr(cv2, 'imdecode', explode)
    for loader in (LoadImageStrict(), LoadDepthFromFile(depth_scale=1.0)):
        with pytest.raises(UnreadableFileError, match='truncated'):
            loader(dict(img_path=str(path)))
