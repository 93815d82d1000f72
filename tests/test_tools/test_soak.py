"""A short form of the soak test, and that it can fail."""

import importlib.util
import json
import mmap
import sys

import numpy as np
import pytest
import torch
from conftest import REPO, run_command

from mmcmcd.errors import ConfigError

TOOL = REPO / 'tools/benchmarks/soak.py'


@pytest.fixture(scope='module')
def soak():
    spec = importlib.util.spec_from_file_location('soak', TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def samples(main=0.0, workers=0.0, files=0.0, noise=0.3):
    """Notes of a run that grows by so much in 1,000 steps."""
    rng = np.random.default_rng(0)
    return [
        dict(
            step=step,
            main=500 + main * step / 1000 + rng.normal(0, noise),
            workers=900 + workers * step / 1000 + rng.normal(0, noise),
            processes=4,
            files=40 + int(files * step / 1000),
        )
        for step in range(50, 20_001, 50)
    ]


def test_a_line_is_fitted(soak):
    steps = np.arange(0, 5000, 50)
    rng = np.random.default_rng(0)
    values = 300 + 0.002 * steps + rng.normal(0, 1, len(steps))
    slope, error = soak.slope(steps, values)
    expected, covariance = np.polyfit(steps / 1000, values, 1, cov=True)
    assert slope == pytest.approx(expected[0])
    assert error == pytest.approx(covariance[0, 0] ** 0.5)
    assert abs(slope - 2) < 4 * error < 1


def test_what_stays_is_no_fault(soak):
    figures, faults = soak.judge(samples(main=0.9), [], 4000, limit=1.0)
    assert faults == []
    assert figures['main']['slope'] == pytest.approx(0.9, abs=0.05)
    assert figures['workers']['slope'] == pytest.approx(0, abs=0.05)


@pytest.mark.parametrize(
    ('growth', 'fault'),
    [
        (dict(main=1.2), 'memory of the main process grows by 1.2'),
        (dict(workers=3), 'memory of all workers grows by '),
        (dict(files=0.5), 'open files grow from 46 to 50'),
    ],
)
def test_what_grows_is_a_fault(soak, growth, fault):
    _, faults = soak.judge(samples(**growth), [], 4000, limit=1.0)
    assert len(faults) == 1 and faults[0].startswith(fault)


def test_a_warm_up_is_left_out(soak):
    notes = samples()
    for note in notes[:80]:
        note['main'] = note['step'] / 10
    assert soak.judge(notes, [], 4000, limit=1.0)[1] == []
    assert soak.judge(notes, [], 0, limit=1.0)[1]


def test_losses_and_short_runs_are_told(soak):
    _, faults = soak.judge(samples(), [7, 9], 4000, limit=1.0)
    assert faults == ['2 losses are not finite, the first in step 7']
    with pytest.raises(ConfigError, match='1 samples after 19950 steps'):
        soak.judge(samples(), [], 19_950, limit=1.0)


def test_real_memory_and_files_are_seen(soak, tmp_path):
    before = soak.observe()
    # Of the kernel: an allocator may have had that much left over.
    size = 64 * soak.MEGABYTE
    kept = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for place in range(0, size, mmap.PAGESIZE):
        kept[place] = 1
    files = [open(tmp_path / str(i), 'w') for i in range(5)]  # noqa: SIM115
    after = soak.observe()
    for file in files:
        file.close()
    kept.close()
    assert 60 < after['main'] - before['main'] < 80
    assert after['files'] - before['files'] == 5


def test_losses_are_looked_at(soak):
    class Runner:
        iter = 4

    hook = soak.WatchHook(interval=5)
    for value in (1.0, float('nan')):
        hook.after_train_iter(Runner, 0, None, dict(loss=torch.tensor(value)))
    assert hook.not_finite == [5]
    assert [sample['step'] for sample in hook.samples] == [5, 5]


def test_a_short_run(tmp_path):
    """Of so few steps allocators make more of a slope than leaks do."""
    result = run_command(
        [sys.executable, TOOL, '--steps', 147, '--work-dir', tmp_path,
         '--checkpoint-interval', 40, '--val-interval', 3,
         '--sample-interval', 6, '--warm-up', 0.5, '--limit', 100],
    )  # fmt: skip
    assert result.returncode == 0, result.stdout[-500:] + result.stderr
    record = json.loads((tmp_path / 'soak.json').read_text())
    assert record['faults'] == [] and record['steps'] == 147
    # Two loader workers of the training, and two of the validation.
    assert {s['processes'] for s in record['samples'][11:]} == {4}
    assert all(s['workers'] > 0 < s['files'] for s in record['samples'])
    checkpoints = sorted(p.name for p in (tmp_path / 'run').glob('iter_*'))
    assert checkpoints == ['iter_120.pth', 'iter_147.pth']
