"""What a file is that is no readable checkpoint, by its first bytes."""

import zipfile

_HEADS = (
    (b'version https://git-lfs', 'a Git LFS pointer, not the file itself'),
    (b'\x89HDF', 'an HDF5 file'),
    (b'\x1f\x8b', 'a gzip archive'),
    (b'MATLAB', 'a MATLAB file'),
)
_BYTES = 512
_TAR, _TAR_AT = b'ustar', 257


def describe_file(path):
    """Say what kind of file this is.

    Args:
        path (str): A local file.

    Returns:
        str: For the end of a sentence such as 'it is ...'.
    """
    with open(path, 'rb') as file:
        head = file.read(_BYTES)
    if head.startswith(b'PK'):
        return _describe_zip(path)
    if not head:
        return 'an empty file'
    for start, kind in _HEADS:
        if head.startswith(start):
            return kind
    if head.lstrip()[:5].lower() in (b'<!doc', b'<html'):
        return 'a web page, as a failed download leaves it'
    if head[_TAR_AT : _TAR_AT + len(_TAR)] == _TAR:
        return 'a tar archive'
    if head.startswith(b'\x80'):
        return 'a pickle: truncated, or not written by torch.save'
    if head[8:9] == b'{':
        return 'perhaps a safetensors file without that suffix'
    return 'truncated, or not written by torch.save'


def may_hold_pickle(path):
    """Tell whether a file is a pickle, or an archive of pickles.

    Args:
        path (str): A local file.

    Returns:
        bool: False of a text, a web page and the like.
    """
    with open(path, 'rb') as file:
        head = file.read(_BYTES)
    is_tar = head[_TAR_AT : _TAR_AT + len(_TAR)] == _TAR
    return is_tar or head.startswith((b'PK', b'\x80'))


def _describe_zip(path):
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name.split('/', 1)[-1] for name in archive.namelist()]
    except zipfile.BadZipFile:
        return 'truncated'
    if 'data.pkl' in names:
        return 'damaged, or not written by torch.save'
    return 'a zip archive of something else; unpack it'
