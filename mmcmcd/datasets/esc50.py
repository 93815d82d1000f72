import os.path as osp

from mmpretrain.datasets import BaseDataset

from mmcmcd.errors import ConfigError, DatasetError
from mmcmcd.registry import DATASETS

from .class_labels import draw_per_class, resolve_classes, shorten
from .csv_tables import read_csv_table
from .file_index import FileIndex, require_data_root
from .file_specs import lies_inside

ESC50_HOWTO = (
    'Get the archive of "ESC: Dataset for Environmental Sound '
    'Classification" (Piczak) and unpack it into data/esc50, which then '
    'holds audio/*.wav and meta/esc50.csv.'
)
_COLUMNS = ('filename', 'fold', 'target', 'category', 'src_file')


@DATASETS.register_module()
class ESC50(BaseDataset):
    """Environmental sounds of 50 classes in five official folds, for step 3.

    Laid out as the official archive: ``audio/<name>.wav`` and
    ``meta/esc50.csv``. Figures on ESC-50 are the mean of five runs, each of
    which tests on one fold and trains on the four others.

    Items have ``img_path`` (the sound), ``gt_label`` and ``group_id`` (the
    recording that the sound was cut from). ``gt_label`` is the index of the
    class in ``metainfo['classes']``, by default all classes of the table in
    the order of the official numbers.

    Args:
        folds (Sequence[int]): The folds to use. Defaults to (1, 2, 3, 4).
        data_root (str): Root of the data. Defaults to 'data/esc50/'.
        ann_file (str): The table. Defaults to 'meta/esc50.csv'.
        labels_per_class (int, optional): Use so many sounds of every class,
            of different recordings first. Defaults to None: all.
        draw (int): Seed of that draw. Defaults to 0.
        data_prefix (str): Folder of the sounds. Defaults to 'audio'.
        **kwargs: See :class:`mmpretrain.datasets.BaseDataset`.

    Raises:
        ConfigError: Folds are unknown, or the draw makes no sense.
        DatasetError: The table or a sound is missing, the table is broken or
            leads out of the data root, its classes are not those of
            ``metainfo``, or a class has fewer than ``labels_per_class``
            sounds.
    """

    METAINFO = dict(dataset_type='esc50')
    HOWTO = ESC50_HOWTO

    def __init__(
        self,
        folds=(1, 2, 3, 4),
        data_root='data/esc50/',
        ann_file='meta/esc50.csv',
        labels_per_class=None,
        draw=0,
        data_prefix='audio',
        **kwargs,
    ):
        self.folds = tuple(folds)
        if not self.folds or len(set(self.folds)) < len(self.folds):
            raise ConfigError(
                f'folds={self.folds}: expected one or more different folds, '
                'e.g. (1, 2, 3, 4).'
            )
        self.labels_per_class = labels_per_class
        self.draw = draw
        super().__init__(
            ann_file=ann_file,
            data_root=data_root,
            data_prefix=data_prefix,
            **kwargs,
        )

    def load_data_list(self):
        """List the sounds of the folds.

        Returns:
            list[dict]: One item a sound.

        Raises:
            ConfigError: See the class.
            DatasetError: See the class.
        """
        require_data_root(self.data_root, type(self).__name__, self.HOWTO)
        rows = _read_table(self.ann_file, self.HOWTO)
        classes = self._metainfo['classes'] = self._order_classes(rows)
        there = sorted({row['fold'] for row in rows})
        unknown = [fold for fold in self.folds if fold not in there]
        if unknown:
            raise ConfigError(
                f"folds={self.folds}: '{self.ann_file}' has no fold "
                f'{", ".join(map(str, unknown))}; it has '
                f'{", ".join(map(str, there))}.'
            )
        labels = {name: label for label, name in enumerate(classes)}
        items = [
            dict(
                img_path=osp.join(self.img_prefix, row['filename']),
                gt_label=labels[row['category']],
                group_id=row['src_file'],
            )
            for row in rows
            if row['fold'] in self.folds
        ]
        self._refuse_outside(rows)
        self._refuse_missing(items)
        return draw_per_class(items, self.labels_per_class, self.draw, classes)

    def _order_classes(self, rows):
        """Names of the classes, by label."""
        numbers = {(row['target'], row['category']) for row in rows}
        names = tuple(name for _, name in sorted(numbers))
        targets = {target for target, _ in numbers}
        if not len(targets) == len(set(names)) == len(numbers):
            raise DatasetError(
                f"'{self.ann_file}' gives a class two numbers (target), or a "
                'number two classes (category). Restore the official table.'
            )
        wanted = self._metainfo.get('classes')
        return resolve_classes(
            names, names if wanted is None else wanted, self.ann_file
        )

    def _refuse_outside(self, rows):
        homes = [self.data_root, self.img_prefix]
        for line, row in enumerate(rows, 2):
            if not lies_inside(row['filename'], self.img_prefix, homes):
                raise DatasetError(
                    f"'{self.ann_file}', line {line}: filename "
                    f'{row["filename"]!a} leads out of the data root '
                    f"'{self.data_root}'. Restore the official table."
                )

    def _refuse_missing(self, items):
        index = FileIndex()
        paths = [item['img_path'] for item in items]
        missing = [path for path in paths if not index.exists(path)]
        if missing:
            raise DatasetError(
                f'{type(self).__name__}: {len(missing)} of {len(paths)} '
                f"sounds of '{self.ann_file}' are missing: "
                f'{shorten(missing, 3)}. {self.HOWTO}'
            )


def _read_table(ann_file, howto):
    """Rows of the table; fold and target are integers."""
    rows = read_csv_table(ann_file, _COLUMNS, howto=howto)
    for line, row in enumerate(rows, 2):
        try:
            row.update(fold=int(row['fold']), target=int(row['target']))
        except ValueError as error:
            raise DatasetError(
                f"'{ann_file}', line {line}: fold and target must be integers "
                f'({error}). Restore the official table.'
            ) from None
        if not all(row[name] for name in ('filename', 'category')):
            raise DatasetError(
                f"'{ann_file}', line {line}: filename or category is empty. "
                'Restore the official table.'
            )
    return rows
