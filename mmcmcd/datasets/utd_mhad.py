from mmcmcd.errors import ConfigError, DatasetError
from mmcmcd.registry import DATASETS

from .class_labels import draw_per_class, shorten
from .csv_tables import read_csv_table
from .paired_dataset import PairedModalityDataset

UTD_MHAD_HOWTO = (
    'Get the skeleton, inertial and depth archives from the page "UTD '
    'Multimodal Human Action Dataset" of Chen, Jafari and Kehtarnavaz, '
    'unpack them into one folder and convert it: python '
    'tools/dataset_converters/utd_mhad.py FOLDER --out data/utd_mhad'
)
ACTIONS = (
    'swipe_left',
    'swipe_right',
    'wave',
    'clap',
    'throw',
    'arm_cross',
    'basketball_shoot',
    'draw_x',
    'draw_circle_cw',
    'draw_circle_ccw',
    'draw_triangle',
    'bowling',
    'boxing',
    'baseball_swing',
    'tennis_swing',
    'arm_curl',
    'tennis_serve',
    'push',
    'knock',
    'catch',
    'pickup_throw',
    'jog',
    'walk',
    'sit2stand',
    'stand2sit',
    'lunge',
    'squat',
)
ARCHIVES = dict(
    skeleton='skeleton.npz',
    inertial='inertial.npz',
    depth='depth12x60x80.npz',
)
_COLUMNS = ('key', 'label', 'action', 'subject')


@DATASETS.register_module()
class UTDMHAD(PairedModalityDataset):
    """Actions of UTD-MHAD, seen by a depth camera and an inertial sensor.

    27 actions of 8 subjects (Chen, Jafari and Kehtarnavaz, ICIP 2015), as
    ``tools/dataset_converters/utd_mhad.py`` writes them: ``index.csv``
    (columns key, label, action, subject, trial) and, by key,
    ``skeleton.npz`` ((T, 20, 3) metres, axes 'TVC'), ``inertial.npz``
    ((N, 6) acceleration in g and turn rates in deg/s at 50 Hz, axes 'TC') and
    ``depth12x60x80.npz`` ((12, 60, 80) millimetres, 0 where there is no
    return, axes 'THW'; the 12 frames are spread evenly over the clip).

    The recordings of a clip begin and end together, so crop them by
    ``SharedTemporalCrop(fraction=...)``. Although the camera is said to run
    at 30 Hz, the skeleton has in effect about 19 frames per second (median;
    17 to 20 in 90% of the clips). Over the 335 clips of the 21 arm actions by
    subjects 1, 3, 5 and 7, the speed of the right wrist and the magnitude of
    the turn rates correlate by 0.71 on average when one clip is stretched
    over the other, but by 0.25 when the skeleton is taken at 30 Hz and
    aligned at the start (in the middle 0.10, at the end 0.06).

    Items have ``gt_label``; ``group_id`` is the key, as every recording is a
    group of its own.

    Args:
        subjects (Sequence[int] | int): People to use. Defaults to (1, 3, 5);
            the usual test of the set is on other people.
        sides (Sequence[str] | dict[str, str]): Modalities out of 'skeleton',
            'inertial' and 'depth', one or more; or the modality by name of
            the side, e.g. ``dict(source='skeleton', target='inertial')``.
        data_root (str): The folder. Defaults to 'data/utd_mhad/'.
        labels_per_class (int, optional): Use so many recordings of every
            class, of different people first. Defaults to None: all.
        draw (int): Seed of that draw. Defaults to 0.
        ann_file (str): The table. Defaults to 'index.csv'.
        **kwargs: See :class:`PairedModalityDataset`.

    Raises:
        ConfigError: A modality is unknown, or the draw makes no sense.
        DatasetError: See :class:`PairedModalityDataset`; also when a subject
            has no recording, or a class has too few.
    """

    METAINFO = dict(dataset_type='utd_mhad', classes=ACTIONS)
    MIN_SIDES = 1
    HOWTO = UTD_MHAD_HOWTO

    def __init__(
        self,
        subjects=(1, 3, 5),
        sides=('skeleton', 'inertial'),
        data_root='data/utd_mhad/',
        labels_per_class=None,
        draw=0,
        ann_file='index.csv',
        **kwargs,
    ):
        if not isinstance(sides, dict):
            sides = {name: name for name in sides}
        unknown = [m for m in sides.values() if m not in ARCHIVES]
        if unknown:
            raise ConfigError(
                f'UTDMHAD has no modalities {unknown}; it has '
                f'{list(ARCHIVES)}.'
            )
        subjects = (subjects,) if isinstance(subjects, int) else subjects
        self.subjects = tuple(map(str, subjects))
        self.labels_per_class = labels_per_class
        self.draw = draw
        super().__init__(
            data_root=data_root,
            sides={
                side: dict(folder=ARCHIVES[modality], suffix='')
                for side, modality in sides.items()
            },
            ann_file=ann_file,
            **kwargs,
        )

    def read_rows(self, index):
        """See :meth:`PairedModalityDataset.read_rows`."""
        table = read_csv_table(
            self.ann_file, _COLUMNS, index.backend_args, self.HOWTO
        )
        self._check_table(table)
        rows = [row for row in table if row['subject'] in self.subjects]
        self._people = {row['key']: row['subject'] for row in rows}
        return [dict(pair_id=r['key'], label=r['action']) for r in rows], {}

    def _check_table(self, table):
        there = {row['subject'] for row in table}
        absent = [name for name in self.subjects if name not in there]
        if absent or not self.subjects:
            raise DatasetError(
                f"'{self.ann_file}' has no recording of subjects "
                f'{", ".join(absent) or "()"}; it has '
                f'{shorten(there, most=8)}.'
            )
        actions = dict(enumerate(self._metainfo['classes']))
        odd = [
            row['key']
            for row in table
            if row['label'] not in {str(n) for n in actions}
            or row['action'] != actions[int(row['label'])]
        ]
        if odd:
            raise DatasetError(
                f"'{self.ann_file}': label and action disagree with "
                f"metainfo['classes'] in {len(odd)} rows: {shorten(odd)}."
            )

    def load_data_list(self):
        """See :meth:`PairedModalityDataset.load_data_list`."""
        items = super().load_data_list()
        return draw_per_class(
            items,
            self.labels_per_class,
            self.draw,
            self._metainfo['classes'],
            # Not their group_id: people are no groups in training.
            groups=[self._people[item['pair_id']] for item in items],
        )
