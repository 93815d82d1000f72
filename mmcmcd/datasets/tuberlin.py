import os.path as osp

from mmengine import fileio
from mmpretrain.datasets import BaseDataset

from mmcmcd.errors import ConfigError, DatasetError
from mmcmcd.registry import DATASETS

from .class_labels import draw_per_class, resolve_classes, shorten
from .file_index import FileIndex, require_data_root

TUBERLIN_HOWTO = (
    'Get sketches_png.zip (250 classes of 80 sketches) from the page of "How '
    'Do Humans Sketch Objects?" of Eitz, Hays and Alexa and unpack it into '
    'data/tuberlin, which then holds png/<class>/<number>.png.'
)
NUM_FOLDS = 3


@DATASETS.register_module()
class TUBerlin(BaseDataset):
    """The sketches of TU-Berlin, for step 3; there are no photos.

    Folders as the official archive has them: ``png/<class>/<number>.png``.
    There is no official division into training and test sketches. The three
    folds are our choice: in the alphabetical list of the files of a class,
    every third one, from the ``fold``-th on, is for testing.

    Items have ``img_path`` and ``gt_label``, the index of the class in
    ``metainfo['classes']``, by default the folders in alphabetical order.

    Args:
        split (str): 'train' (two folds) or 'test' (one). Defaults to
            'train'.
        fold (int): 0, 1 or 2, the fold to test on. Defaults to 0.
        labels_per_class (int, optional): Use so many sketches of every
            class. Defaults to None: all.
        draw (int): Seed of that draw. Defaults to 0.
        data_root (str): Root of the data. Defaults to 'data/tuberlin/'.
        data_prefix (str): Folder of the classes. Defaults to 'png'.
        **kwargs: See :class:`mmpretrain.datasets.BaseDataset`.

    Raises:
        ConfigError: Split or fold are unknown, or the draw makes no sense.
        DatasetError: Folders are missing or empty, the classes are not those
            of ``metainfo``, or a class has fewer than ``labels_per_class``
            sketches.
    """

    METAINFO = dict(dataset_type='tuberlin')
    HOWTO = TUBERLIN_HOWTO

    def __init__(
        self,
        split='train',
        fold=0,
        labels_per_class=None,
        draw=0,
        data_root='data/tuberlin/',
        data_prefix='png',
        **kwargs,
    ):
        if split not in ('train', 'test'):
            raise ConfigError(
                f"split='{split}' is unknown; expected 'train' or 'test'."
            )
        if fold not in range(NUM_FOLDS):
            raise ConfigError(f'fold={fold!r}: expected 0, 1 or 2.')
        self.split = split
        self.fold = fold
        self.labels_per_class = labels_per_class
        self.draw = draw
        super().__init__(
            ann_file='', data_root=data_root, data_prefix=data_prefix, **kwargs
        )

    def load_data_list(self):
        """List the sketches of the split.

        Returns:
            list[dict]: One item a sketch.

        Raises:
            DatasetError: See the class.
        """
        require_data_root(self.data_root, type(self).__name__, self.HOWTO)
        files = self._files_by_class()
        classes = resolve_classes(
            files, self._metainfo.get('classes'), self.img_prefix
        )
        self._metainfo['classes'] = classes
        for_test = self.split == 'test'
        items = [
            dict(img_path=osp.join(self.img_prefix, name, file), gt_label=i)
            for i, name in enumerate(classes)
            for number, file in enumerate(files[name])
            if (number % NUM_FOLDS == self.fold) == for_test
        ]
        return draw_per_class(items, self.labels_per_class, self.draw, classes)

    def _files_by_class(self):
        """Names of the sketches of every class, both in order."""
        folder = self.img_prefix
        if not fileio.isdir(folder):
            raise DatasetError(
                f"{type(self).__name__}: the folder '{folder}' does not "
                f'exist. {self.HOWTO}'
            )
        names = sorted(fileio.list_dir_or_file(folder, list_file=False))
        files = {name: [] for name in names}
        for path in FileIndex().walk(folder):
            name, _, file = path.partition('/')
            if file.endswith('.png'):
                files[name].append(file)
        empty = [name for name in names if not files[name]]
        if empty or not names:
            what = (
                f'{len(empty)} classes without a sketch: {shorten(empty)}'
                if empty
                else 'no folder of a class'
            )
            raise DatasetError(
                f"{type(self).__name__}: '{folder}' has {what}. Complete or "
                f'remove them. {self.HOWTO}'
            )
        return files
