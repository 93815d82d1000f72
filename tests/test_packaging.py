import os
import re
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest
from conftest import REPO, run_command

from mmcmcd.version import __version__

COPIED = (
    'mmcmcd',
    'configs',
    'tools',
    'requirements',
    'setup.py',
    'pyproject.toml',
    'MANIFEST.in',
    'README.md',
    'requirements.txt',
    'model-index.yml',
)


@pytest.fixture(scope='module')
def clone(tmp_path_factory):
    """A copy of the repository, because building writes beside the sources."""
    root = tmp_path_factory.mktemp('clone')
    ignored = shutil.ignore_patterns('__pycache__', '.mim', '*.egg-info')
    for name in COPIED:
        source = REPO / name
        if source.is_dir():
            shutil.copytree(source, root / name, ignore=ignored)
        else:
            shutil.copy(source, root / name)
    return root


def pip(*args, python=sys.executable):
    # Neither build isolation nor an index: nothing is downloaded.
    result = run_command(
        [
            sys.executable,
            '-m',
            'pip',
            '--python',
            python,
            *args,
            '--no-deps',
            '--no-index',
            '--no-build-isolation',
            '-q',
        ]
    )
    assert result.returncode == 0, result.stderr


def tracked(folder, suffixes):
    return {
        path.relative_to(REPO).as_posix()
        for path in (REPO / folder).rglob('*')
        if path.suffix in suffixes
    }


@pytest.fixture(scope='module')
def wheel(clone, tmp_path_factory):
    out = tmp_path_factory.mktemp('wheel')
    pip('wheel', clone, '--wheel-dir', out)
    (path,) = out.glob('*.whl')
    return path


def test_wheel_holds_configs_tools_and_tables(wheel):
    assert wheel.name == f'mmcmcd-{__version__}-py3-none-any.whl'
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    expected = tracked('configs', {'.py', '.yml'}) | tracked(
        'tools', {'.py', '.sh'}
    )
    assert {'tools/train.py', 'tools/dist_train.sh'} <= expected
    missing = {f'mmcmcd/.mim/{name}' for name in expected} - names
    assert not missing
    assert 'mmcmcd/.mim/model-index.yml' in names
    assert not tracked('mmcmcd', {'.py', '.csv', '.txt'}) - names
    assert not [n for n in names if '__pycache__' in n or n[:6] == 'tests/']


def test_installing_brings_no_stack(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith('METADATA'))
        lines = archive.read(name).decode().splitlines()
    required = [
        x.split(':', 1)[1].strip()
        for x in lines
        if x.startswith('Requires-Dist:')
    ]
    base = [r for r in required if 'extra ==' not in r]
    assert base == ['numpy', 'scipy']
    pins = (REPO / 'requirements.txt').read_text().splitlines()
    pins = {p for p in pins if p and not p.startswith('#')}
    assert len(pins) == 6 and all('==' in pin for pin in pins)
    onedl = {
        r.split(';')[0].strip() for r in required if 'extra == "onedl"' in r
    }
    assert onedl == pins
    official = {
        re.split('[<=>;]', r)[0].strip()
        for r in required
        if 'extra == "openmmlab"' in r
    }
    stack = {'mmengine', 'mmcv-lite', 'mmpretrain', 'mmsegmentation'}
    assert stack <= official
    assert not any(name.startswith('onedl') for name in official)


@pytest.fixture(scope='module')
def other_python(tmp_path_factory):
    """An interpreter that sees our dependencies but not the repository."""
    root = tmp_path_factory.mktemp('env')
    venv.create(root, with_pip=False, symlinks=True)
    packages = Path(pytest.__file__).parents[1]
    (site,) = root.glob('lib/python*/site-packages')
    (site / 'dependencies.pth').write_text(f'{packages}\n')
    return root / 'bin' / 'python'


CHILD = """
_base_ = 'mmcmcd::cmcd/depth_nyu.py'
model = dict(student=dict(depth=18))
train_dataloader = dict(batch_size=3)
"""
CHECK = """
import mmcmcd
from mmengine.config import Config
from mmengine.hub import get_config
from mmengine.registry import init_default_scope

cfg = Config.fromfile('child.py')
init_default_scope(cfg.default_scope)
from mmcmcd.registry import MODELS
student = MODELS.build(cfg.model).student
print(mmcmcd.__file__)
print(type(student).__module__, student.depth, cfg.train_dataloader.batch_size)
print(get_config('mmcmcd::cmcd/depth_nyu.py').model.student.depth)
"""


@pytest.mark.parametrize('mode', ['wheel', 'editable'])
def test_configs_are_inherited_elsewhere(
    clone, wheel, other_python, tmp_path, mode
):
    if mode == 'wheel':
        pip('install', '--force-reinstall', wheel, python=other_python)
    else:
        pip('install', '-e', clone, python=other_python)
        mim = clone / 'mmcmcd' / '.mim'
        assert os.path.samefile(mim / 'configs', clone / 'configs')
        assert os.path.samefile(mim / 'tools', clone / 'tools')
    (tmp_path / 'child.py').write_text(CHILD)
    env = {k: v for k, v in os.environ.items() if k != 'PYTHONPATH'}
    result = subprocess.run(
        [str(other_python), '-c', CHECK],
        cwd=tmp_path,
        env={**env, 'OMP_NUM_THREADS': '1'},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    package, network, packaged = result.stdout.strip().splitlines()[-3:]
    assert str(REPO) not in package
    assert network == 'mmpretrain.models.backbones.resnet 18 3'
    assert packaged == '50'

    result = subprocess.run(
        [str(other_python), '-m', 'mmcmcd', 'train', 'mmcmcd::a/nothing.py'],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 2
    assert result.stderr.startswith("error: config 'mmcmcd::a/nothing.py', ")
