import os
import sys
from pathlib import Path

import pytest
from mmengine.config import Config

from mmcmcd.checkpoints import parse_config_text
from mmcmcd.errors import CheckpointError

REPO = Path(__file__).resolve().parents[2]
CONFIGS = sorted((REPO / 'configs').rglob('*.py'))


def test_every_config_comes_back(monkeypatch):
    assert CONFIGS
    for number, path in enumerate(CONFIGS):
        config = Config.fromfile(path)
        if number == 3:  # laying it out takes all the time
            monkeypatch.setattr(
                'yapf.yapflib.yapf_api.FormatCode', lambda text, **_: (text, 1)
            )
        read = parse_config_text(config.pretty_text)
        assert read == config.to_dict(), path.name


def test_literals():
    text = """
a = 1
b = -2.5
c = ['x' 'y', (1, None), {3, 4}, {}]
d = dict(e=True, f={'g h': 'i', 5: ()})
j = dict({'k l': dict(m=[])})
custom_imports = dict(imports=['os'], allow_failed_imports=False)
default_scope = 'mmseg'
model = [dict(type='mmpretrain.ResNet'), dict(type='ReLU', dtype='float32')]
"""
    assert parse_config_text(text) == dict(
        a=1,
        b=-2.5,
        c=['xy', (1, None), {3, 4}, {}],
        d=dict(e=True, f={'g h': 'i', 5: ()}),
        j={'k l': dict(m=[])},
        custom_imports=dict(imports=['os'], allow_failed_imports=False),
        default_scope='mmseg',
        model=[
            dict(type='mmpretrain.ResNet'),
            dict(type='ReLU', dtype='float32'),
        ],
    )


@pytest.mark.parametrize(
    ('text', 'construct'),
    [
        ('a = 1\nimport os', 'line 2: Import'),
        ("a = __import__('os').system('x')", 'line 1: Call'),
        ('a = [print(1)]', 'Call'),
        ('a = dict(print=print(1))', 'Call'),
        ('a = dict(**{})', 'Call'),
        ('a = dict([(1, 2)])', 'Call'),
        ('a = {**{}}', 'Dict'),
        ('a = b', 'Name'),
        ('a = b = 1', 'Assign'),
        ('a.b = 1', 'Assign'),
        ('a += 1', 'AugAssign'),
        ("a = 'x' * 10**9", 'BinOp'),
        ("a = f'{print(1)}'", 'JoinedStr'),
        ('a = [x for x in ()]', 'ListComp'),
        ('a = lambda: 1', 'Lambda'),
        ('a = {[]}', 'List'),
        ('a = b"x"', 'Constant'),
        ('def f(): pass', 'FunctionDef'),
        ('with read_base(): from x import *', 'With'),
        ("_base_ = 'x.py'", '_base_'),
        ("a = '{{ fileDirname }}'", 'line 1: a substitution'),
        ("a = 1\nb = '{{$HOME:x}}'", 'line 2: a substitution'),
        ("custom_imports = dict(imports='no_such')", 'custom_imports'),
        ("custom_imports = dict(imports=['os', 'no.such'])", 'custom_imports'),
        ("custom_imports = 'os'", 'custom_imports'),
        ("model = dict(a=[dict(type='os.system')])", r'model\.a\.0\.type'),
        ("model = dict(type='subprocess.Popen')", r'model\.type'),
        ("model = dict(type='mmengine.load', file='x')", r'model\.type'),
        ("model = dict(type='mmengine.utils.os.Path')", r'model\.type'),
        ("t = dict(type='T', dtype='os.system(1)')", r't\.dtype'),
        ("model = dict(_scope_='os')", r'model\._scope_'),
        ('default_scope = [1]', 'default_scope'),
        ('a = ', 'line 1: no Python'),
        ('a = "\x00"', 'no Python'),
        ('a = ' + '[' * 100_000, 'no Python'),
        ('a = ' + '-' * 100_000 + '1', 'no Python|UnaryOp'),
        ('a = ' + 'dict(a=' * 5000 + '1' + ')' * 5000, 'no Python'),
        ('a = ' + '9' * 10_000, 'no Python'),
        ('#' * (2 << 20), 'characters'),
        (b'a = 1', 'bytes'),
        (None, 'NoneType'),
    ],
    ids=lambda value: str(value)[:30].replace('\x00', '0'),
)
def test_all_else_is_refused_by_name(text, construct):
    with pytest.raises(CheckpointError, match=construct):
        parse_config_text(text)


def test_nothing_is_imported_or_run(tmp_path, monkeypatch):
    marker = tmp_path / 'marker'
    (tmp_path / 'left_here.py').write_text(f"open({str(marker)!r}, 'w')")
    monkeypatch.syspath_prepend(tmp_path)
    for text in (
        f"import os\nos.system('touch {marker}')",
        "custom_imports = dict(imports='left_here')",
        f"_base_ = '{tmp_path}/left_here.py'",
    ):
        with pytest.raises(CheckpointError):
            parse_config_text(text)
    assert not marker.exists()
    assert 'left_here' not in sys.modules
    assert os.listdir(tmp_path) == ['left_here.py']
