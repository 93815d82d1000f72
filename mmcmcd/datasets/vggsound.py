import csv
import io
import logging
import os.path as osp
import zlib
from collections import Counter
from typing import NamedTuple

from mmengine import fileio
from mmengine.logging import print_log

from mmcmcd.errors import ConfigError, DatasetError
from mmcmcd.registry import DATASETS

from .class_labels import draw_per_class, resolve_classes, shorten
from .pair_lists import read_list, rows_from_csv
from .paired_dataset import PairedModalityDataset

VGGSOUND_HOWTO = (
    'Get vggsound.csv from the page of VGGSound (Chen, Xie, Vedaldi and '
    'Zisserman) and the clips it lists, <youtube id>_<start second, six '
    'digits>.mp4, in one folder, and convert them: python '
    'tools/dataset_converters/vggsound.py CLIPS_DIR --csv vggsound.csv --out '
    'data/vggsound'
)
CLIP_LIST = 'vggsound.csv'
DURATIONS = 'clips.csv'
# Of a clip whose duration no file tells: the official clips last so long.
OFFICIAL_DURATION = 10.0
_SPLITS = ('train', 'test')
# Every fifth video, about.
_HELD_OUT = 5


class Clip(NamedTuple):
    """One row of the official list."""

    youtube_id: str
    start: int
    label: str
    split: str

    @property
    def name(self):
        """str: What the files of the clip are called."""
        return f'{self.youtube_id}_{self.start:06d}'


@DATASETS.register_module()
class VGGSound(PairedModalityDataset):
    """Video frames (source) and sound (target) of the clips of VGGSound.

    ``ann_file`` is the official list: no header; YouTube id, start second,
    label, 'train' or 'test'. The files are named as
    ``tools/dataset_converters/vggsound.py`` does it, in
    ``frames/<clip>/<millisecond>.jpg`` (one or more) and ``audio/<clip>.wav``
    (or ``.flac``), where ``<clip>`` is ``<youtube id>_<start, six digits>``.
    The millisecond counts from the first sample of the sound. An item is::

        dict(pair_id='AbC-123_000030', group_id='AbC-123', gt_label=7, ...,
             source=dict(img_path=<the frame in the middle>,
                         frames=[...], frame_times=[5.0], duration=10.0),
             target=dict(img_path=<the sound>, duration=10.0))

    with times in seconds, which :class:`SharedTemporalCrop` goes by.
    Durations are those in ``clips.csv`` beside the folders, which the
    converter writes; 10 s where it has none. ``group_id`` is the video.
    ``gt_label`` is the index of the class in ``metainfo['classes']``, by
    default all classes of the list, whatever its split, in alphabetical order.

    Videos vanish from YouTube, so nobody has all clips that the list names:
    unlike in other sets of pairs, missing ones are left out by default, and a
    warning counts them. ``sides=('target',)`` takes the sound alone, for
    step 3, and needs no frames.

    Args:
        split (str): 'train' or 'test'; or, to tune settings without the test
            set, 'fit' and 'val', about 80 % and 20 % of the videos of
            'train' by a hash of their ids (our choice). Defaults to 'train'.
        data_root (str): Root of all relative paths. Defaults to
            'data/vggsound/'.
        ann_file (str): The official list. Defaults to 'vggsound.csv'.
        labels_per_class (int, optional): Use so many clips of every class,
            of different videos first. Defaults to None: all.
        draw (int): Seed of that draw. Defaults to 0.
        strict (bool): Whether missing clips are an error. Defaults to False.
        **kwargs: See :class:`PairedModalityDataset`.

    Raises:
        ConfigError: ``split`` is unknown, or the draw makes no sense.
        DatasetError: See :class:`PairedModalityDataset`; also when a row of
            the list is broken, when its classes are not those of
            ``metainfo``, or when a class has fewer than ``labels_per_class``
            clips.
    """

    METAINFO = dict(dataset_type='vggsound')
    SIDES = dict(
        # The names of the frames are listed for every clip.
        source=dict(folder='frames'),
        target=dict(folder='audio', suffix=('.wav', '.flac')),
    )
    MIN_SIDES = 1
    HOWTO = VGGSOUND_HOWTO

    def __init__(
        self,
        split='train',
        data_root='data/vggsound/',
        ann_file=CLIP_LIST,
        labels_per_class=None,
        draw=0,
        strict=False,
        **kwargs,
    ):
        self.split = split
        self.labels_per_class = labels_per_class
        self.draw = draw
        super().__init__(
            data_root=data_root, ann_file=ann_file, strict=strict, **kwargs
        )

    def read_rows(self, index):
        """See :meth:`PairedModalityDataset.read_rows`."""
        clips = read_clip_list(self.ann_file, index.backend_args, self.HOWTO)
        classes = resolve_classes(
            {clip.label for clip in clips},
            self._metainfo.get('classes'),
            self.ann_file,
        )
        labels = {name: label for label, name in enumerate(classes)}
        rows = [
            dict(
                pair_id=clip.name,
                group_id=clip.youtube_id,
                label=labels[clip.label],
            )
            for clip in choose_clips(clips, self.split, self.ann_file)
        ]
        self._frames = {}
        if 'source' in self.sides:
            self._find_frames(rows, index)
        return rows, dict(classes=classes)

    def _find_frames(self, rows, index):
        folder = self.side_specs['source'].folder
        for row in rows:
            name = row['pair_id']
            frames = _list_frames(index, osp.join(folder, name))
            self._frames[name] = frames
            middle = frames[len(frames) // 2] if frames else '*.jpg'
            row['source'] = f'{name}/{middle}'

    def scan(self):
        """See :meth:`PairedModalityDataset.scan`.

        Returns:
            tuple[list[dict], dict[str, dict[str, str]]]: Pairs have the keys
            ``frames`` (names of files; none without the source) and
            ``duration`` (s), too.
        """
        pairs, faults = super().scan()
        durations = read_durations(self.data_root, self.backend_args)
        unknown = [
            p['pair_id'] for p in pairs if p['pair_id'] not in durations
        ]
        if unknown:
            print_log(
                f"{type(self).__name__}: '{DURATIONS}' in '{self.data_root}' "
                f'has no duration of {len(unknown)} of {len(pairs)} clips '
                f'({shorten(unknown, 3)}); taken as {OFFICIAL_DURATION:g} s. '
                'The converter writes it when it is through.',
                logger='current',
                level=logging.WARNING,
            )
        for pair in pairs:
            pair['frames'] = self._frames.get(pair['pair_id'], [])
            pair['duration'] = durations.get(
                pair['pair_id'], OFFICIAL_DURATION
            )
        del self._frames
        return pairs, faults

    def to_item(self, pair):
        """See :meth:`PairedModalityDataset.to_item`."""
        item = super().to_item(pair)
        for side in self.sides:
            item[side]['duration'] = pair['duration']
        if 'source' in self.sides:
            folder = osp.dirname(pair['source'])
            item['source'].update(
                frames=[osp.join(folder, name) for name in pair['frames']],
                frame_times=[_time_of(name) for name in pair['frames']],
            )
        return item

    def load_data_list(self):
        """See :meth:`PairedModalityDataset.load_data_list`."""
        return draw_per_class(
            super().load_data_list(),
            self.labels_per_class,
            self.draw,
            self._metainfo['classes'],
        )


def read_durations(root, backend_args=None):
    """Read how long the clips are.

    Args:
        root (str): Root of the data.
        backend_args (dict, optional): Of the ``mmengine.fileio`` backend.

    Returns:
        dict[str, float]: Seconds by clip; empty if there is no table.

    Raises:
        DatasetError: The table is damaged.
    """
    path = osp.join(root, DURATIONS)
    if not fileio.exists(path, backend_args):
        return {}
    rows = rows_from_csv(read_list(path, backend_args), path)
    try:
        return {row['clip']: float(row['duration']) for row in rows}
    except (KeyError, ValueError) as error:
        raise DatasetError(
            f"'{path}' is damaged ({error!r}); expected the columns clip and "
            'duration (in seconds). Remove it and run the converter again, '
            'which writes it anew.'
        ) from None


def read_clip_list(ann_file, backend_args=None, howto=''):
    """Read the official list.

    Args:
        ann_file (str): The list.
        backend_args (dict, optional): Of the ``mmengine.fileio`` backend.
        howto (str): How to get the data; ends the message that the list is
            missing.

    Returns:
        list[Clip]: In the order of the list.

    Raises:
        DatasetError: The list is missing or empty, or a row is broken.
    """
    text = read_list(ann_file, backend_args, howto)
    reader = csv.reader(
        io.StringIO(text, newline=''), skipinitialspace=True, strict=True
    )
    clips = []
    try:
        for row in reader:
            if row:
                clips.append(_parse(row))
    except (csv.Error, ValueError) as error:
        raise DatasetError(
            f"'{ann_file}', line {reader.line_num}: {error}. Expected YouTube "
            "id, start second, label (quoted if it has a comma), 'train' or "
            "'test', and no header. Restore the official list."
        ) from None
    if not clips:
        raise DatasetError(f"'{ann_file}' has no row. {howto}".rstrip())
    return clips


def _parse(row):
    if len(row) != 4:
        raise ValueError(f'{len(row)} cells')
    youtube_id, start, label, split = (cell.strip() for cell in row)
    if not youtube_id or '/' in youtube_id:
        raise ValueError(f'{youtube_id!r} is no YouTube id')
    if not start.isdecimal():
        raise ValueError(f'{start!r} is no start second')
    if not label:
        raise ValueError('the label is empty')
    if split not in _SPLITS:
        raise ValueError(f'{split!r} is no split')
    return Clip(youtube_id, int(start), label, split)


def choose_clips(clips, split, ann_file):
    """The clips of one split.

    Args:
        clips (list[Clip]): Of :func:`read_clip_list`.
        split (str): 'train', 'test', 'fit' or 'val', see :class:`VGGSound`.
        ann_file (str): The list; for messages.

    Returns:
        list[Clip]: At least one.

    Raises:
        ConfigError: The split is unknown.
        DatasetError: It has no clip.
    """
    if split in _SPLITS:
        chosen = [clip for clip in clips if clip.split == split]
    elif split in ('fit', 'val'):
        held_out = split == 'val'
        chosen = [
            clip
            for clip in clips
            if clip.split == 'train' and _is_held_out(clip) == held_out
        ]
    else:
        raise ConfigError(
            f"split='{split}' is unknown; expected 'train', 'test', or 'fit' "
            "and 'val' (for tuning)."
        )
    if not chosen:
        counts = Counter(clip.split for clip in clips)
        there = ', '.join(f'{k} ({n})' for k, n in sorted(counts.items()))
        raise DatasetError(
            f"'{ann_file}' has no clip for split '{split}'; it has {there}. "
            'Choose another split.'
        )
    return chosen


def _is_held_out(clip):
    return zlib.crc32(clip.youtube_id.encode()) % _HELD_OUT == 0


def _list_frames(index, folder):
    """Names of the frames of one clip by time; empty if there are none."""
    try:
        names = index.walk(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
    frames = [
        name
        for name in names
        if name.endswith('.jpg') and name[: -len('.jpg')].isdecimal()
    ]
    return sorted(frames, key=_time_of)


def _time_of(name):
    """Seconds, from the millisecond that a frame is named after."""
    return int(osp.splitext(name)[0]) / 1000
