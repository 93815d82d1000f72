import hashlib
import logging
import os.path as osp
import re

from mmcv.transforms import LoadAnnotations
from mmengine.dataset import BaseDataset, force_full_init
from mmengine.logging import print_log

from mmcmcd.errors import (
    BrokenPairError,
    ConfigError,
    DatasetError,
    UnreadableFileError,
)
from mmcmcd.registry import DATASETS

from .archives import split_archive_path
from .class_labels import resolve_label
from .file_index import FileIndex, require_data_root
from .file_specs import (
    OUTSIDE,
    check_sides,
    choose_sides,
    make_file_spec,
    tell_files_apart,
)
from .label_maps import check_label_map
from .pair_lists import read_rows
from .pair_scan import find_pairs, list_faults
from .shared_flags import SharedFlags
from .transforms.random_state import rng_state, set_rng_state


@DATASETS.register_module()
class PairedModalityDataset(BaseDataset):
    """Pairs of files, one file for every modality ("side").

    Three ways to say which files belong together:

    * **folders** (no ``ann_file``): every ``<folder>/<id><suffix>``; the id
      is the path below the folder without the suffix, sub-folders included
      (with it where all sides are the same files, and nothing is to find);
    * **list** (``ann_file='x.txt'``): one id a line, or the paths of all
      sides in their order, separated by tabs or blanks;
    * **annotation** (``ann_file='x.csv'`` or ``'x.json'``): a column (key)
      for every side, optionally ``pair_id``, ``group_id``, ``label`` (an
      integer, or a name out of ``metainfo['classes']``) and ``seg_map``. A
      side without a column is looked for by ``pair_id``. JSON is a list of
      objects, or ``{"metainfo": {...}, "data_list": [...]}``.

    Paths are relative to ``data_root/folder``. A ``.npz``, ``.h5`` or
    ``.hdf5`` file in a path is a folder of arrays: ``folder='inertial.npz',
    suffix=''`` gives paths such as ``inertial.npz/0002``, which
    ``LoadArray`` reads.  An item is::

        dict(pair_id='0002', group_id='kitchen_3', group_index=17,
             sample_idx=5, sides=('source', 'target'),
             source=dict(img_path=...), target=dict(img_path=...),
             # where known:
             gt_label=3, seg_map_path=..., reduce_zero_label=False,
             label_map=None, seg_fields=[])

    ``group_index`` is a 63-bit integer that two pairs share exactly if they
    share the data root and the ``group_id`` (default: the ``pair_id``), also
    across concatenated data sets.

    A pair is never mended: unlike in other data sets an unreadable item is
    not replaced by a random one.

    Args:
        data_root (str): Root of all relative paths. Defaults to ''.
        sides (dict[str, dict] | Sequence[str], optional): ``folder``
            (default '') and ``suffix`` (a string, or a list of alternatives;
            '.jpg' stands for '.JPG', too) of every side, two or more; or the
            names of some of ``cls.SIDES``. Defaults to ``cls.SIDES``.
        ann_file (str): See above. Defaults to ''.
        seg_map (dict, optional): ``folder`` and ``suffix`` of the
            segmentation maps. Defaults to None.
        group_pattern (str, optional): Regular expression for
            :func:`re.search` in the ``pair_id``; its first group, or the
            whole match, is the ``group_id``. Defaults to None.
        strict (bool): Whether incomplete or duplicate pairs are an error.
            If not, they are left out and a warning says how many. Defaults
            to True.
        on_unreadable (str): What to do when a file turns out to be
            unreadable, or the files of a pair to differ in size:
            ``'error'``, or ``'skip'``: use the next good pair instead, at
            most ``max_skip_fraction`` times. A skipped pair is not tried
            again, and costs no random numbers. Defaults to 'error'.
        max_skip_fraction (float): Largest part of the set that may be
            skipped. Defaults to 0.05.
        allow_outside_root (bool): Whether a list may name files outside of
            ``data_root`` and of the ``folder`` of their side (by absolute
            paths, '..' or URIs). If not, such a list is refused, strict or
            not: it would choose which files of the machine are read.
            Defaults to False.
        backend_args (dict, optional): Of the file backend that lists the
            folders. Defaults to None.
        metainfo, filter_cfg, indices, serialize_data, pipeline, test_mode,
            lazy_init: See :class:`mmengine.dataset.BaseDataset`.

    Raises:
        ConfigError: Arguments are unknown or contradict each other.
        DatasetError: The set is missing, empty or (when strict) faulty, or
            its list leads out of the data root.
        BrokenPairError: On access to an item whose files are unreadable or
            do not fit together.
    """

    SIDES = dict(
        source=dict(folder='rgb', suffix='.jpg'),
        target=dict(folder='depth', suffix='.png'),
    )
    # A set with one side would have no pairs, but may have labels.
    MIN_SIDES = 2
    # How to get the data; added to the message that they are missing.
    HOWTO = 'Set data_root to the folder that holds the data.'

    def __init__(
        self,
        data_root='',
        sides=None,
        ann_file='',
        seg_map=None,
        group_pattern=None,
        strict=True,
        on_unreadable='error',
        max_skip_fraction=0.05,
        allow_outside_root=False,
        backend_args=None,
        metainfo=None,
        filter_cfg=None,
        indices=None,
        serialize_data=True,
        pipeline=(),
        test_mode=False,
        lazy_init=False,
    ):
        if on_unreadable not in ('error', 'skip'):
            raise ConfigError(
                f"on_unreadable='{on_unreadable}' is unknown; expected "
                "'error' or 'skip'."
            )
        if not 0 <= max_skip_fraction <= 1:
            raise ConfigError(
                f'max_skip_fraction={max_skip_fraction} must lie between 0 '
                'and 1.'
            )
        sides = choose_sides(self.SIDES, sides)
        check_sides(sides, self.MIN_SIDES)
        self.side_specs = {
            name: make_file_spec(name, data_root, spec, allow_outside_root)
            for name, spec in sides.items()
        }
        self.seg_map_spec = (
            None
            if seg_map is None
            else make_file_spec(
                'seg_map', data_root, seg_map, allow_outside_root
            )
        )
        tell_files_apart(self._all_specs())
        if not ann_file and not all(
            spec.suffixes for spec in self.side_specs.values()
        ):
            raise ConfigError(
                'Without ann_file every side needs a suffix, e.g. '
                "sides=dict(source=dict(folder='rgb', suffix='.jpg'), ...)."
            )
        self.group_pattern = group_pattern
        self.strict = strict
        self.on_unreadable = on_unreadable
        self.max_skip_fraction = max_skip_fraction
        self.backend_args = backend_args
        super().__init__(
            ann_file=ann_file,
            metainfo={**(metainfo or {}), 'sides': tuple(sides)},
            data_root=data_root,
            data_prefix={},
            filter_cfg=filter_cfg,
            indices=indices,
            serialize_data=serialize_data,
            pipeline=list(pipeline),
            test_mode=test_mode,
            lazy_init=lazy_init,
        )

    @property
    def sides(self):
        """tuple[str]: Names of the sides, in order."""
        return tuple(self.side_specs)

    def scan(self):
        """Find all pairs and faults, see :func:`find_pairs`.

        Returns:
            tuple[list[dict], dict[str, dict[str, str]]]: Complete pairs, a
            ``label`` being an integer, and the faulty ids by kind of fault.

        Raises:
            DatasetError: The data root, a folder, an archive or the list is
                missing.
        """
        require_data_root(
            self.data_root, type(self).__name__, self.HOWTO, self.backend_args
        )
        index = FileIndex(self.backend_args)
        rows, metainfo = self.read_rows(index)
        self._require_archives()
        pairs, faults = find_pairs(
            rows, self.side_specs, self.seg_map_spec, index, self.ann_file
        )
        self._columns = {key for row in rows for key in row}
        for key, value in metainfo.items():
            self._metainfo.setdefault(key, value)
        classes = list(self._metainfo.get('classes') or ())
        good = []
        for pair in pairs:
            fault = resolve_label(pair, classes)
            if fault:
                faults.setdefault(fault, {})[pair['pair_id']] = ''
            else:
                good.append(pair)
        return good, faults

    def _require_archives(self):
        """One message, not one missing file per pair."""
        for spec in self._all_specs():
            archive, _ = split_archive_path(spec.folder)
            if archive and not osp.isfile(archive):
                raise DatasetError(
                    f'{type(self).__name__}: the archive of {spec.name}, '
                    f"'{archive}', does not exist. Check data_root and the "
                    f'folder of this side. {self.HOWTO}'
                )

    def read_rows(self, index):
        """Read the list; a data set with a table of its own overrides this.

        Args:
            index (FileIndex): File listing to use.

        Returns:
            tuple[list[dict], dict]: See
            :func:`mmcmcd.datasets.pair_scan.read_rows`.

        Raises:
            DatasetError: A folder or list is missing, or cannot be
                understood.
        """
        return read_rows(self.side_specs, self.ann_file, index, self.HOWTO)

    def load_data_list(self):
        """Find the pairs; refuse or leave out the faulty ones.

        Returns:
            list[dict]: One item a pair.

        Raises:
            DatasetError: See the class.
        """
        pairs, faults = self.scan()
        if OUTSIDE in faults:
            raise DatasetError(self._describe_outside(faults[OUTSIDE]))
        if faults:
            message = self._describe(faults, len(pairs))
            if self.strict:
                raise DatasetError(
                    f'{message} Mend the files or the list (tools/misc/'
                    'audit_pairs.py lists every fault), or set strict=False '
                    'to use the complete pairs only.'
                )
            print_log(
                f'{message} They are left out (strict=False).',
                logger='current',
                level=logging.WARNING,
            )
        if not pairs:
            where = self.ann_file or self.data_root
            raise DatasetError(
                f"{type(self).__name__} found no pair in '{where}'."
                f'{self._expected()}'
            )
        items = []
        for pair in pairs:
            item = self.to_item(pair)
            item['group_id'] = self._group_id(pair)
            item['group_index'] = self._group_index(item['group_id'])
            items.append(item)
        if len(items) > 1 and len({i['group_index'] for i in items}) == 1:
            raise DatasetError(
                f'All {len(items)} pairs are in one group '
                f'({items[0]["group_id"]!r}): nothing could be contrasted. '
                'Correct group_pattern or the column group_id.'
            )
        return items

    def _group_index(self, group_id):
        # A hash, not a count: concatenated sets must not share numbers.
        text = f'{self.data_root}\0{group_id}'
        # File names may hold what no text does.
        text = text.encode('utf-8', 'backslashreplace')
        digest = hashlib.blake2b(text, digest_size=8).digest()
        return int.from_bytes(digest, 'big') >> 1  # fits a signed int64

    def to_item(self, pair):
        """Turn a pair found by :meth:`scan` into what a pipeline takes.

        Args:
            pair (dict): Of :meth:`scan`.

        Returns:
            dict: See the class; without ``group_id`` and ``group_index``.
        """
        item = dict(pair_id=pair['pair_id'], sides=self.sides)
        for side in self.sides:
            item[side] = dict(img_path=pair[side])
        if 'label' in pair:
            item['gt_label'] = pair['label']
        if 'seg_map' in pair:
            item.update(
                seg_map_path=pair['seg_map'],
                reduce_zero_label=False,
                label_map=None,
                seg_fields=[],
            )
        return item

    def _group_id(self, pair):
        if self.group_pattern is None:
            return str(pair.get('group_id', pair['pair_id']))
        if 'group_id' in pair:
            raise ConfigError(
                f"group_pattern is set, but '{self.ann_file}' has a column "
                'group_id already. Remove one of them.'
            )
        match = re.search(self.group_pattern, pair['pair_id'])
        if match is None:
            raise ConfigError(
                f"group_pattern '{self.group_pattern}' does not match "
                f"pair_id '{pair['pair_id']}'; it must match every one."
            )
        return match[1] if match.re.groups else match[0]

    def _all_specs(self):
        maps = [] if self.seg_map_spec is None else [self.seg_map_spec]
        return [*self.side_specs.values(), *maps]

    def _expected(self):
        """Say where files are looked for that no column names."""
        names = [
            str(spec)
            for spec in self._all_specs()
            if spec.name not in self._columns
        ]
        return f' Expected {", ".join(names)}.' if names else ''

    def _describe(self, faults, num_good):
        bad = len({name for names in faults.values() for name in names})
        lines = '; '.join(
            f'{kind}: {len(names)} ({", ".join(list_faults(names)[:5])}'
            f'{", ..." if len(names) > 5 else ""})'
            for kind, names in faults.items()
        )
        where = self.ann_file or self.data_root or '.'
        return (
            f"{type(self).__name__} in '{where}': {bad} faulty and "
            f'{num_good} complete pairs. {lines}.{self._expected()}'
        )

    def _describe_outside(self, found):
        where = self.ann_file or self.data_root or '.'
        return (
            f"{type(self).__name__} in '{where}': {len(found)} entries lead "
            f"out of the data root '{self.data_root or '.'}': "
            f'{"; ".join(list_faults(found)[:5])}'
            f'{"; ..." if len(found) > 5 else ""}. Write paths below the '
            'root or the folder of the side; or, if you trust the list with '
            'any file of this machine, set allow_outside_root=True.'
        )

    def full_init(self):
        """Load the list, and open the books on skipped pairs."""
        if self._fully_initialized:
            return
        super().full_init()
        self._skipped = SharedFlags(len(self))

    def get_subset_(self, indices):
        """See :meth:`mmengine.dataset.BaseDataset.get_subset_`."""
        super().get_subset_(indices)
        self._skipped = SharedFlags(len(self))

    def get_subset(self, indices):
        """See :meth:`mmengine.dataset.BaseDataset.get_subset`."""
        subset = super().get_subset(indices)
        subset._skipped = SharedFlags(len(subset))
        return subset

    @property
    @force_full_init
    def num_skipped(self):
        """int: Different pairs skipped so far, by all loader workers."""
        return self._skipped.count()

    def prepare_data(self, idx):
        """Run the pipeline on one pair.

        Args:
            idx (int): Index of the pair.

        Returns:
            Any: What the pipeline returns.

        Raises:
            ConfigError: The pipeline loads segmentation maps without any.
            UnreadableFileError: A file cannot be read, or a transform
                rejected the pair.
            BrokenPairError: The files do not fit together.
        """
        info = self.get_data_info(idx)
        pair_id = info['pair_id']
        try:
            self._check_label_map(info)
            data = self.pipeline(info)
        except BrokenPairError as error:
            if repr(pair_id) in str(error):
                raise
            raise type(error)(f'Pair {pair_id!r}: {error}') from error
        except KeyError as error:
            if error.args != ('seg_map_path',):
                raise
            raise ConfigError(
                f'Pair {pair_id!r}: the pipeline loads a segmentation map '
                '(LoadAnnotations), of which the data set has none. Set '
                'seg_map=dict(folder=..., suffix=...), or leave the transform '
                'out.'
            ) from error
        if data is None:
            raise UnreadableFileError(
                f"Pair '{pair_id}' was rejected: a transform of the "
                'pipeline returned None.'
            )
        return data

    def _check_label_map(self, info):
        """Look at it before a stock loader does."""
        if 'seg_map_path' not in info:
            return
        for transform in self.pipeline.transforms:
            if isinstance(transform, LoadAnnotations):
                check_label_map(info['seg_map_path'], transform.backend_args)

    @force_full_init
    def __getitem__(self, idx):
        """Return the pair, or under ``'skip'`` the next good one."""
        if not -len(self) <= idx < len(self):
            raise IndexError(f'{idx} is out of range ({len(self)} pairs).')
        if self.on_unreadable == 'error':
            return self.prepare_data(idx)
        # What comes out must not depend on who met a broken pair first.
        state = rng_state()
        for step in range(len(self)):
            current = (idx + step) % len(self)
            if self._skipped.get(current):
                continue
            try:
                return self.prepare_data(current)
            except BrokenPairError as error:
                self._skip(current, error)
                set_rng_state(state)
        raise DatasetError(f'{type(self).__name__}: no pair is readable.')

    def _skip(self, idx, error):
        self._skipped.set(idx)
        print_log(
            f'Skipped the whole pair. {error}',
            logger='current',
            level=logging.WARNING,
        )
        count = self._skipped.count()
        if count > self.max_skip_fraction * len(self):
            names = [
                self.get_data_info(i)['pair_id']
                for i in self._skipped.first(5)
            ]
            raise DatasetError(
                f'{count} of {len(self)} pairs are unreadable, more than '
                f'max_skip_fraction={self.max_skip_fraction}: '
                f'{", ".join(names)}{", ..." if count > 5 else ""}. The '
                f'last reason: {error} Run tools/misc/audit_pairs.py and '
                'mend the files.'
            ) from error
