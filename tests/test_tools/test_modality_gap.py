import importlib.util
import json
import sys

import numpy as np
import pytest
from conftest import REPO
from utd_mhad_sample import write_sample

TOOL = REPO / 'tools/benchmarks/modality_gap.py'


@pytest.fixture
def tool():
    spec = importlib.util.spec_from_file_location('gap_tool', TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def clip(seed=0, length=40):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(length, 2)) * [1, 50] + 3).astype(np.float32)


def worse(tool, kind, level, series=None):
    series = clip() if series is None else series
    rng = np.random.default_rng(1)
    return tool.degrade(series, kind, level, rng, clip(2, 25))


def test_noise_is_in_units_of_each_channel(tool):
    series = clip(length=4000)
    added = worse(tool, 'noise', 0.5, series) - series
    np.testing.assert_allclose(
        added.std(axis=0), 0.5 * series.std(axis=0), rtol=0.05
    )


def test_coarse_values_are_steps_apart(tool):
    series = clip()
    steps = (worse(tool, 'quantise', 2.0) - series.mean(axis=0)) / (
        2 * series.std(axis=0)
    )
    np.testing.assert_allclose(steps, steps.round(), atol=1e-4)
    constant = np.ones((5, 2), np.float32)
    assert (worse(tool, 'quantise', 2.0, constant) == 1).all()


def test_a_share_of_the_time_is_hidden(tool):
    series = clip()
    changed = (worse(tool, 'occlude', 0.25) != series).all(axis=1)
    places = np.flatnonzero(changed)
    assert len(places) == 10
    assert np.ptp(places) == 9


def test_another_clip_is_mixed_in(tool):
    mixed = worse(tool, 'mix', 0.25)
    ends = 0.75 * clip()[[0, -1]] + 0.25 * clip(2, 25)[[0, -1]]
    np.testing.assert_allclose(mixed[[0, -1]], ends, rtol=1e-5)
    whole = worse(tool, 'mix', 1.0)
    np.testing.assert_allclose(whole[0], clip(2, 25)[0], rtol=1e-5)


def test_the_clean_one_is_the_same(tool):
    np.testing.assert_array_equal(worse(tool, 'clean', 0.0), clip())


def test_every_kind_gets_worse_by_level(tool):
    series = clip(length=400)
    for kind, levels in tool.LEVELS.items():
        moved = [np.abs(worse(tool, kind, x, series) - series) for x in levels]
        sums = [float((m / series.std(axis=0)).sum()) for m in moved]
        assert sums == sorted(sums) and sums[0] > 0


def test_a_copy_is_degraded_in_one_way_for_good(tool, tmp_path):
    source = tmp_path / 'clean'
    write_sample(source)
    for name in ('one', 'two'):
        tool.write_degraded(source, tmp_path / name, 'mix', 0.5)
    files = [np.load(tmp_path / n / 'inertial.npz') for n in ('one', 'two')]
    clean = np.load(source / 'inertial.npz')
    for key in clean.files:
        np.testing.assert_array_equal(files[0][key], files[1][key])
        assert files[0][key].shape == clean[key].shape
    key = clean.files[0]
    assert np.abs(files[0][key] - clean[key]).max() > 0.1
    assert (tmp_path / 'one/skeleton.npz').exists()


@pytest.mark.slow
def test_the_whole_study_on_a_stand_in(tool, monkeypatch, tmp_path, capsys):
    write_sample(tmp_path / 'clean')
    load = tool.GapStudy.load

    def load_short(self, *args):
        cfg = load(self, *args)
        cfg.train_cfg.update(
            {k: 1 for k in cfg.train_cfg if k in ('max_epochs', 'max_iters')}
        )
        cfg.default_hooks.checkpoint.interval = 1
        cfg.train_dataloader.batch_size = 16
        return cfg

    monkeypatch.setattr(tool.GapStudy, 'load', load_short)
    out = tmp_path / 'out'
    words = ['--data', tmp_path / 'clean', '--work-dir', out, '--seeds', 0]
    words += ['--labels-per-class', 1, '--kinds', 'noise']
    monkeypatch.setattr(sys, 'argv', ['modality_gap', *map(str, words)])
    tool.main()
    rows = json.loads((out / 'cells.json').read_text())
    assert [(r['kind'], r['level']) for r in rows] == [
        ('clean', 0.0),
        *(('noise', x) for x in tool.LEVELS['noise']),
    ]
    for row in rows:
        assert 0 <= row['error'] <= 100
        for gap in tool.GAPS:
            assert np.isfinite(
                [row[f'{s}.{gap}'] for s in ('before', 'after')]
            ).all()
    table = (out / 'table.md').read_text()
    assert '| noise 2 | 1 | 1 |' in table
    assert '| after.mmd | 1 |' in table
    assert (out / 'gap.png').stat().st_size > 1000
    capsys.readouterr()
    tool.main()
    assert capsys.readouterr().out.count('done before') == 5


def test_means_are_over_seeds_alone(tool):
    base = {'kind': 'mix', 'level': 0.5, 'labels': 2, 'after.mmd': 0.1}
    rows = [dict(base, error=e, gain=-e) for e in (10.0, 20.0)]
    rows.append(dict(base, labels=5, error=5.0, gain=1.0))
    cells = tool.mean_cells(rows)
    assert [(c['labels'], c['error'], c['seeds']) for c in cells] == [
        (2, 15.0, 2),
        (5, 5.0, 1),
    ]
