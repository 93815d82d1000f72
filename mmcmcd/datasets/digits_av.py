import os.path as osp

import numpy as np

from mmcmcd.errors import ConfigError, DatasetError
from mmcmcd.registry import DATASETS

from .archives import read_array
from .class_labels import draw_per_class, shorten
from .csv_tables import read_csv_table
from .paired_dataset import PairedModalityDataset

DIGITS_AV_HOWTO = (
    'Put recordings of the Free Spoken Digit Dataset into audio/ below the '
    'root, list them in audio.csv (columns file, digit, speaker; paths '
    'relative to the root), and save images of MNIST as mnist.npz with the '
    'arrays images (N, 28, 28) and labels (N,), both uint8.'
)
_COLUMNS = ('file', 'digit', 'speaker')
_DIGITS = range(10)
_NAMES = tuple(map(str, _DIGITS))


@DATASETS.register_module()
class DigitsAV(PairedModalityDataset):
    """Images (source) and recordings (target) of the same digit.

    Recordings of the Free Spoken Digit Dataset, each with images of MNIST.
    **The pairs are drawn by class, that is with labels.** They prove that
    the path from sound to a trained student works; they are no evidence that
    it needs no labels.

    The images of every digit are dealt out to all speakers of the list by a
    seeded draw, and every recording gets its own of those: no image is used
    twice, whichever speakers are chosen, so an unheard speaker comes with
    unseen images. An item is::

        dict(pair_id='7_lucas_3-1234', gt_label=7, ...,
             source=dict(img_path='data/digits_av/mnist.npz/images/1234'),
             target=dict(img_path='data/digits_av/audio/7_lucas_3.wav'))

    The source is loaded by :class:`LoadArrayRow`. With ``sides=('target',)``
    every recording is an item, without an image, for step 3; the archive is
    not needed.

    Args:
        speakers (Sequence[str]): Whose recordings. Defaults to ('george',
            'jackson', 'lucas').
        data_root (str): Root of the data. Defaults to 'data/digits_av/'.
        seed (int): Of the draw of images. Defaults to 0.
        images_per_clip (int): Images of every recording, each a pair of its
            own. Defaults to 1.
        labels_per_class (int, optional): Use so many pairs of every digit.
            Defaults to None: all.
        draw (int): Seed of that draw. Defaults to 0.
        group_by (str): The ``group_id``: 'pair', the pair itself, or
            'digit', so that pairs of one digit are no negatives of each
            other (which takes labels, too). Defaults to 'pair'.
        ann_file (str): The list. Defaults to 'audio.csv'.
        archive (str): The images. Defaults to 'mnist.npz'.
        **kwargs: See :class:`PairedModalityDataset`.

    Raises:
        ConfigError: A speaker or ``group_by`` is unknown, or a draw makes no
            sense.
        DatasetError: See :class:`PairedModalityDataset`; also when the list
            or the archive is broken, when there are too few images, or when
            a digit has fewer than ``labels_per_class`` pairs.
    """

    METAINFO = dict(dataset_type='digits_av', classes=_NAMES)
    # The list names every file in full.
    SIDES = dict(source=dict(), target=dict())
    MIN_SIDES = 1
    HOWTO = DIGITS_AV_HOWTO

    def __init__(
        self,
        speakers=('george', 'jackson', 'lucas'),
        data_root='data/digits_av/',
        seed=0,
        images_per_clip=1,
        labels_per_class=None,
        draw=0,
        group_by='pair',
        ann_file='audio.csv',
        archive='mnist.npz',
        **kwargs,
    ):
        if group_by not in ('pair', 'digit'):
            raise ConfigError(
                f"group_by='{group_by}' is unknown; expected 'pair' or "
                "'digit'."
            )
        for name, value, least in (
            ('seed', seed, 0),
            ('images_per_clip', images_per_clip, 1),
        ):
            if not isinstance(value, int) or value < least:
                raise ConfigError(
                    f'{name}={value!r}: expected an integer of at least '
                    f'{least}.'
                )
        self.speakers = tuple(speakers)
        self.seed = seed
        self.images_per_clip = images_per_clip
        self.labels_per_class = labels_per_class
        self.draw = draw
        self.group_by = group_by
        self.archive = archive
        super().__init__(data_root=data_root, ann_file=ann_file, **kwargs)

    def read_rows(self, index):
        """See :meth:`PairedModalityDataset.read_rows`."""
        table = _read_table(self.ann_file, index.backend_args, self.HOWTO)
        there = {row['speaker'] for row in table}
        unknown = set(self.speakers) - there
        if unknown or not self.speakers:
            raise ConfigError(
                f"speakers={self.speakers}: '{self.ann_file}' has "
                f'{shorten(there, 20)}. Name one or more of them.'
            )
        pair_ids = self._name_pairs(table)
        rows = [
            dict(
                pair_id=pair_id,
                group_id=row['digit'] if self.group_by == 'digit' else pair_id,
                source=f'{self.archive}/images',
                target=row['file'],
                label=row['digit'],
            )
            for row in table
            if row['speaker'] in self.speakers
            for pair_id in pair_ids[row['file']]
        ]
        return rows, {}

    def to_item(self, pair):
        """See :meth:`PairedModalityDataset.to_item`."""
        item = super().to_item(pair)
        if 'source' in self.sides:
            image = pair['pair_id'].rpartition('-')[2]
            # Every row is a file of its own, e.g. for retrieval.
            item['source']['img_path'] += f'/{image}'
        return item

    def load_data_list(self):
        """See :meth:`PairedModalityDataset.load_data_list`."""
        return draw_per_class(
            super().load_data_list(),
            self.labels_per_class,
            self.draw,
            self._metainfo['classes'],
        )

    def _name_pairs(self, table):
        """Ids of the pairs of every recording of the list, by file."""
        stems = {
            row['file']: osp.splitext(osp.basename(row['file']))[0]
            for row in table
        }
        if 'source' not in self.sides:
            return {file: [stem] for file, stem in stems.items()}
        return {
            file: [f'{stems[file]}-{image}' for image in images]
            for file, images in self._deal_images(table).items()
        }

    def _deal_images(self, table):
        """Indices of the images of every recording of the list, by file."""
        labels = read_array(osp.join(self.data_root, self.archive), 'labels')
        dealt = {}
        for digit in _DIGITS:
            files = sorted(
                row['file'] for row in table if row['digit'] == digit
            )
            images = np.flatnonzero(labels == digit)
            needed = len(files) * self.images_per_clip
            if len(images) < needed:
                raise DatasetError(
                    f"'{self.archive}' in '{self.data_root}' has "
                    f'{len(images)} images of digit {digit}, but '
                    f"'{self.ann_file}' has {len(files)} recordings, and "
                    f'images_per_clip={self.images_per_clip}. Take fewer.'
                )
            rng = np.random.default_rng([self.seed, digit])
            order = rng.permutation(images)[:needed].tolist()
            # A larger images_per_clip keeps the images of a smaller one.
            dealt.update(
                (file, order[i :: len(files)]) for i, file in enumerate(files)
            )
        return dealt


def _read_table(ann_file, backend_args, howto):
    """Rows of the list; the digit is an integer."""
    rows = read_csv_table(ann_file, _COLUMNS, backend_args, howto)
    for line, row in enumerate(rows, 2):
        if row['digit'] not in _NAMES:
            raise DatasetError(
                f"'{ann_file}', line {line}: digit {row['digit']!r}, expected "
                '0 to 9.'
            )
        row['digit'] = int(row['digit'])
    return rows
