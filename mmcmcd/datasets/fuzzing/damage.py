"""Random changes of files, of bytes and of structure."""

import copy
import io
import json
import re
import struct
import zipfile
import zlib

# fmt: off
# Numbers that are too large, negative, or just beyond a type.
_ODD_NUMBERS = (
    0, 1, -1, 2, 127, 255, 256, 4096, 32767, 60000, 65535, 65536, 2**24,
    2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1,
)
# Syntax of headers and lists.
_TOKENS = (
    b'(', b')', b'()', b'[', b'[]', b'{', b'}', b'"', b"'", b',', b':', b'-',
    b'\\', b'\n', b'\r', b'\t', b'\0', b'None', b"'O'", b'../', b'\xff',
    b'://', b'nan', b'1e999',
)
_ODD_VALUES = (
    None, True, -1, 0, 10**400, 1e400, 0.5, '', ' ', '..', '/',
    '../../../etc/passwd', '/etc/passwd', 'http://localhost/x.png',
    'file:///etc/passwd', '..\\..\\x', 'a\0b', '\ud800', 'x' * 5000,
    'rgb/0.png/x', 'a.npz/k', '\r\n', [], {}, [[1]], {'a': {}}, 'NaN',
    '\u202e', '-0',
)
# fmt: on


def damage(content, name, rng, others=(b'',)):
    """Change a file at random.

    Args:
        content (bytes): A valid file.
        name (str): Its name in :func:`make_seeds`.
        rng (np.random.Generator): Where chance comes from.
        others (Sequence[bytes]): Files to take pieces from.

    Returns:
        bytes: Another file, which may be valid, too.
    """
    if name == 'list.json' and rng.random() < 0.7:
        return _damage_json(content, rng)
    if name == 'archive.npz' and rng.random() < 0.5:
        return _damage_member(content, rng)
    content = bytearray(content)
    for _ in range(rng.integers(1, 4)):
        change = _CHANGES[rng.integers(len(_CHANGES))]
        content = bytearray(change(content, rng, others))
    if name.endswith('.png') and rng.random() < 0.6:
        content = _with_checksums(content)
    return bytes(content)


def _place(content, rng, header=64):
    """A position, every other time in the header."""
    end = min(header, len(content)) if rng.random() < 0.5 else len(content)
    return int(rng.integers(max(end, 1)))


def _flip(content, rng, _):
    for _ in range(rng.integers(1, 9)):
        if content:
            content[_place(content, rng) % len(content)] ^= int(
                rng.integers(1, 256)
            )
    return content


def _truncate(content, rng, _):
    return content[: _place(content, rng)]


def _splice(content, rng, others):
    other = others[rng.integers(len(others))] or content
    start = _place(other, rng)
    piece = other[start : start + int(rng.integers(1, 200))]
    place = _place(content, rng)
    overwritten = len(piece) if rng.random() < 0.5 else 0
    return content[:place] + piece + content[place + overwritten :]


def _cut(content, rng, _):
    place = _place(content, rng)
    return content[:place] + content[place + int(rng.integers(1, 40)) :]


def _blank(content, rng, _):
    place = _place(content, rng)
    width = min(int(rng.integers(1, 40)), len(content) - place)
    content[place : place + width] = bytes([rng.choice([0, 255])]) * width
    return content


def _set_number(content, rng, _):
    """Write an odd number over one that may be a length."""
    width = int(rng.choice([1, 2, 4, 8]))
    number = _ODD_NUMBERS[rng.integers(len(_ODD_NUMBERS))] % (1 << 8 * width)
    order = 'little' if rng.random() < 0.5 else 'big'
    place = _place(content, rng, header=128)
    content[place : place + width] = number.to_bytes(width, order)
    return content


def _set_digits(content, rng, _):
    """Write an odd number over one that stands there as text."""
    found = list(re.finditer(rb'-?\d+', bytes(content[:4096])))
    if not found:
        return content
    place = found[rng.integers(len(found))]
    number = b'%d' % _ODD_NUMBERS[rng.integers(len(_ODD_NUMBERS))]
    if rng.random() < 0.3:
        number += b'0' * int(rng.integers(1, 30))
    return content[: place.start()] + number + content[place.end() :]


def _set_token(content, rng, _):
    """Write a piece of syntax, as headers of arrays and lists have it."""
    found = [m.start() for m in re.finditer(rb'[\W_]', bytes(content[:4096]))]
    if not found:
        return content
    place = found[rng.integers(len(found))]
    token = _TOKENS[rng.integers(len(_TOKENS))]
    if rng.random() < 0.25:
        token *= 2000
    return content[:place] + token + content[place + len(token) :]


_CHANGES = (
    _flip,
    _truncate,
    _splice,
    _cut,
    _blank,
    _set_number,
    _set_number,
    _set_digits,
    _set_token,
)


def _with_checksums(content):
    """Make the checksums of a PNG fit, so that the damage gets further."""
    content, place = bytearray(content), 8
    while place + 12 <= len(content):
        (size,) = struct.unpack_from('>I', content, place)
        end = place + 8 + size
        if end + 4 > len(content):
            break
        struct.pack_into(
            '>I', content, end, zlib.crc32(content[place + 4 : end])
        )
        place = end + 4
    return content


def _damage_member(content, rng):
    """Damage an array inside of an archive that is itself all right."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old:
        members = {name: old.read(name) for name in old.namelist()}
    kind = zipfile.ZIP_DEFLATED if rng.random() < 0.5 else zipfile.ZIP_STORED
    with zipfile.ZipFile(out, 'w', kind) as new:
        for name, member in members.items():
            new.writestr(name, damage(member, 'array.npy', rng))
    return out.getvalue()


def _damage_json(content, rng):
    """Change the structure of a list."""
    top = json.loads(content)
    for _ in range(rng.integers(1, 4)):
        nodes = list(_nodes(top))
        if not nodes:
            break
        holder, key = nodes[rng.integers(len(nodes))]
        value = _ODD_VALUES[rng.integers(len(_ODD_VALUES))]
        how = rng.integers(4)
        if how == 0 and isinstance(holder, list):
            holder.insert(int(key), copy.deepcopy(holder[key]))
        elif how == 1:
            del holder[key]
        elif how == 2 and isinstance(holder, dict):
            holder[str(value)[:50]] = holder.pop(key)
        else:
            holder[key] = copy.deepcopy(value)
    text = json.dumps(top)
    if rng.random() < 0.05:
        text = '[' * 10**5 + text
    return text.encode('utf-8', 'surrogatepass')


def _nodes(holder):
    items = holder.items() if isinstance(holder, dict) else enumerate(holder)
    for key, value in items:
        yield holder, key
        if isinstance(value, (dict, list)):
            yield from _nodes(value)
