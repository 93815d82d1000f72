"""Few labels: the draws of the comparison, and tables of its metrics."""

import importlib.util
import json

import pytest
from conftest import REPO
from mmengine.config import Config

from mmcmcd.errors import ConfigError


def load(name):
    """A tool as a module."""
    path = REPO / 'tools/benchmarks' / f'{name}.py'
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize('with_hook', [True, False])
def test_neighbours_only_where_the_config_has_them(
    tmp_path, monkeypatch, capsys, with_hook
):
    tool = load('few_label_classification')
    config = REPO / 'configs/downstream/sketch_sketchy_tiny_r18_le.py'
    cfg = Config.fromfile(config)
    if not with_hook:
        del cfg.default_hooks.knn
    cfg.dump(tmp_path / 'le.py')
    seen = {}

    def run(study):
        for draw in study.draws:
            run_cfg = study._run_config('scratch', draw)
            seen[draw.labels] = run_cfg
        return [
            dict(
                student='scratch',
                **draw._asdict(),
                **dict.fromkeys(study.metrics, 50.0),
                seconds_per_step=1.0,
            )
            for draw in study.draws
        ]

    monkeypatch.setattr(tool.FewLabelStudy, 'run', run)
    words = [str(tmp_path / 'le.py'), '--work-dir', str(tmp_path)]
    words += ['--labels-per-class', '2', 'all', '--seeds', '3']
    monkeypatch.setattr('sys.argv', ['tool', *words])
    tool.main()
    assert ('knn/top1' in capsys.readouterr().out) == with_hook
    for labels, count in (('2', 2), ('all', None)):
        data = seen[labels].train_dataloader.dataset
        assert (data.labels_per_class, data.draw) == (count, 3)
        assert ('knn' in seen[labels].default_hooks) == with_hook
        if with_hook:
            bank = seen[labels].default_hooks.knn.bank_dataloader.dataset
            assert (bank.labels_per_class, bank.draw) == (count, 3)


def test_mean_of_metrics(tmp_path, monkeypatch, capsys):
    tool = load('mean_metrics')
    paths = [tmp_path / f'{i}.json' for i in range(3)]
    for path, value in zip(paths, (8.0, 9.0, 13.0), strict=True):
        path.write_text(json.dumps({'knn/top1': value}))
    entry = 'cmcd=' + ','.join(map(str, paths))
    monkeypatch.setattr('sys.argv', ['x', entry, '--metrics', 'knn/top1'])
    tool.main()
    assert '| cmcd | 10.0 ± 6.6 | 3 |' in capsys.readouterr().out


@pytest.mark.parametrize(
    ('name', 'text'),
    [('broken.json', '{"knn/top1": '), ('none.json', None), ('a.txt', '{}')],
)
def test_a_file_without_metrics_is_refused(tmp_path, name, text):
    path = tmp_path / name
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError, match='expected NAME=FILE'):
        load('mean_metrics').read_runs(f'cmcd={path}')
