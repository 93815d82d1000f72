import importlib.util
import sys

import pytest
from conftest import REPO
from PIL import Image

from mmcmcd.apis import run_tool

TOOL = REPO / 'tools/dataset_converters/sketchy.py'


@pytest.fixture
def root(tmp_path):
    for i in range(4):
        photo = tmp_path / f'photo/cat/n1_{i}.jpg'
        sketch = tmp_path / f'sketch/cat/n1_{i}-1.png'
        for path in (photo, sketch):
            path.parent.mkdir(parents=True, exist_ok=True)
        Image.new('RGB', (12, 8)).save(photo)
        drawing = Image.new('L', (12, 8), 255)
        drawing.putpixel((3, 4), 0)
        drawing.save(sketch)
    return tmp_path


def run(monkeypatch, *args):
    """Exit status of the tool, run in this process."""
    spec = importlib.util.spec_from_file_location('sketchy_tool', TOOL)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    monkeypatch.setattr(sys, 'argv', [str(TOOL), *map(str, args)])
    with pytest.raises(SystemExit) as end:
        run_tool(tool.main)
    return end.value.code or 0


def test_write_then_check(root, monkeypatch, capsys):
    assert run(monkeypatch, root) == 0
    text = capsys.readouterr().out
    assert '1 classes, 4 photos (0 without a sketch), 4 sketches' in text
    assert 'pairs.csv: written' in text
    assert run(monkeypatch, root, '--check', '--num-workers', 1) == 0
    text = capsys.readouterr()
    assert 'pairs.csv: checked, unchanged' in text.out
    assert text.out.count('no faults') == 2 and 'ETA' in text.err


def test_check_finds_faults(root, monkeypatch, capsys):
    for path in sorted((root / 'photo/cat').iterdir()):
        path.write_bytes(path.read_bytes()[:-20])
    assert run(monkeypatch, root, '--check', '--num-workers', 1) == 1
    text = capsys.readouterr().out
    assert 'FAULT: unreadable source file: 3' in text
    assert 'FAULT: unreadable source file: 1' in text


@pytest.mark.parametrize(
    'args, words',
    [
        (['--rendering', 'tx_9', '--info', 'gone'], "--info 'gone'"),
        (['--classes', 'gone.txt'], "'gone.txt' does not exist"),
        ([], 'Use --force to replace it'),
    ],
)
def test_user_errors(root, monkeypatch, capsys, args, words):
    (root / 'pairs.csv').write_text('photo,sketch,class,split\n')
    assert run(monkeypatch, root, *args) == 2
    assert words in capsys.readouterr().err
    assert run(monkeypatch, root, '--force') == 0


def test_sketch_without_photo(root, monkeypatch, capsys):
    (root / 'photo/cat/n1_2.jpg').unlink()
    assert run(monkeypatch, root, '--out', root / 'x.csv') == 2
    text = capsys.readouterr().err
    assert text.startswith('error: ') and 'Traceback' not in text
    assert '1 sketches without their photo: cat/n1_2-1' in text
    assert not (root / 'x.csv').exists()
