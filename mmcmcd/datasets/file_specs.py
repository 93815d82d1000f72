"""Where the files of one side are, and which names lead out of there."""

import os
import os.path as osp
import posixpath
import re

from mmcmcd.errors import ConfigError

# Kind of fault of a name that leads out of the data set.
OUTSIDE = 'path outside of the data root'
_RESERVED = (
    'pair_id',
    'group_id',
    'group_index',
    'sample_idx',
    'sides',
    'label',
    'gt_label',
    'seg_map',
    'seg_map_path',
)
# All other names stay below the folder that they are joined to.
_MAY_LEAVE = re.compile(r'\.\.|[\\:]|^/')


class FileSpec:
    """Where the files of one side are: ``<root>/<folder>/<id><suffix>``.

    The folder may be an archive, or a group in one.

    Args:
        name (str): Side, or ``'seg_map'``.
        root (str): Data root.
        folder (str): Folder below the root, or an absolute one.
        suffix (str | list[str]): What follows the id in the file name;
            several are alternatives, of which one must exist. '.jpg' stands
            for '.JPG', too.
        allow_outside (bool): Whether names may lead out of root and folder.
            Defaults to False.

    Attributes:
        whole_names (bool): Whether an id is the whole name of a file, with
            its suffix. Without a partner to find, it may as well tell
            'a.jpg' from 'a.png'.
    """

    def __init__(self, name, root, folder='', suffix=(), allow_outside=False):
        self.name = name
        self.allow_outside = allow_outside
        self.folder = osp.join(root, folder) if folder else root
        self.suffixes = (suffix,) if isinstance(suffix, str) else tuple(suffix)
        self.whole_names = False
        self._homes = [root, self.folder]

    def __str__(self):
        suffix = '|'.join(self.suffixes)
        stem = '<name>' if self.whole_names else '<id>'
        return f'{self.name} = {osp.join(self.folder, stem)}{suffix}'

    def path(self, name):
        """Path of a file that is named in a list or annotation."""
        path = osp.join(self.folder, name)
        if '..' in name and not self.allow_outside and '://' not in path:
            # As it was checked: '..' behind a link leads elsewhere.
            return osp.normpath(path)
        return path

    def find_fault(self, name):
        """Say what is wrong with a name, whether the file exists or not.

        Args:
            name (Any): Of a file, or an id, as a list or annotation has it.

        Returns:
            str: Kind of fault; '' if there is none.
        """
        if not isinstance(name, str):
            return f'{self.name} is no path'
        try:
            possible = b'\0' not in os.fsencode(name)
        except UnicodeEncodeError:
            possible = False
        if not possible:
            return f'{self.name} path that no file can have'
        if self.allow_outside or lies_inside(name, self.folder, self._homes):
            return ''
        return OUTSIDE

    def fits(self, name):
        """Whether ``name`` has one of the suffixes."""
        return any(_ends_with(name, suffix) for suffix in self.suffixes)

    def pair_id(self, name):
        """``name`` without suffix, or without extension if none fits."""
        if self.whole_names:
            return name
        for suffix in self.suffixes:
            if _ends_with(name, suffix):
                return name[: len(name) - len(suffix)]
        return osp.splitext(name)[0]

    def candidates(self, pair_id, index):
        """The existing files of this id, at best exactly one."""
        stem = self.path(pair_id)
        if self.whole_names:
            return [stem] if self.fits(stem) and index.exists(stem) else []
        found = {
            path: None
            for suffix in self.suffixes
            for path in index.in_any_case(stem + suffix)
            if path.startswith(stem) and _ends_with(path, suffix)
        }
        return list(found)


def _ends_with(name, suffix):
    """Whether a name ends so, its extension in upper or lower case."""
    end = name[len(name) - len(suffix) :]
    rest, dot, extension = suffix.rpartition('.')
    start = len(rest + dot)
    if not dot:
        return end == suffix
    return (
        end[:start] == rest + dot and end[start:].lower() == extension.lower()
    )


def lies_inside(name, folder, homes):
    """Whether a name does not lead out of some folders.

    It goes by the text alone: links on the disk may lead where they like.

    Args:
        name (str): Path, relative to ``folder`` or not, or URI.
        folder (str): Path or URI.
        homes (Sequence[str]): Paths or URIs; one of them must hold the file.

    Returns:
        bool: Whether it lies in one of ``homes``.
    """
    if not _MAY_LEAVE.search(name):
        return True
    scheme, path = _normalised(osp.join(folder, name.replace('\\', '/')))
    for home in homes:
        home_scheme, home = _normalised(home)
        below = home.rstrip('/') + '/'
        if scheme == home_scheme and f'{path}/'.startswith(below):
            return True
    return False


def _normalised(path):
    r"""Scheme and absolute path, without '..'; every '\' is a '/'."""
    scheme, is_uri, path = path.replace('\\', '/').rpartition('://')
    if is_uri:
        return scheme, posixpath.normpath(f'/{path}')
    return '', osp.abspath(path).replace('\\', '/')


def choose_sides(known, sides):
    """The specs of all sides, given as such or by name.

    Args:
        known (dict[str, dict]): Folder and suffix of the sides that there
            are.
        sides (dict[str, dict] | Sequence[str], optional): Sides instead of
            these, or names of some of them.

    Returns:
        dict[str, dict]: By name.

    Raises:
        ConfigError: A name is unknown.
    """
    if sides is None or isinstance(sides, dict):
        return dict(known if sides is None else sides)
    unknown = [name for name in sides if name not in known]
    if unknown:
        raise ConfigError(
            f'`sides` names {unknown}; expected some of {list(known)}, or a '
            'dict with the folder and suffix of every side.'
        )
    return {name: known[name] for name in sides}


def check_sides(sides, least):
    """Refuse sides that no item can have.

    Args:
        sides (Iterable[str]): Names.
        least (int): How many there must be.

    Raises:
        ConfigError: There are fewer, or a name is taken.
    """
    if len(sides) < least:
        raise ConfigError(
            f'`sides` names {list(sides)}; expected {least} or more, e.g. '
            "dict(source=dict(folder='rgb', suffix='.jpg'), "
            "target=dict(folder='depth', suffix='.png'))."
        )
    taken = [name for name in sides if name in _RESERVED]
    if taken:
        raise ConfigError(
            f'{taken} cannot be names of sides, the items use them for '
            'something else.'
        )


def tell_files_apart(specs):
    """Keep the suffix in the ids where all sides are the same files.

    Args:
        specs (Sequence[FileSpec]): Of all sides; changed in place.
    """
    places = {(spec.folder, spec.suffixes) for spec in specs}
    for spec in specs:
        same = len(specs) > len(places) == 1
        spec.whole_names = same and bool(spec.suffixes)


def make_file_spec(name, data_root, spec, allow_outside=False):
    """Turn the config of one side into a :class:`FileSpec`.

    Args:
        name (str): Of the side.
        data_root (str): Root of relative paths.
        spec (dict): With ``folder`` and ``suffix``, both optional.
        allow_outside (bool): See :class:`FileSpec`.

    Returns:
        FileSpec: The same.

    Raises:
        ConfigError: There is another key.
    """
    unknown = set(spec) - {'folder', 'suffix'}
    if unknown:
        raise ConfigError(
            f"'{name}' has the unknown keys {sorted(unknown)}; expected "
            'folder and suffix.'
        )
    return FileSpec(name, data_root or '', **spec, allow_outside=allow_outside)
