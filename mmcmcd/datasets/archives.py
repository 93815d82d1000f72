"""Archives of arrays, seen as folders: ``data/inertial.npz/a01_s1_t1``.

A ``.npz``, ``.h5`` or ``.hdf5`` file in a path stands for a folder whose files
are its arrays; an HDF5 group is a sub-folder. Archives must be local files.
"""

import math
import os
import os.path as osp
import zipfile
from collections import OrderedDict

from mmcmcd.errors import ConfigError, UnreadableFileError

from .hdf5_links import find_outside_storage, get_inside
from .npy_files import decode_npy

_HDF5 = ('.h5', '.hdf5')
_SUFFIXES = ('.npz', *_HDF5)
_MOST_OPEN = 8  # archives; each holds a file descriptor and its table
_MOST_KEPT = 64 * 2**20  # bytes; a smaller archive stays unpacked in memory
# An array of more bytes must not shrink to less than one in so many; zeros
# shrink to one in 1000.
_MOST_UNPACKED = 512 * 2**20
_MOST_PACKED = 200
# What zipfile and h5py raise on damaged files.
_DAMAGE = (
    OSError,
    EOFError,
    ValueError,
    RuntimeError,
    SystemError,  # what h5py makes of links that are no UTF-8
    zipfile.BadZipFile,
    zipfile.zlib.error,
)


def split_archive_path(path):
    """Split a path behind the first archive in it.

    Args:
        path (str): Path of a file, or of an array in an archive.

    Returns:
        tuple[str, str]: The archive and the name of the array or group in
        it, '' where the path ends with the archive. ``('', path)`` for a
        path without an archive.
    """
    parts = path.split('/')
    for number, part in enumerate(parts, 1):
        archive = '/'.join(parts[:number])
        if part.lower().endswith(_SUFFIXES) and not osp.isdir(archive):
            return archive, '/'.join(parts[number:])
    return '', path


def list_arrays(archive):
    """Names of all arrays in an archive.

    Args:
        archive (str): A ``.npz``, ``.h5`` or ``.hdf5`` file.

    Returns:
        list[str]: Sorted; 'group/name' for an array in a group.

    Raises:
        ConfigError: An HDF5 file is met, but h5py is not installed.
        FileNotFoundError: There is no such file.
        UnreadableFileError: The file is damaged, or of another kind.
    """
    return sorted(_opened.get(archive).names())


def read_array(archive, name=''):
    """Read one array.

    The archive stays open for the next call of the same process.

    Args:
        archive (str): A ``.npz``, ``.h5`` or ``.hdf5`` file.
        name (str): Of the array. Defaults to '', the only one.

    Returns:
        np.ndarray: The array as it is stored; read-only if it is kept for
        the next call.

    Raises:
        ConfigError: An HDF5 file is met, but h5py is not installed.
        UnreadableFileError: The file is missing or damaged, has no such
            array, or the array holds objects.
    """
    try:
        opened = _opened.get(archive)
    except (FileNotFoundError, NotADirectoryError):
        raise UnreadableFileError(
            f'File does not exist: {archive}. Check data_root and the folder '
            'of this side.'
        ) from None
    names = opened.names()
    if not name and len(names) == 1:
        name = next(iter(names))
    if name not in names:
        some = ', '.join(sorted(names)[:5]) or 'nothing'
        more = ', ...' if len(names) > 5 else ''
        wanted = f"no array '{name}'" if name else 'more than one array'
        raise UnreadableFileError(
            f'{archive} has {wanted}; it holds {len(names)}: {some}{more}. '
            "Write the path of an array as 'archive/name'."
        )
    try:
        return opened.read(name)
    except MemoryError:
        raise UnreadableFileError(
            f'Cannot read {archive}/{name}: it does not fit into memory.'
        ) from None
    except (*_DAMAGE, KeyError) as error:
        raise UnreadableFileError(
            f'Cannot read {archive}/{name}: damaged, or not a plain numeric '
            f'array ({error}).'
        ) from error


class _Npz:
    def __init__(self, path):
        if not zipfile.is_zipfile(path):
            raise ValueError('it is no zip archive')
        self._zip = zipfile.ZipFile(path)
        self._members = {
            member.filename.removesuffix('.npy'): member
            for member in self._zip.infolist()
        }
        self._size = os.path.getsize(path)
        size = sum(member.file_size for member in self._members.values())
        self._kept = {} if size <= _MOST_KEPT else None

    def names(self):
        return self._members.keys()

    def read(self, name):
        if self._kept is None:
            return self._read(name)
        if name not in self._kept:
            array = self._read(name)
            array.flags.writeable = False  # others will get it, too
            self._kept[name] = array
        return self._kept[name]

    def _read(self, name):
        member = self._members[name]
        # The directory of the archive may lie about what is packed.
        packed = min(member.compress_size, self._size)
        _refuse_bomb(member.file_size, packed)
        # It unpacks no more than the directory says.
        return decode_npy(self._zip.read(member), name)

    def close(self):
        self._zip.close()


class _Hdf5:
    def __init__(self, path):
        try:
            import h5py
        except ImportError:
            raise ConfigError(
                f'Reading {path} needs h5py, which is not installed. Run: '
                "pip install 'mmcmcd[nyu]'"
            ) from None
        names = []
        self._file = h5py.File(path, 'r')
        # Unlike visititems it knows soft links, and all names of an array.
        self._file.visititems_links(lambda name, _: names.append(name))
        self._names = frozenset(filter(self._is_array, names))

    def _is_array(self, name):
        try:
            return hasattr(get_inside(self._file, name), 'shape')
        except (*_DAMAGE, KeyError):
            return True  # whoever reads it will hear that it is damaged

    def names(self):
        return self._names

    def read(self, name):
        dataset = get_inside(self._file, name)
        outside = find_outside_storage(dataset)
        if outside:
            raise ValueError(
                f'its values are in {outside[:3]}, and other files than the '
                'archive itself are not read'
            )
        if dataset.shape is None or dataset.dtype.hasobject:
            raise ValueError('a text or nothing')
        promised = math.prod(dataset.shape) * dataset.dtype.itemsize
        _refuse_bomb(promised, dataset.id.get_storage_size())
        return dataset[()]

    def close(self):
        self._file.close()


def _refuse_bomb(size, packed):
    """Refuse an array of which nearly nothing is there."""
    if size > _MOST_UNPACKED and size > _MOST_PACKED * packed:
        raise ValueError(
            f'{size} bytes are promised, of which {packed} are there: no '
            'array packs so well'
        )


class _OpenArchives:
    """The archives used last, opened by this very process.

    A loader worker that is forked inherits open files, which share their
    position with those of its parent; it must open them again. So must
    everybody when a file was written anew.
    """

    def __init__(self, most):
        self._most = most
        self._files = OrderedDict()
        self._pid = os.getpid()

    def get(self, path):
        """Return the open archive."""
        if self._pid != os.getpid():
            self._keep(0)
            self._pid = os.getpid()
        status = os.stat(path)
        stamp = status.st_mtime_ns, status.st_size
        known, archive = self._files.pop(path, (None, None))
        if known != stamp:
            if archive is not None:
                archive.close()
            archive = _open(path)
        self._files[path] = stamp, archive
        self._keep(self._most)
        return archive

    def _keep(self, number):
        while len(self._files) > number:
            _, (_, archive) = self._files.popitem(last=False)
            archive.close()


def _open(path):
    kind = _Hdf5 if path.lower().endswith(_HDF5) else _Npz
    try:
        return kind(path)
    except _DAMAGE as error:
        # ConfigError is a ValueError, too.
        if isinstance(error, ConfigError):
            raise
        raise UnreadableFileError(
            f'Cannot open {path} ({osp.getsize(path)} bytes): damaged, '
            f'truncated or not what its name says ({error}).'
        ) from error


_opened = _OpenArchives(_MOST_OPEN)
