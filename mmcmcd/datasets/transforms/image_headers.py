"""What the header of an image promises, read without decoding it.

A header of a few bytes can claim an image that does not fit into memory, so
its size is looked at first.
"""

import io
import re
import struct
import zlib

from PIL import Image

from mmcmcd.errors import ConfigError, UnreadableFileError

# Pillow's own limit, a quarter of a gigabyte of 24-bit pixels.
MAX_PIXELS = 89_478_485
EXR_MAGIC = b'v/1\x01'

_PNG_MAGIC = b'\x89PNG\r\n\x1a\n'
_PNG_HEADER = b'\0\0\0\rIHDR'
_JPEG_MAGIC = b'\xff\xd8'
_JPEG_END = b'\xff\xd9'
_JPEG_SCAN = 0xDA
# Frame headers; DHT, JPG and DAC lie between them.
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_EXR_WINDOW = re.compile(rb'dataWindow\0box2i\0\x10\0\0\0(.{16})', re.S)
# Byte order and width of offsets by the first bytes of a TIFF file.
_TIFF_KINDS = {
    b'II*\0': ('<', False),
    b'MM\0*': ('>', False),
    b'II+\0': ('<', True),
    b'MM\0+': ('>', True),
}
_TIFF_SIZE_TAGS = (256, 257)
_TIFF_NUMBERS = {3: 'H', 4: 'I', 16: 'Q'}


def check_max_pixels(owner, max_pixels):
    """Refuse a limit that is no positive number.

    Args:
        owner (object): The transform; its class is named in the message.
        max_pixels (float): The limit.

    Raises:
        ConfigError: It is none.
    """
    if not isinstance(max_pixels, (int, float)) or not max_pixels > 0:
        raise ConfigError(
            f'{type(owner).__name__}: max_pixels must be a positive number '
            f'(width x height), got {max_pixels!r}.'
        )


def check_complete(content, path):
    """Refuse a JPEG or PNG that stops before its end marker.

    Decoders differ here: some fill the missing part of a JPEG with grey and
    only print a warning, and OpenCV takes as much memory as the length of a
    part of a PNG says, up to 2 GB, before it looks for that part.  Other
    formats pass; their decoders do fail.

    Args:
        content (bytes): The file's content.
        path (str): Named in the message.

    Raises:
        UnreadableFileError: The end marker is missing.
    """
    if content.startswith(_PNG_MAGIC):
        complete = _has_png_end(content)
    elif content.startswith(_JPEG_MAGIC):
        scan = _jpeg_scan_start(content)
        complete = scan > 0 and content.rfind(_JPEG_END, scan) >= 0
    else:
        return
    if not complete:
        raise UnreadableFileError(
            f'File is truncated (no end-of-image marker in {len(content)} '
            f'bytes): {path}. Copy or download it again.'
        )


def is_png(content):
    """Whether a file says that it is a PNG.

    Args:
        content (bytes): The file's content.

    Returns:
        bool: By its first bytes.
    """
    return content.startswith(_PNG_MAGIC)


def check_png_sums(content, path):
    """Refuse a PNG of which a part is not as it was written.

    It takes a tenth of the time of decoding, and finds what decoders pass on.

    Args:
        content (bytes): The content of a complete PNG.
        path (str): Named in the message.

    Raises:
        UnreadableFileError: The checksum of a part does not fit.
    """
    for kind, start, end in _png_parts(content):
        stored = int.from_bytes(content[end : end + 4], 'big')
        if zlib.crc32(content[start - 4 : end]) != stored:
            raise UnreadableFileError(
                f'File is damaged (checksum of its part {kind!r}): {path}. '
                'Copy or download it again.'
            )


def check_pixels(content, path, max_pixels=MAX_PIXELS):
    """Refuse an image that claims too many pixels, before it is decoded.

    Args:
        content (bytes): The file's content.
        path (str): Named in the message.
        max_pixels (int): Largest width times height. Defaults to Pillow's
            own limit.

    Raises:
        UnreadableFileError: It has more, or its header does not tell.
    """
    try:
        size = image_size(content)
    except Image.DecompressionBombError as error:
        raise UnreadableFileError(
            f'Image too large: {path} ({len(content)} bytes): {error} Restore '
            'the file or take it out of the list. In files of this kind '
            'the limit of Pillow holds whatever max_pixels is.'
        ) from None
    if size is None:
        if content.startswith(EXR_MAGIC):
            return  # its decoder needs what is missing
        raise UnreadableFileError(
            f'Cannot decode image {path}: it is damaged or not an image of a '
            f'known kind ({len(content)} bytes, starts with '
            f'{content[:8]!r}).'
        )
    width, height = size
    if width * height > max_pixels:
        raise UnreadableFileError(
            f'Image too large: {path} ({len(content)} bytes) claims {width} '
            f'x {height} pixels, max_pixels is {max_pixels:g}. Restore the '
            'file or take it out of the list; if it is meant so, raise '
            'max_pixels of its loader.'
        )


def image_size(content):
    """Read the size of an image out of its header.

    Args:
        content (bytes): The file's content.

    Returns:
        tuple[int, int] | None: Width and height; None if there is no such
        header.

    Raises:
        PIL.Image.DecompressionBombError: Pillow finds it too large, in
            formats that are left to Pillow.
    """
    if content.startswith(_PNG_MAGIC):
        if content[8:16] != _PNG_HEADER or len(content) < 24:
            return None
        return struct.unpack('>II', content[16:24])
    if content.startswith(_JPEG_MAGIC):
        return _jpeg_size(content)
    if content.startswith(EXR_MAGIC):
        return _exr_size(content)
    if content[:4] in _TIFF_KINDS:
        return _tiff_size(content)
    if content[:4] == b'RIFF' and content[8:12] == b'WEBP':
        return _webp_size(content)
    return _pillow_size(content)


def _png_parts(content):
    """Yield kind, start and end of the data of all parts that are there."""
    place = len(_PNG_MAGIC)
    while place + 12 <= len(content):
        kind = content[place + 4 : place + 8]
        end = place + 8 + int.from_bytes(content[place : place + 4], 'big')
        yield kind, place + 8, end
        if kind == b'IEND':
            return
        place = end + 4


def _has_png_end(content):
    """Whether all parts are there in full, up to the last one."""
    return any(kind == b'IEND' for kind, *_ in _png_parts(content))


def _jpeg_segments(content):
    """Yield marker and offset of the segments up to the first scan."""
    pos = 2
    while pos + 4 <= len(content) and content[pos] == 0xFF:
        marker = content[pos + 1]
        if marker == 0xFF:  # fill byte
            pos += 1
            continue
        yield marker, pos
        if marker == _JPEG_SCAN:
            return
        pos += 2 + int.from_bytes(content[pos + 2 : pos + 4], 'big')


def _jpeg_scan_start(content):
    """Return the offset of the first scan, -1 when there is none.

    Searching from there skips an embedded thumbnail, which has an end
    marker of its own.
    """
    for marker, pos in _jpeg_segments(content):
        if marker == _JPEG_SCAN:
            return pos
    return -1


def _jpeg_size(content):
    sizes = [
        struct.unpack('>HH', content[pos + 5 : pos + 9])[::-1]
        for marker, pos in _jpeg_segments(content)
        if marker in _JPEG_FRAMES and pos + 9 <= len(content)
    ]
    return _largest(sizes)


def _exr_size(content):
    sizes = []
    for window in _EXR_WINDOW.findall(content):
        left, top, right, bottom = struct.unpack('<4i', window)
        sizes.append((right - left + 1, bottom - top + 1))
    return _largest(sizes)


def _tiff_size(content):
    """Size of the first image, which is the one that decoders take."""
    order, is_big = _TIFF_KINDS[content[:4]]
    offset, count, entry = ('8xQ', 'Q', 'HHQ8s') if is_big else (
        '4xI', 'H', 'HHI4s')  # fmt: skip
    try:
        (start,) = struct.unpack_from(order + offset, content)
        (number,) = struct.unpack_from(order + count, content, start)
        start += struct.calcsize(order + count)
        step = struct.calcsize(order + entry)
        found = {}
        for place in range(start, start + number * step, step):
            tag, kind, _, raw = struct.unpack_from(
                order + entry, content, place
            )
            if tag in _TIFF_SIZE_TAGS and kind in _TIFF_NUMBERS:
                (value,) = struct.unpack_from(order + _TIFF_NUMBERS[kind], raw)
                found[tag] = max(value, found.get(tag, 0))
    except struct.error:  # it ends before
        return None
    sizes = [found.get(tag) for tag in _TIFF_SIZE_TAGS]
    return None if None in sizes else tuple(sizes)


def _webp_size(content):
    """Size of the canvas or of the picture, whichever comes first."""
    kind, head = content[12:16], content[20:30]
    if len(head) < 10:
        return None
    if kind == b'VP8X':
        sides = [int.from_bytes(head[i : i + 3], 'little') for i in (4, 7)]
        return sides[0] + 1, sides[1] + 1
    if kind == b'VP8L':
        bits = int.from_bytes(head[1:5], 'little')
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b'VP8 ':
        width, height = struct.unpack('<HH', head[6:10])
        return width & 0x3FFF, height & 0x3FFF
    return None


def _pillow_size(content):
    try:
        with Image.open(io.BytesIO(content)) as image:
            return image.size
    except (OSError, SyntaxError, ValueError):
        return None


def _largest(sizes):
    """What the largest claim is; a header should make but one."""
    return max(sizes, key=lambda size: size[0] * size[1], default=None)
