"""A short run of the fuzzer, and proof that it would find something."""

import os
import subprocess
import sys
import time
from importlib import util

import numpy as np
import pytest
from conftest import REPO, process_env

from mmcmcd.datasets import fuzzing
from mmcmcd.datasets.transforms import LoadArray, LoadImageStrict

pytest.importorskip('soundfile')
pytest.importorskip('h5py')
SCRIPT = REPO / 'tools/benchmarks/fuzz_loaders.py'


@pytest.fixture(scope='module')
def fuzzer():
    spec = util.spec_from_file_location('fuzz_loaders', SCRIPT)
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_valid_files_are_read(tmp_path, fuzzer):
    """Otherwise the damage would prove nothing."""
    seeds = fuzzing.make_seeds()
    reader = fuzzing.Reader(tmp_path / 'work', seeds)
    for name, content in seeds.items():
        group, dot, suffix = name.partition('.')
        path = tmp_path / 'work' / f'{group}.0{dot}{suffix}'
        path.write_bytes(content)
        accepted, refused, findings = fuzzer.read_case(reader, path, True)
        assert not findings and accepted >= 3
        # Not every loader takes every kind.
        assert accepted > refused or name.endswith('.npy'), name


def test_cases_depend_on_their_number_alone():
    seeds = fuzzing.make_seeds()
    for name, content in seeds.items():
        twins = [
            fuzzing.damage(content, name, np.random.default_rng([3, 7]))
            for _ in range(2)
        ]
        assert twins[0] == twins[1]
        changed = [
            fuzzing.damage(content, name, np.random.default_rng([3, i]))
            for i in range(10)
        ]
        assert len(set(changed)) > 5


def test_short_run(fuzzer):
    table, findings = fuzzer.run_cases(1200, seed=11)
    assert not findings, findings[0]
    assert len(table) == len(fuzzing.make_seeds())
    assert sum(counts['cases'] for counts in table.values()) == 1200
    # Both must happen: damage that is noticed, and damage that does no harm.
    assert all(counts['refused'] for counts in table.values())
    assert sum(counts['accepted'] for counts in table.values()) > 500


def raise_key_error(*_):
    raise KeyError('a bug')


def allocate(*_):
    return np.ones(2**40, np.uint8)


def hang(*_):
    time.sleep(60)


def crash(*_):
    os.kill(os.getpid(), 9)


@pytest.mark.parametrize(
    'fault, words',
    [
        (raise_key_error, 'KeyError'),
        (allocate, 'MemoryError'),
        (hang, 'TooSlowError'),
        (crash, 'crashed'),
    ],
)
def test_faults_are_found(fuzzer, monkeypatch, fault, words):
    monkeypatch.setattr(LoadArray, 'transform', fault)
    monkeypatch.setattr(fuzzer, 'SECONDS', 1)
    monkeypatch.setattr(
        fuzzer,
        'make_seeds',
        lambda: {
            name: content
            for name, content in fuzzing.make_seeds().items()
            if name in ('array.series.npy', 'image.jpg', 'image.depth16.png')
        },
    )
    table, findings = fuzzer.run_cases(4, seed=0)
    assert {name for _, name, _ in findings} == {'array.series.npy'}
    assert words in findings[0][2]
    assert sum(counts['cases'] for counts in table.values()) == 4
    assert table['image.jpg']['findings'] == 0


def test_exit_status_and_files(fuzzer, tmp_path, monkeypatch, capsys):
    args = ['fuzz', '--cases', '30', '--keep', str(tmp_path / 'keep')]
    monkeypatch.setattr(sys, 'argv', args)
    assert fuzzer.main() == 0 and not (tmp_path / 'keep').exists()
    assert '| total | 30 |' in capsys.readouterr().out
    monkeypatch.setattr(LoadImageStrict, 'transform', raise_key_error)
    assert fuzzer.main() == 1
    assert 'KeyError' in capsys.readouterr().out
    kept = sorted(path.name for path in (tmp_path / 'keep').iterdir())
    assert any(name.endswith('image.jpg') for name in kept)
    assert any(name.endswith('image.jpg.log') for name in kept)


def test_wrong_arguments():
    run = subprocess.run(
        [sys.executable, SCRIPT, '--cases', '0'],
        capture_output=True,
        text=True,
        env=process_env(),
    )
    assert run.returncode == 2 and '--cases must be positive' in run.stderr
