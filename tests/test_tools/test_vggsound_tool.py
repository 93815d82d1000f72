import runpy
import sys

import pytest
from chirp_clips import write_clip
from conftest import REPO

pytest.importorskip('soundfile')
TOOL = REPO / 'tools/dataset_converters/vggsound.py'


@pytest.fixture
def root(tmp_path):
    clip = write_clip(tmp_path / 'clips/abc_000000.mp4', 1.5)
    (tmp_path / 'clips/def_000010.mp4').write_bytes(clip.read_bytes()[:900])
    (tmp_path / 'list.csv').write_text(
        'abc,0,dog,train\ndef,10,"cat, small",train\nghi,0,dog,test\n'
    )
    return tmp_path


def run(monkeypatch, root, *args):
    command = ['vggsound.py', '--out', root / 'out', *args]
    monkeypatch.setattr(sys, 'argv', [str(word) for word in command])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(TOOL), run_name='__main__')
    return end.value.code or 0


def convert(monkeypatch, root, *args):
    return run(
        monkeypatch,
        root,
        root / 'clips',
        '--csv',
        root / 'list.csv',
        '--workers',
        1,
        *args,
    )


def test_convert_and_check(root, monkeypatch, capsys):
    options = ['--frames', 3, '--size', 32, '--sampling-rate', 8000]
    options += ['--audio-format', 'flac', '--min-duration', 0.5]
    assert convert(monkeypatch, root, *options) == 0
    text = capsys.readouterr()
    assert '1 clips converted, 0 were there, 1 unreadable' in text.out
    assert 'unreadable (unreadable.csv): def_000010: cannot be' in text.out
    assert 'no file of 0 of train and 1 of test clips' in text.out
    assert 'ETA' in text.err
    assert len(list((root / 'out/frames/abc_000000').iterdir())) == 3
    assert (root / 'out/audio/abc_000000.flac').is_file()
    assert convert(monkeypatch, root, *options, '--strict') == 1
    assert '0 clips converted, 1 were there' in capsys.readouterr().out
    assert run(monkeypatch, root, '--check') == 0
    text = capsys.readouterr().out
    assert 'train: 1 clips complete, 1 missing' in text
    assert 'test: 0 clips complete, 1 missing' in text
    assert run(monkeypatch, root, '--check', '--strict') == 1


def test_user_errors(root, monkeypatch, capsys):
    cases = {
        'Give the folder of clips and --csv': [],
        "vggsound.csv' does not exist": ['--check'],
        "folder of clips 'gone' does not": [
            'gone',
            '--csv',
            root / 'list.csv',
        ],
        "'gone.csv' does not exist": [root / 'clips', '--csv', 'gone.csv'],
    }
    for words, args in cases.items():
        assert run(monkeypatch, root, *args, '--workers', 1) == 2
        text = capsys.readouterr().err
        assert text.startswith('error: ') and words in text
    assert convert(monkeypatch, root) == 0
    assert convert(monkeypatch, root, '--frames', 2) == 2
    assert 'num_frames: 1 there, 2 asked for' in capsys.readouterr().err
