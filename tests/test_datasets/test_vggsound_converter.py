import csv
import multiprocessing
import os
import shutil
import signal
import sys

import cv2
import numpy as np
import pytest
from chirp_clips import time_by_brightness, time_by_pitch, write_clip

from mmcmcd.datasets.converters import (
    ClipSettings,
    check_layout,
    convert_vggsound,
    vggsound,
)
from mmcmcd.datasets.converters.video_clip import read_video_clip
from mmcmcd.datasets.vggsound import read_durations
from mmcmcd.errors import ConfigError, DatasetError, UnreadableFileError

soundfile = pytest.importorskip('soundfile')
RATE = 8000
SMALL = ClipSettings(num_frames=2, size=32, sampling_rate=RATE)
NAMES = ('-aB_c-12345_000030', 'ab_C-12345x_000000', 'zz_zz_zz_zz_000007')


@pytest.fixture(scope='module')
def clip(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp('clip') / 'clip.mp4', 2.0)


def make_list(root, names=NAMES):
    rows = [
        f'{n[:-7]},{int(n[-6:])},"label, {i}",{("train", "test")[i % 2]}\n'
        for i, n in enumerate(names)
    ]
    (root / 'list.csv').write_text(''.join(rows))
    return root / 'list.csv'


def make_clips(root, clip, names=NAMES):
    folder = root / 'clips'
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / f'{name}.mp4').write_bytes(clip.read_bytes())
    return folder


def convert(root, settings=SMALL, workers=1):
    return convert_vggsound(
        root / 'clips', root / 'list.csv', root / 'out', settings, workers
    )


def content(root):
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob('*'))
        if path.is_file()
    }


def unreadable(root):
    with open(root / 'out/unreadable.csv', newline='') as file:
        header, *rows = csv.reader(file)
    assert header == ['clip', 'reason']
    return dict(rows)


# ----------------------------------------------------------------- one clip


@pytest.mark.parametrize(
    'name, streams, start, end',
    [
        ('a.mp4', dict(), 0, 3),
        ('a.mp4', dict(video='mpeg4', movflags='faststart'), 0, 3),
        ('a.mkv', dict(audio='flac'), 0, 3),
        ('a.mkv', dict(video='mpeg4', audio='mp2'), 0, 3),
        ('a.mov', dict(audio='pcm_s16le', rate=44100), 0, 3),
        ('a.webm', dict(video='libvpx', audio='libopus', rate=48000), 0, 3),
        ('a.avi', dict(video='mpeg4', audio='mp2'), 0, 3),
        ('a.ts', dict(audio='mp2'), 0, 3),
        ('a.mp4', dict(audio_start=0.6), 0.6, 3),
        ('a.mkv', dict(audio_start=0.6, audio='pcm_s16le'), 0.6, 3),
        ('a.mp4', dict(video_start=0.5), 0.5, 3),
        ('a.mkv', dict(video_start=0.5, audio='flac'), 0.5, 3),
    ],
)
def test_picture_and_sound_say_the_same_time(
    tmp_path, name, streams, start, end
):
    path = write_clip(tmp_path / name, **streams)
    got = read_video_clip(path, 5, 240, 16000, 1.0)
    assert got.duration == pytest.approx(end - start, abs=0.08)
    assert got.duration == len(got.audio) / 16000
    assert got.audio.dtype == np.int16 and got.audio.ndim == 1
    shares = (np.arange(5) + 0.5) / 5
    assert list(got.frames) == pytest.approx(
        1000 * shares * got.duration, abs=0.6
    )
    # A frame stays for 50 ms; encoders of sound may be late by 30 ms.
    for millisecond, image in got.frames.items():
        assert image.shape == (48, 64, 3)
        first = round((millisecond / 1000 - 0.05) * 16000)
        heard = time_by_pitch(got.audio[first : first + 1600], 16000)
        seen = time_by_brightness(image)
        assert -0.05 < heard - seen < 0.1, (millisecond, heard, seen)
        assert heard == pytest.approx(start + millisecond / 1000, abs=0.08)


def test_gap_in_the_sound_is_silence(tmp_path):
    path = write_clip(tmp_path / 'a.mkv', audio='flac', gap=(1.0, 2.0))
    audio = read_video_clip(path, 1, 240, RATE, 1.0).audio
    assert len(audio) == pytest.approx(3 * RATE, abs=0.01 * RATE)
    assert not audio[round(1.2 * RATE) : round(1.8 * RATE)].any()
    for time in (0.5, 2.5):
        first = round((time - 0.05) * RATE)
        part = audio[first : first + RATE // 10]
        assert time_by_pitch(part, RATE) == pytest.approx(time, abs=0.03)


def test_end_is_that_of_the_shorter_stream(tmp_path):
    path = write_clip(tmp_path / 'a.mkv', audio='flac', video_end=1.5)
    got = read_video_clip(path, 3, 240, RATE, 1.0)
    assert got.duration == pytest.approx(1.5, abs=0.002)
    assert list(got.frames) == [250, 750, 1250]


def test_picture_that_stands_still(tmp_path):
    path = write_clip(tmp_path / 'a.mp4', still=True)
    got = read_video_clip(path, 3, 240, RATE, 1.0)
    assert got.duration == pytest.approx(3, abs=0.01)
    assert list(got.frames) == [500, 1500, 2500]


def test_sound_that_changes_from_mono_to_stereo(tmp_path):
    """As some broadcasts do: transport streams can be put together."""
    first = dict(duration=2, layout='mono')
    second = dict(
        duration=4, layout='stereo', audio_start=2.0, video_start=2.0
    )
    path = tmp_path / 'a.ts'
    content = [
        write_clip(tmp_path / 'part.ts', audio='mp2', **part).read_bytes()
        for part in (first, second)
    ]
    path.write_bytes(b''.join(content))
    audio = read_video_clip(path, 1, 240, RATE, 1.0).audio
    assert len(audio) == pytest.approx(4 * RATE, abs=0.1 * RATE)
    for time in (1, 3):
        part = audio[round((time - 0.05) * RATE) :][: RATE // 10]
        assert time_by_pitch(part, RATE) == pytest.approx(time, abs=0.05)


def test_short_side(tmp_path):
    path = write_clip(tmp_path / 'a.mp4', 1.5, size=(96, 160))
    for size, shape in ((48, (80, 48, 3)), (96, (160, 96, 3)), (500, None)):
        (image,) = read_video_clip(path, 1, size, RATE, 1.0).frames.values()
        assert image.shape == (shape or (160, 96, 3))


def cut(path, share):
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])


@pytest.mark.parametrize(
    'name, streams, harm, reason',
    [
        ('a.mp4', dict(audio=None), None, 'no audio stream'),
        ('a.mp4', dict(video=None), None, 'no video stream'),
        ('a.mp4', dict(duration=0.8), None, r'share 0\.8\d? s, less than 1 s'),
        ('a.mp4', dict(audio_start=2.5), None, 'too short: .* less than 1 s'),
        ('a.mp4', dict(), lambda p: cut(p, 0.7), 'cannot be decoded'),
        (
            'a.mp4',
            dict(movflags='faststart'),
            lambda p: cut(p, 0.7),
            r'cut off: ends at \d\.\d+ s, by its header at 3\.0|cannot be',
        ),
        ('a.mkv', dict(), lambda p: cut(p, 0.6), 'cut off|cannot be decoded'),
        ('a.mp4', dict(), lambda p: p.write_bytes(b''), 'cannot be decoded'),
        ('a.mp4', dict(), lambda p: p.write_text('<p>'), 'cannot be decoded'),
    ],
)
def test_reasons(tmp_path, name, streams, harm, reason):
    path = write_clip(tmp_path / name, **streams)
    if harm:
        harm(path)
    with pytest.raises(UnreadableFileError, match=reason):
        read_video_clip(path, 1, 240, RATE, 1.0)


# ------------------------------------------------------------------ a folder


@pytest.mark.parametrize('suffix', ['wav', 'flac'])
def test_layout(tmp_path, clip, suffix, capfd):
    make_list(tmp_path)
    make_clips(tmp_path, clip, NAMES[:2])
    settings = ClipSettings(2, 32, RATE, suffix)
    summary = convert(tmp_path, settings)
    assert 'ETA' in capfd.readouterr().err
    assert (summary.converted, summary.kept) == (2, 0)
    assert summary.absent == dict(train=1, test=0)
    assert not summary.unreadable
    out = tmp_path / 'out'
    assert list(content(out)) == [
        *(f'audio/{name}.{suffix}' for name in NAMES[:2]),
        'clips.csv',
        'conversion.json',
        *(
            f'frames/{name}/{millisecond}.jpg'
            for name in NAMES[:2]
            for millisecond in ('000500', '001500')
        ),
        'unreadable.csv',
        'vggsound.csv',
    ]
    assert (out / 'clips.csv').read_text() == 'clip,duration\n' + ''.join(
        f'{name},2.0000\n' for name in NAMES[:2]
    )
    info = soundfile.info(out / f'audio/{NAMES[0]}.{suffix}')
    assert (info.samplerate, info.channels, info.frames) == (RATE, 1, 16000)
    image = cv2.imread(str(out / f'frames/{NAMES[0]}/001500.jpg'))
    assert image.shape == (32, 43, 3)
    assert 1.4 <= time_by_brightness(image) <= 1.6
    text = summary.format()
    assert text.startswith('2 clips converted, 0 were there, 0 unreadable')
    assert 'no file of 1 of train and 0 of test clips' in text


def test_unreadable_clips_are_listed_and_tried_again(tmp_path, clip):
    make_list(tmp_path)
    folder = make_clips(tmp_path, clip)
    cut(folder / f'{NAMES[1]}.mp4', 0.5)
    (folder / 'sub').mkdir()
    (folder / f'sub/{NAMES[2]}.webm').touch()
    (folder / 'other_000001.mp4').touch()
    (folder / f'{NAMES[0]}.info.json').touch()
    summary = convert(tmp_path)
    assert (summary.converted, summary.kept, summary.unlisted) == (1, 0, 1)
    assert unreadable(tmp_path) == summary.unreadable
    assert list(summary.unreadable) == list(NAMES[1:])
    assert 'cannot be decoded' in summary.unreadable[NAMES[1]]
    assert 'several files of one clip' in summary.unreadable[NAMES[2]]
    assert 'left out: 1 files not in the list' in summary.format()
    before = content(tmp_path / 'out')
    assert not [name for name in before if NAMES[1] in name]
    make_clips(tmp_path, clip)
    (folder / f'sub/{NAMES[2]}.webm').unlink()
    summary = convert(tmp_path)
    assert (summary.converted, summary.kept) == (2, 1)
    assert unreadable(tmp_path) == {}
    assert len(content(tmp_path / 'out')) == 3 * 3 + 4


def test_folders_one_after_the_other(tmp_path, clip):
    """As the archives of the set come, of which the former are deleted."""
    make_list(tmp_path)
    folder = make_clips(tmp_path, clip, NAMES[:2])
    cut(folder / f'{NAMES[1]}.mp4', 0.5)
    convert(tmp_path)
    durations = (tmp_path / 'out/clips.csv').read_text()
    shutil.rmtree(folder)
    make_clips(tmp_path, clip, NAMES[2:])
    summary = convert(tmp_path)
    assert (summary.converted, summary.kept) == (1, 0)
    assert summary.absent == dict(train=0, test=1)
    assert list(unreadable(tmp_path)) == [NAMES[1]]
    found = read_durations(str(tmp_path / 'out'))
    assert sorted(found) == [NAMES[0], NAMES[2]]
    text = (tmp_path / 'out/clips.csv').read_text()
    assert durations.splitlines()[1] in text.splitlines()
    # A better copy of the clip that was unreadable.
    shutil.rmtree(folder)
    make_clips(tmp_path, clip, NAMES[1:2])
    convert(tmp_path)
    assert unreadable(tmp_path) == {}
    assert sorted(read_durations(str(tmp_path / 'out'))) == sorted(NAMES)


def test_durations_of_an_interrupted_run_are_measured(tmp_path, clip):
    make_list(tmp_path)
    folder = make_clips(tmp_path, clip, NAMES[:2])
    convert(tmp_path)
    out = tmp_path / 'out'
    durations = (out / 'clips.csv').read_text()
    (out / 'clips.csv').unlink()
    text, missing = check_layout(out)
    assert missing == 1
    assert f'no duration in clips.csv: 1 ({NAMES[0]})' in text
    (folder / f'{NAMES[0]}.mp4').unlink()
    convert(tmp_path)
    assert (out / 'clips.csv').read_text() == durations
    assert 'no duration' not in check_layout(out)[0]


@pytest.mark.parametrize('name', ['clips.csv', 'unreadable.csv'])
def test_damaged_table(tmp_path, clip, name):
    make_list(tmp_path)
    make_clips(tmp_path, clip, NAMES[:1])
    convert(tmp_path)
    (tmp_path / 'out' / name).write_text('x\ny\n')
    with pytest.raises(DatasetError, match=f'{name}. is damaged.*Remove it'):
        convert(tmp_path)


def test_processes_give_the_same(tmp_path, clip):
    make_list(tmp_path)
    make_clips(tmp_path, clip)
    convert(tmp_path)
    one = content(tmp_path / 'out')
    (tmp_path / 'out').rename(tmp_path / 'one')
    convert(tmp_path, workers=2)
    assert content(tmp_path / 'out') == one


@pytest.mark.parametrize('stop_at', ['imencode', 'replace', 'write_bytes'])
def test_going_on_after_an_interruption(tmp_path, clip, monkeypatch, stop_at):
    """Whatever was being written, the end is that of one run."""
    make_list(tmp_path)
    make_clips(tmp_path, clip)
    convert(tmp_path)
    whole = content(tmp_path / 'out')
    (tmp_path / 'out').rename(tmp_path / 'whole')
    owner = dict(imencode=cv2, replace=os, write_bytes=vggsound)[stop_at]
    real, calls = getattr(owner, stop_at), []

    def stop(*args):
        calls.append(args)
        if NAMES[1] in str(args[1:]) + str(args[:1])[:500]:
            raise KeyboardInterrupt
        if stop_at == 'imencode' and len(calls) > 3:
            raise KeyboardInterrupt
        return real(*args)

    with monkeypatch.context() as patch:
        patch.setattr(owner, stop_at, stop)
        with pytest.raises(KeyboardInterrupt):
            convert(tmp_path)
    there = content(tmp_path / 'out')
    assert len([n for n in there if n.startswith('audio/')]) == 1
    text, missing = check_layout(tmp_path / 'out')
    assert missing == 2 and 'train: 1 clips complete, 1 missing' in text
    summary = convert(tmp_path)
    assert (summary.converted, summary.kept) == (2, 1)
    assert content(tmp_path / 'out') == whole


def convert_until_killed(root):
    real = vggsound.write_bytes

    def stop(path, content):
        if path.suffix == '.wav':
            os.kill(os.getpid(), signal.SIGKILL)
        real(path, content)

    vggsound.write_bytes = stop
    convert(root)


def test_killed_run_leaves_no_half_clip(tmp_path, clip):
    make_list(tmp_path)
    make_clips(tmp_path, clip)
    process = multiprocessing.get_context('fork').Process(
        target=convert_until_killed, args=(tmp_path,)
    )
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert not list((tmp_path / 'out').rglob('*.wav'))
    assert convert(tmp_path).converted == 3
    assert len(content(tmp_path / 'out')) == 3 * 3 + 4


def die(task):
    os._exit(1)


def test_process_that_dies_is_an_error():
    with pytest.raises(DatasetError, match='process died.* at x or up to 2'):
        vggsound._run(die, [('x',), ('y',)], 2)


def test_other_settings_need_another_folder(tmp_path, clip):
    make_list(tmp_path)
    make_clips(tmp_path, clip, NAMES[:1])
    convert(tmp_path)
    with pytest.raises(DatasetError, match=r'num_frames: 2 there, 3 asked'):
        convert(tmp_path, ClipSettings(3, 32, RATE))
    (tmp_path / 'out/conversion.json').write_text('{')
    with pytest.raises(DatasetError, match='its content is damaged'):
        convert(tmp_path)


def test_check_counts_by_split(tmp_path, clip):
    make_list(tmp_path)
    make_clips(tmp_path, clip)
    convert(tmp_path)
    out = tmp_path / 'out'
    assert check_layout(out) == (
        'test: 1 clips complete, 0 missing or incomplete\n'
        'train: 2 clips complete, 0 missing or incomplete',
        0,
    )
    for path in (out / 'frames' / NAMES[0]).iterdir():
        path.unlink()
    (out / 'audio' / f'{NAMES[1]}.wav').unlink()
    text, missing = check_layout(out)
    assert missing == 2
    assert 'test: 0 clips complete, 1 missing' in text
    assert f'no target file: 1 ({NAMES[1]})' in text
    assert 'no source file: 1 (' in text and f'{NAMES[0]}/*.jpg' in text


@pytest.mark.parametrize(
    'change, words',
    [
        (dict(num_frames=0), 'num_frames=0 must be positive'),
        (dict(sampling_rate=-1), 'sampling_rate=-1 must be'),
        (dict(audio_format='mp3'), "audio_format='mp3' is unknown"),
    ],
)
def test_wrong_settings(change, words):
    with pytest.raises(ConfigError, match=words):
        ClipSettings(**change)


def test_missing_input(tmp_path, clip):
    make_list(tmp_path)
    with pytest.raises(DatasetError, match=r'clips.* does not exist\. Get vg'):
        convert(tmp_path)
    make_clips(tmp_path, clip, ['x_1'])
    with pytest.raises(DatasetError, match=r'has no clip.*there: x_1.*-aB_c'):
        convert(tmp_path)
    assert not (tmp_path / 'out').exists()
    with pytest.raises(ConfigError, match='workers=0'):
        convert(tmp_path, workers=0)


@pytest.mark.parametrize('package', ['av', 'soundfile'])
def test_missing_package(tmp_path, clip, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=r"pip install 'mmcmcd\[audio\]'"):
        convert(tmp_path)
