import os.path as osp

from mmengine import fileio
from mmseg.datasets import BaseSegDataset

from mmcmcd.errors import ConfigError, DatasetError
from mmcmcd.registry import DATASETS

from .file_index import FileIndex, require_data_root
from .file_specs import lies_inside
from .nyu import NYU_HOWTO
from .nyu_meta import (
    IGNORE_INDEX,
    NYU13_CLASSES,
    NYU13_PALETTE,
    NYU40_CLASSES,
    NYU40_PALETTE,
)
from .pair_lists import describe_missing_list

_META = {
    40: dict(classes=NYU40_CLASSES, palette=NYU40_PALETTE),
    13: dict(classes=NYU13_CLASSES, palette=NYU13_PALETTE),
}


@DATASETS.register_module()
class NYUDepthSegDataset(BaseSegDataset):
    """Semantic segmentation of NYU-Depth V2 with depth as the *input*.

    (mmseg's own ``NYUDataset`` is for estimating depth.) The images are the
    depth maps; load them with ``mmcmcd.LoadDepthFromFile``.

    Args:
        num_classes (int): 40 or 13. Defaults to 40.
        data_root (str): Root of the prepared set. Defaults to
            'data/nyu_depth_v2'.
        data_prefix (dict, optional): Defaults to
            ``dict(img_path='depth', seg_map_path=f'label{num_classes}')``.
        img_suffix (str): Suffix of the depth maps. Defaults to '.png'.
        metainfo (dict, optional): E.g. ``classes``, a subset of names; all
            other pixels are then ignored. Defaults to None.
        **kwargs: See :class:`mmseg.datasets.BaseSegDataset`; ``ann_file``
            is a list of ids.

    Raises:
        ConfigError: ``num_classes`` or ``classes`` are unknown.
        DatasetError: The data root, the list, depth or label maps are
            missing, or the list leads out of the data root.
    """

    METAINFO = dict(dataset_type='nyu_depth_v2')
    HOWTO = NYU_HOWTO

    def __init__(
        self,
        num_classes=40,
        data_root='data/nyu_depth_v2',
        data_prefix=None,
        img_suffix='.png',
        metainfo=None,
        **kwargs,
    ):
        if num_classes not in _META:
            raise ConfigError(
                f'num_classes={num_classes}: NYU-Depth V2 is labelled with '
                f'{" or ".join(map(str, _META))} classes.'
            )
        self.num_classes = num_classes
        if data_prefix is None:
            data_prefix = dict(
                img_path='depth', seg_map_path=f'label{num_classes}'
            )
        super().__init__(
            data_root=data_root,
            data_prefix=data_prefix,
            img_suffix=img_suffix,
            metainfo={**_META[num_classes], **(metainfo or {})},
            **kwargs,
        )

    def get_label_map(self, new_classes=None):
        """See :meth:`mmseg.datasets.BaseSegDataset.get_label_map`.

        Not a class method as there, because the full list of names depends
        on ``num_classes``.
        """
        names = _META[self.num_classes]['classes']
        unknown = [c for c in new_classes if c not in names]
        if unknown:
            raise ConfigError(
                f'metainfo classes {unknown} are not among the '
                f'{self.num_classes} classes of NYU-Depth V2: '
                f'{", ".join(names)}.'
            )
        if list(new_classes) == list(names):
            return None
        new_ids = {name: i for i, name in enumerate(new_classes)}
        return {
            i: new_ids.get(name, IGNORE_INDEX) for i, name in enumerate(names)
        }

    def load_data_list(self):
        """List the frames; every file must be there.

        Returns:
            list[dict]: As :class:`mmseg.datasets.BaseSegDataset` does.

        Raises:
            DatasetError: See the class.
        """
        require_data_root(
            self.data_root, type(self).__name__, self.HOWTO, self.backend_args
        )
        if self.ann_file and not fileio.isfile(
            self.ann_file, backend_args=self.backend_args
        ):
            raise DatasetError(
                describe_missing_list(self.ann_file, self.HOWTO)
            )
        if not self.ann_file:
            self._require_folder('img_path')
        items = super().load_data_list()
        index = FileIndex(self.backend_args)
        for key, words in (
            ('img_path', 'depth maps'),
            ('seg_map_path', 'label maps'),
        ):
            paths = [item[key] for item in items if key in item]
            homes = [self.data_root or '', self.data_prefix.get(key) or '']
            outside = [p for p in paths if not lies_inside(p, '', homes)]
            if outside:
                raise DatasetError(
                    f"{type(self).__name__}: '{self.ann_file}' leads out of "
                    f"the data root '{self.data_root}' {len(outside)} times: "
                    f'{", ".join(map(ascii, outside[:5]))}. Write ids of '
                    'frames below the folders of data_prefix.'
                )
            missing = [p for p in paths if not index.exists(p)]
            if missing:
                names = ', '.join(osp.basename(p) for p in missing[:5])
                raise DatasetError(
                    f'{type(self).__name__}: {len(missing)} of '
                    f"{len(paths)} {words} are not in '"
                    f"{self.data_prefix[key]}': {names}"
                    f'{", ..." if len(missing) > 5 else ""}. Correct '
                    f'data_prefix.{key}, the list or the files. '
                    f'{self.HOWTO}'
                )
        if not items:
            raise DatasetError(
                f'{type(self).__name__}: no depth map ends with '
                f"'{self.img_suffix}' in '{self.data_prefix['img_path']}', "
                f'or the list is empty. {self.HOWTO}'
            )
        return items

    def _require_folder(self, key):
        folder = self.data_prefix[key]
        if not fileio.isdir(folder, backend_args=self.backend_args):
            raise DatasetError(
                f"{type(self).__name__}: the folder '{folder}' does not "
                f'exist. Correct data_prefix.{key}. {self.HOWTO}'
            )
