"""Archives of arrays, seen as folders: ``data/inertial.npz/a01_s1_t1``.

A ``.npz``, ``.h5`` or ``.hdf5`` file in a path stands for a folder whose files
are its arrays; an HDF5 group is a sub-folder. Archives must be local files.
"""

import os
import os.path as osp
import zipfile
from collections import OrderedDict

import numpy as np

from mmcmcd.errors import ConfigError, UnreadableFileError

_HDF5 = ('.h5', '.hdf5')
_SUFFIXES = ('.npz', *_HDF5)
_MOST_OPEN = 8  # archives; each holds a file descriptor and its table
_MOST_KEPT = 64 * 2**20  # bytes; a smaller archive stays unpacked in memory


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
    except (
        OSError,
        EOFError,
        KeyError,
        ValueError,
        zipfile.BadZipFile,
        zipfile.zlib.error,
    ) as error:
        raise UnreadableFileError(
            f'Cannot read {archive}/{name}: damaged, or not a plain numeric '
            f'array ({error}).'
        ) from error


class _Npz:
    def __init__(self, path):
        # Pickled objects would run code of whoever made the file.
        self._file = np.load(path, allow_pickle=False)
        if not isinstance(self._file, np.lib.npyio.NpzFile):
            raise ValueError('it is no zip archive')
        self._names = frozenset(self._file.files)
        size = sum(member.file_size for member in self._file.zip.infolist())
        self._kept = {} if size <= _MOST_KEPT else None

    def names(self):
        return self._names

    def read(self, name):
        if self._kept is None:
            return self._file[name]
        if name not in self._kept:
            array = self._file[name]
            array.flags.writeable = False  # others will get it, too
            self._kept[name] = array
        return self._kept[name]

    def close(self):
        self._file.close()


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
        self._names = frozenset(
            name
            for name in names
            if isinstance(self._file.get(name), h5py.Dataset)
        )

    def names(self):
        return self._names

    def read(self, name):
        array = self._file[name][()]
        if not hasattr(array, 'ndim'):  # bytes, or h5py.Empty
            raise ValueError('a text or nothing')
        return array

    def close(self):
        self._file.close()


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
    except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
        # ConfigError is a ValueError, too.
        if isinstance(error, ConfigError):
            raise
        raise UnreadableFileError(
            f'Cannot open {path} ({osp.getsize(path)} bytes): damaged, '
            f'truncated or not what its name says ({error}).'
        ) from error


_opened = _OpenArchives(_MOST_OPEN)
