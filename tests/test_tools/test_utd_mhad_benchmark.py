import importlib.util
import json
import sys

import pytest
from conftest import REPO
from utd_mhad_sample import write_sample

from mmcmcd.errors import ConfigError

TOOL = REPO / 'tools' / 'benchmarks' / 'utd_mhad.py'


def read_tool():
    spec = importlib.util.spec_from_file_location('utd_mhad_tool', TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def tool(monkeypatch):
    module = read_tool()
    load = module.Comparison.load

    def load_short(self, name, seed=0):
        cfg = load(self, name, seed)
        if 'max_epochs' in cfg.train_cfg:
            cfg.train_cfg.max_epochs = 1
            cfg.default_hooks.checkpoint.interval = 1
        else:
            cfg.train_cfg.max_iters = 2
            cfg.default_hooks.checkpoint.interval = 2
        cfg.train_dataloader.batch_size = 16
        return cfg

    monkeypatch.setattr(module.Comparison, 'load', load_short)
    grid = {k: module.GRID[k][:2] for k in (module.CONTROL, 'CMC')}
    monkeypatch.setattr(module, 'GRID', grid)
    return module


def run(tool, monkeypatch, *words):
    monkeypatch.setattr(sys, 'argv', ['utd_mhad.py', *map(str, words)])
    tool.main()


def test_settings_are_tuned_and_used(tool, monkeypatch, tmp_path, capsys):
    write_sample(tmp_path / 'utd_mhad')
    monkeypatch.setenv('MMCMCD_REALDATA', str(tmp_path))
    common = ('--seeds', 0, '--labels-per-class', 1, '--teachers')
    tuned = ('--tune', '--work-dir', tmp_path / 'tune')
    run(tool, monkeypatch, *common, 'supervised', *tuned)
    chosen = tmp_path / 'tune/inertial/chosen.json'
    settings = json.loads(chosen.read_text())
    assert settings.keys() == {tool.CONTROL, 'CMC'}
    assert set(settings.values()) <= {0, 1}
    capsys.readouterr()

    run(
        tool, monkeypatch, *common, 'supervised', 'simclr',
        '--settings', chosen, '--work-dir', tmp_path / 'test',
    )  # fmt: skip
    table = (tmp_path / 'test/inertial/table.md').read_text()
    for name in ('scratch', tool.CONTROL, 'CMC (supervised)', 'CMC (simclr)'):
        assert f'| 1 | {name} |' in table
    assert 'done before' not in capsys.readouterr().out
    runs = json.loads(
        (tmp_path / 'test/inertial/distillation.json').read_text()
    )
    assert all(r['setting'] == settings[r['method']] for r in runs)
    assert all(r['seconds'] > 0 for r in runs)

    chosen.write_text(json.dumps({'CMC': 0}))
    with pytest.raises(ConfigError, match=r"none of \['target-only SSL'\]"):
        run(
            tool, monkeypatch, *common, 'supervised',
            '--settings', chosen, '--work-dir', tmp_path / 'test',
        )  # fmt: skip
    run(tool, monkeypatch, *common, 'supervised', *tuned)
    assert capsys.readouterr().out.count('done before') >= 4


def test_the_best_setting_is_over_all_teachers(tool):
    arms = tool.all_arms(['simclr', 'supervised'])
    scores = {0: (10, 90), 1: (40, 45)}
    results = [
        {
            'student': tool.Comparison.row(arm, arms),
            tool.METRIC: scores[arm.setting][arm.teacher == 'supervised'],
        }
        for arm in arms
    ]
    assert tool.best_settings(arms, results)['CMC'] == 0


def test_every_method_has_as_many_settings():
    assert {len(grid) for grid in read_tool().GRID.values()} == {4}


def test_the_judges_are_not_among_the_learners(tool):
    for learners, judges in tool.SPLITS.values():
        assert not set(learners) & set(judges)
    assert 7 not in {s for part in tool.SPLITS['tune'] for s in part}
