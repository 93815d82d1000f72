import logging

from mmengine.logging import print_log
from mmpretrain.datasets import BaseDataset

from mmcmcd.errors import ConfigError
from mmcmcd.registry import DATASETS

from .class_labels import draw_per_class, resolve_classes, shorten
from .paired_dataset import PairedModalityDataset
from .photo_sketch_table import choose_split, image_id, read_table

SKETCHY_HOWTO = (
    'Get the rendered photos and sketches (rendered_256x256.7z) and the '
    'annotation (info) from the page of "The Sketchy Database" of Sangkloy, '
    'Burnell, Ham and Hays, unpack them into data/sketchy, and write the '
    'table of pairs: python tools/dataset_converters/sketchy.py data/sketchy'
)


@DATASETS.register_module()
class SketchyPairs(PairedModalityDataset):
    """Photos (source) and sketches (target) of The Sketchy Database.

    ``ann_file`` has one row a sketch and the columns ``photo``, ``sketch``
    (paths relative to ``data_root``), ``class`` and ``split``, as
    ``tools/dataset_converters/sketchy.py`` writes it; other photo-sketch
    pairs can be listed the same way. ``group_id`` is the photo, which several
    sketches share. ``gt_label`` is the index of the class in
    ``metainfo['classes']``, by default all classes of the table (not only of
    the split) in alphabetical order.

    Args:
        split (str): 'train' or 'test'; or, to tune settings without the test
            set, 'fit' and 'val', about 80 % and 20 % of the photos of
            'train' (our choice) unless the table has rows 'val' of its own.
            Defaults to 'train'.
        data_root (str): Root of all relative paths. Defaults to
            'data/sketchy/'.
        ann_file (str): The table. Defaults to 'pairs.csv'.
        group_by (str): 'photo': sketches of one photo are no negatives of
            each other; 'sketch': they are, as where nobody takes care.
            Defaults to 'photo'.
        **kwargs: See :class:`PairedModalityDataset`.

    Raises:
        ConfigError: ``split`` or ``group_by`` is unknown.
        DatasetError: See :class:`PairedModalityDataset`; also when a photo is
            in two splits, or when the classes of the table are not those of
            ``metainfo``.
    """

    METAINFO = dict(dataset_type='sketchy')
    # The table names every file in full.
    SIDES = dict(source=dict(), target=dict())
    HOWTO = SKETCHY_HOWTO

    def __init__(
        self,
        split='train',
        data_root='data/sketchy/',
        ann_file='pairs.csv',
        group_by='photo',
        **kwargs,
    ):
        if group_by not in ('photo', 'sketch'):
            raise ConfigError(
                f"group_by='{group_by}' is unknown; expected 'photo' or "
                "'sketch'."
            )
        self.split = split
        self.group_by = group_by
        super().__init__(data_root=data_root, ann_file=ann_file, **kwargs)

    def read_rows(self, index):
        """See :meth:`PairedModalityDataset.read_rows`."""
        table = read_table(self.ann_file, index.backend_args, self.HOWTO)
        classes = resolve_classes(
            {row['class'] for row in table},
            self._metainfo.get('classes'),
            self.ann_file,
        )
        chosen = choose_split(table, self.split, self.ann_file)
        empty = set(classes) - {row['class'] for row in chosen}
        if empty:
            print_log(
                f"{len(empty)} of {len(classes)} classes of '{self.ann_file}' "
                f"have no image in split '{self.split}': {shorten(empty)}.",
                logger='current',
                level=logging.WARNING,
            )
        rows = [
            dict(
                pair_id=image_id(row['sketch']),
                group_id=image_id(row[self.group_by]),
                source=row['photo'],
                target=row['sketch'],
                label=row['class'],
            )
            for row in chosen
        ]
        return rows, dict(classes=classes)


@DATASETS.register_module()
class SketchyImages(BaseDataset):
    """Single labelled images of The Sketchy Database, for step 3.

    Items have ``img_path``, ``gt_label`` and ``group_id`` (the photo).

    Args:
        split (str): See :class:`SketchyPairs`. Defaults to 'train'.
        side (str): 'target' for every sketch, or 'source' for every photo
            that has a sketch, once. Defaults to 'target'.
        labels_per_class (int, optional): Use so many images of every class,
            of different photos first. Defaults to None: all.
        draw (int): Seed of that draw. Defaults to 0.
        data_root (str): Root of all relative paths. Defaults to
            'data/sketchy/'.
        ann_file (str): The table, see :class:`SketchyPairs`. Defaults to
            'pairs.csv'.
        allow_outside_root (bool): See :class:`PairedModalityDataset`.
            Defaults to False.
        **kwargs: See :class:`mmpretrain.datasets.BaseDataset`.

    Raises:
        ConfigError: Split or side are unknown, or the draw makes no sense.
        DatasetError: See :class:`SketchyPairs`; also when a class has fewer
            than ``labels_per_class`` images.
    """

    METAINFO = dict(dataset_type='sketchy')
    HOWTO = SKETCHY_HOWTO

    def __init__(
        self,
        split='train',
        side='target',
        labels_per_class=None,
        draw=0,
        data_root='data/sketchy/',
        ann_file='pairs.csv',
        allow_outside_root=False,
        **kwargs,
    ):
        if side not in SketchyPairs.SIDES:
            raise ConfigError(
                f"side='{side}' is unknown; expected 'target' (sketches) or "
                "'source' (photos)."
            )
        self.split = split
        self.side = side
        self.labels_per_class = labels_per_class
        self.draw = draw
        self.table = ann_file
        self.allow_outside_root = allow_outside_root
        super().__init__(ann_file=ann_file, data_root=data_root, **kwargs)

    def load_data_list(self):
        """List the images of one side.

        Returns:
            list[dict]: One item an image.

        Raises:
            DatasetError: See the class.
        """
        # One place knows the table and its faults.
        pairs = SketchyPairs(
            self.split,
            self.data_root,
            self.table,
            metainfo=None
            if self.CLASSES is None
            else {'classes': self.CLASSES},
            allow_outside_root=self.allow_outside_root,
            lazy_init=True,
        )
        items = {}
        for pair in pairs.load_data_list():
            path = pair[self.side]['img_path']
            items[path] = dict(
                img_path=path,
                gt_label=pair['gt_label'],
                group_id=pair['group_id'],
            )
        items = list(items.values())
        self._metainfo['classes'] = pairs.metainfo['classes']
        return draw_per_class(
            items, self.labels_per_class, self.draw, self.CLASSES
        )
