"""Which files there are."""

import errno
import os.path as osp
from collections import defaultdict

from mmengine import fileio

from mmcmcd.errors import DatasetError

from .archives import list_arrays, split_archive_path

# No such folder, a file instead of one, a name that is too long, or links in
# a circle.
_NO_FOLDER = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP)


class FileIndex:
    """Answers "does this file exist" by listing each folder only once.

    An archive is a folder of arrays, see :mod:`mmcmcd.datasets.archives`.

    Args:
        backend_args (dict, optional): Of the ``mmengine.fileio`` backend.
    """

    def __init__(self, backend_args=None):
        self.backend_args = backend_args
        self._names = {}

    def walk(self, folder):
        """List the files in ``folder`` and below, relative, sorted.

        Raises:
            FileNotFoundError: There is no such folder.
            UnreadableFileError: It is a damaged archive.
        """
        archive, group = split_archive_path(folder)
        if archive:
            found = _arrays_below(archive, group)
        else:
            found = sorted(
                name.replace('\\', '/')
                for name in fileio.list_dir_or_file(
                    folder,
                    list_dir=False,
                    recursive=True,
                    backend_args=self.backend_args,
                )
            )
        names = {folder: []}
        for name in found:
            parent, base = osp.split(name)
            key = osp.join(folder, parent) if parent else folder
            names.setdefault(key, []).append(base)
        self._names.update((k, _by_lower_case(v)) for k, v in names.items())
        return found

    def exists(self, path):
        """Whether the file is there (hidden files do not count)."""
        return path in self.in_any_case(path)

    def in_any_case(self, path):
        """The files whose names differ from this at most by case."""
        folder, name = osp.split(path)
        if folder not in self._names:
            self._list(folder)
        names = self._names[folder].get(name.lower(), ())
        return [path[: len(path) - len(name)] + found for found in names]

    def _list(self, folder):
        self._names[folder] = {}
        archive, _ = split_archive_path(folder)
        try:
            if archive:
                self.walk(archive)  # its groups, too: it is read but once
                return
            names = sorted(
                fileio.list_dir_or_file(
                    folder or '.',
                    list_dir=False,
                    backend_args=self.backend_args,
                )
            )
        except OSError as error:
            if error.errno in _NO_FOLDER:
                return
            raise DatasetError(
                f"The folder '{folder}' cannot be listed: {error}."
            ) from error
        self._names[folder] = _by_lower_case(names)


def require_data_root(data_root, owner, howto, backend_args=None):
    """Stop with one helpful message when the data are not there.

    Args:
        data_root (str): The folder; '' is the current one.
        owner (str): Name of the data set class.
        howto (str): How to get the data.
        backend_args (dict, optional): Of the file backend.

    Raises:
        DatasetError: There is no such folder.
    """
    if data_root and not fileio.isdir(data_root, backend_args=backend_args):
        place = data_root if '://' in data_root else osp.abspath(data_root)
        raise DatasetError(
            f"{owner}: the data root '{data_root}' does not exist (looked "
            f"for '{place}'). {howto}"
        )


def _arrays_below(archive, group):
    """Names of the arrays in a group of an archive, relative to it."""
    names = list_arrays(archive)
    if not group:
        return names
    below = f'{group}/'
    names = [name[len(below) :] for name in names if name.startswith(below)]
    if not names:
        raise FileNotFoundError(f'{archive} has no group {group}')
    return names


def _by_lower_case(names):
    groups = defaultdict(list)
    for name in names:
        groups[name.lower()].append(name)
    return dict(groups)
