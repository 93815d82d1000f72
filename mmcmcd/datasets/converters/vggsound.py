"""Frames and sound of the clips of VGGSound.

Layout below the root: ``frames/<clip>/<millisecond>.jpg``,
``audio/<clip>.wav`` (or ``.flac``; mono, 16 bit), ``clips.csv`` (duration of
every clip, in seconds), ``unreadable.csv`` (clips of no use, and why),
``conversion.json`` (the settings) and ``vggsound.csv`` (the official list).
``<clip>`` is ``<youtube id>_<start second, six digits>``; milliseconds count
from the first sample of the sound.
"""

import io
import json
import os
import shutil
import signal
from collections import Counter, defaultdict
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

import cv2

from mmcmcd.errors import ConfigError, DatasetError, UnreadableFileError

from ...atomic_files import write_bytes, write_text
from ..class_labels import shorten
from ..csv_tables import format_csv
from ..pair_lists import read_list, rows_from_csv
from ..pair_scan import list_faults
from ..progress import progress_bar
from ..vggsound import (
    CLIP_LIST,
    DURATIONS,
    VGGSound,
    read_clip_list,
    read_durations,
)
from .video_clip import import_av, read_video_clip

UNREADABLE = 'unreadable.csv'
SETTINGS = 'conversion.json'
_SUFFIXES = (
    '.mp4', '.m4v', '.mkv', '.webm', '.mov', '.avi', '.flv', '.mpg', '.ts',
)  # fmt: skip
_JPEG_QUALITY = 95


@dataclass(frozen=True)
class ClipSettings:
    """What is taken from every clip.

    Args:
        num_frames (int): Frames in the middle of as many equal parts of the
            clip. Defaults to 1.
        size (int): Shorter side of the frames in pixels, unless they are
            smaller. Defaults to 256.
        sampling_rate (int): Of the sound, in Hz. Defaults to 16000.
        audio_format (str): 'wav', or 'flac' (lossless, smaller). Defaults to
            'wav'.
        min_duration (float): Shortest clip to keep, in seconds (our choice).
            Defaults to 1.

    Raises:
        ConfigError: A value is out of range.
    """

    num_frames: int = 1
    size: int = 256
    sampling_rate: int = 16000
    audio_format: str = 'wav'
    min_duration: float = 1.0

    def __post_init__(self):
        for name in ('num_frames', 'size', 'sampling_rate', 'min_duration'):
            if not getattr(self, name) > 0:
                raise ConfigError(
                    f'{name}={getattr(self, name)} must be positive.'
                )
        if self.audio_format not in ('wav', 'flac'):
            raise ConfigError(
                f"audio_format='{self.audio_format}' is unknown; expected "
                "'wav' or 'flac'."
            )


@dataclass
class ConversionSummary:
    """What :func:`convert_vggsound` did.

    Attributes:
        converted (int): Clips that are new.
        kept (int): Clips that were there already.
        unreadable (dict[str, str]): Reasons, by clip.
        absent (dict[str, int]): Clips of the list without a file that were
            not converted before either, by split.
        unlisted (int): Files that the list does not have.
    """

    converted: int = 0
    kept: int = 0
    unreadable: dict = field(default_factory=dict)
    absent: dict = field(default_factory=dict)
    unlisted: int = 0

    def format(self):
        """Return the summary as text for a terminal."""
        lines = [
            f'{self.converted} clips converted, {self.kept} were there, '
            f'{len(self.unreadable)} unreadable'
        ]
        if self.unreadable:
            some = [f'{clip}: {why}' for clip, why in self.unreadable.items()]
            lines.append(f'unreadable ({UNREADABLE}): {shorten(some, 3)}')
        counts = [f'{number} of {k}' for k, number in self.absent.items()]
        lines.append(f'no file of {" and ".join(counts)} clips')
        if self.unlisted:
            lines.append(f'left out: {self.unlisted} files not in the list')
        return '\n'.join(lines)


class _Outcome(NamedTuple):
    """Of one clip: its seconds, or why it has none."""

    duration: float = 0.0
    is_new: bool = False
    reason: str = ''


def convert_vggsound(clips_dir, ann_file, out, settings=None, workers=1):
    """Take frames and sound out of all clips of a folder.

    A clip appears complete or not at all (its sound comes last), and complete
    ones are skipped: after an interruption simply run it again. What cannot
    be used is listed, and tried again the next time. Archives can be
    converted one after the other into the same set, and deleted in between.

    Args:
        clips_dir (str | Path): Folder of ``<youtube id>_<start>.mp4`` (or
            m4v, mkv, webm, mov, avi, flv, mpg, ts), also in sub-folders.
        ann_file (str | Path): The official list; it is copied.
        out (str | Path): Root of the layout.
        settings (ClipSettings, optional): Defaults to ``ClipSettings()``.
        workers (int): Processes. Defaults to 1.

    Returns:
        ConversionSummary: Counts.

    Raises:
        ConfigError: A package is not installed, or ``workers`` is not
            positive.
        DatasetError: The folder or the list is missing, the list is broken,
            no clip of it is there, ``out`` was made with other settings, a
            table in it is damaged, or a process died.
    """
    if workers < 1:
        raise ConfigError(f'workers={workers} must be positive.')
    import_av()
    _import_soundfile()
    settings, out = settings or ClipSettings(), Path(out)
    clips = {clip.name: clip for clip in read_clip_list(str(ann_file))}
    files = _find_files(clips_dir)
    present = [name for name in clips if name in files]
    if not present:
        raise DatasetError(
            f"'{clips_dir}' has no clip of '{ann_file}' (there: "
            f'{shorten(files) or "nothing"}). Expected files such as '
            f'{next(iter(clips))}.mp4: YouTube id, start second with six '
            'digits.'
        )
    _keep_settings(out, settings)
    durations, reasons = read_durations(str(out)), _read_reasons(out)
    _copy_list(Path(ann_file), out / CLIP_LIST)
    outcomes = _run(
        partial(_convert_clip, out=out, settings=settings),
        [(name, files[name]) for name in present],
        workers,
    )
    outcomes = dict(zip(present, outcomes, strict=True))
    good = {name: o for name, o in outcomes.items() if not o.reason}
    unreadable = {n: o.reason for n, o in outcomes.items() if o.reason}
    durations.update((name, o.duration) for name, o in good.items())
    durations = _complete_durations(out, settings, durations)
    _write_durations(out, durations)
    _write_reasons(out, {**reasons, **unreadable}, durations)
    absent = Counter(dict.fromkeys(('train', 'test'), 0))
    there = files.keys() | durations.keys()
    absent.update(c.split for name, c in clips.items() if name not in there)
    converted = sum(outcome.is_new for outcome in good.values())
    return ConversionSummary(
        converted=converted,
        kept=len(good) - converted,
        unreadable=unreadable,
        absent=dict(absent),
        unlisted=len(files.keys() - clips.keys()),
    )


def check_layout(root):
    """Compare a converted set with its list; no file is decoded.

    Args:
        root (str | Path): Root of the layout.

    Returns:
        tuple[str, int]: Text for a terminal, and how many clips of the list
        are not complete.

    Raises:
        DatasetError: The root or the list is missing, or the list is broken.
    """
    lines, missing = [], 0
    durations = read_durations(str(root))
    for split in sorted({clip.split for clip in _list_of(root)}):
        dataset = VGGSound(split, data_root=str(root), lazy_init=True)
        pairs, faults = dataset.scan()
        bad = {name for names in faults.values() for name in names}
        missing += len(bad)
        lines.append(
            f'{split}: {len(pairs)} clips complete, {len(bad)} missing or '
            'incomplete'
        )
        unknown = [
            p['pair_id'] for p in pairs if p['pair_id'] not in durations
        ]
        if unknown:
            lines.append(
                f'  no duration in {DURATIONS}: {len(unknown)} '
                f'({shorten(unknown, 3)}); convert again'
            )
        for kind, names in faults.items():
            some = shorten(list_faults(names), 3)
            lines.append(f'  {kind}: {len(names)} ({some})')
    return '\n'.join(lines), missing


def _list_of(root):
    return read_clip_list(str(Path(root) / CLIP_LIST), howto=VGGSound.HOWTO)


def _import_soundfile():
    try:
        import soundfile
    except ImportError:
        raise ConfigError(
            'writing sound needs soundfile, which is not installed. Run: '
            "pip install 'mmcmcd[audio]'"
        ) from None
    return soundfile


def _find_files(clips_dir):
    """Paths of all videos below a folder, by name without suffix."""
    if not Path(clips_dir).is_dir():
        raise DatasetError(
            f"The folder of clips '{clips_dir}' does not exist. "
            f'{VGGSound.HOWTO}'
        )
    files = defaultdict(list)
    for path in sorted(Path(clips_dir).rglob('*')):
        is_video = path.suffix.lower() in _SUFFIXES
        if is_video and path.is_file() and not path.name.startswith('.'):
            files[path.stem].append(path)
    return dict(files)


def _keep_settings(out, settings):
    """Write the settings down; refuse a folder made with other ones."""
    path, wanted = out / SETTINGS, asdict(settings)
    if not path.exists():
        write_text(path, json.dumps(wanted, indent=2) + '\n')
        return
    try:
        found = json.loads(path.read_text())
        changes = ', '.join(
            f'{name}: {found[name]} there, {value} asked for'
            for name, value in wanted.items()
            if found[name] != value
        )
    except (ValueError, KeyError, TypeError):
        changes = 'its content is damaged'
    if changes:
        raise DatasetError(
            f"'{path}' says that the folder was made with other settings "
            f'({changes}). Ask for the same, or give another folder.'
        )


def _copy_list(source, target):
    content = source.read_bytes()
    if not target.exists() or target.read_bytes() != content:
        write_bytes(target, content)


def _convert_clip(task, out, settings):
    """Convert one clip unless it is there; return its :class:`_Outcome`."""
    name, paths = task
    frames = out / 'frames' / name
    audio = out / 'audio' / f'{name}.{settings.audio_format}'
    soundfile = _import_soundfile()
    if audio.is_file() and frames.is_dir():
        return _Outcome(soundfile.info(audio).duration)
    if len(paths) > 1:
        files = ', '.join(path.name for path in paths)
        return _Outcome(reason=f'several files of one clip: {files}')
    try:
        clip = read_video_clip(
            paths[0],
            settings.num_frames,
            settings.size,
            settings.sampling_rate,
            settings.min_duration,
        )
    except UnreadableFileError as error:
        return _Outcome(reason=str(error))
    _write_frames(frames, clip.frames)
    content = io.BytesIO()
    soundfile.write(
        content,
        clip.audio,
        settings.sampling_rate,
        subtype='PCM_16',
        format=settings.audio_format,
    )
    write_bytes(audio, content.getvalue())
    return _Outcome(clip.duration, is_new=True)


def _write_frames(folder, frames):
    """Write a folder at once."""
    part = folder.with_name(f'.{folder.name}.part')
    for rest in (part, folder):  # of an interruption
        shutil.rmtree(rest, ignore_errors=True)
    part.mkdir(parents=True)
    quality = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
    for millisecond, image in frames.items():
        _, code = cv2.imencode('.jpg', image, quality)
        (part / f'{millisecond:06d}.jpg').write_bytes(code.tobytes())
    os.replace(part, folder)


def _run(function, tasks, workers):
    """Apply a function to all tasks, with progress; results in order."""
    bar = progress_bar(len(tasks))
    results = []
    if workers == 1:
        for task in tasks:
            results.append(function(task))
            bar.update()
    else:
        # Unlike multiprocessing.Pool it notices a process that dies.
        with ProcessPoolExecutor(workers, initializer=_start_worker) as pool:
            try:
                for result in pool.map(function, tasks):
                    results.append(result)
                    bar.update()
            except BrokenProcessPool:
                raise DatasetError(
                    'A process died, for want of memory or because a decoder '
                    f'crashed, at {tasks[len(results)][0]} or up to {workers} '
                    'clips later. What is finished is kept: run again with '
                    'fewer workers, or take this file away.'
                ) from None
    bar.file.write('\n')
    return results


def _start_worker():
    # The main process alone answers to Ctrl+C.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _complete_durations(out, settings, known):
    """Seconds of all complete clips, of whatever run, by name.

    Those that an interrupted run left behind are measured.
    """
    soundfile = _import_soundfile()
    sounds = {p.stem: p for p in out.glob(f'audio/*.{settings.audio_format}')}
    frames = {path.name for path in out.glob('frames/*')}
    return {
        name: known[name]
        if name in known
        else soundfile.info(sounds[name]).duration
        for name in sorted(sounds.keys() & frames)
    }


def _write_durations(out, durations):
    rows = [
        dict(clip=name, duration=f'{seconds:.4f}')
        for name, seconds in durations.items()
    ]
    write_text(out / DURATIONS, format_csv(('clip', 'duration'), rows))


def _read_reasons(out):
    """Why clips were unreadable in former runs, by name."""
    path = out / UNREADABLE
    if not path.exists():
        return {}
    rows = rows_from_csv(read_list(str(path)), path)
    try:
        return {row['clip']: row['reason'] for row in rows}
    except KeyError:
        raise DatasetError(
            f"'{path}' is damaged; expected the columns clip and reason. "
            'Remove it.'
        ) from None


def _write_reasons(out, reasons, complete):
    rows = [
        dict(clip=name, reason=reason)
        for name, reason in sorted(reasons.items())
        if name not in complete
    ]
    write_text(out / UNREADABLE, format_csv(('clip', 'reason'), rows))
