import importlib.util
import json
import sys

import numpy as np
import pytest
from conftest import REPO
from mmengine.config import Config
from mmengine.registry import init_default_scope

from mmcmcd.apis import array_statistics as module
from mmcmcd.apis import run_tool
from mmcmcd.apis.array_statistics import array_statistics
from mmcmcd.datasets import PairedModalityDataset
from mmcmcd.errors import ConfigError, DatasetError, UnreadableFileError

TOOL = REPO / 'tools/misc/array_statistics.py'
CONFIG = """
default_scope = 'mmpretrain'
_normalize = dict(type='mmcmcd.NormalizeArray',
                  statistics='{root}/statistics.json')
_dataset = dict(
    type='mmcmcd.PairedModalityDataset',
    data_root='{root}',
    sides=dict(source=dict(folder='radar.npz', suffix=''),
               target=dict(folder='imu.npz', suffix='')),
    pipeline=[
        dict(type='mmcmcd.OnSide', sides='source',
             transforms=[dict(type='mmcmcd.LoadArray', axes='THW')]),
        dict(type='mmcmcd.OnSide', sides='target',
             transforms=[dict(type='mmcmcd.LoadArray', rate=50.),
                         dict(type='mmcmcd.RandomJitter', std=99.)]),
        dict(type='mmcmcd.SharedTemporalCrop', fraction=(0.2, 0.5)),
        dict(type='mmcmcd.OnSide', sides='source',
             transforms=[
                 dict(type='mmcmcd.ClampArray', low=0., high=9., scale=0.1),
                 dict(_normalize, side='radar')]),
        dict(type='mmcmcd.OnSide', sides='target',
             transforms=[dict(type='RandomApply', prob=0.5, transforms=[
                             dict(type='mmcmcd.RandomTimeCrop')]),
                         dict(_normalize, side='imu'),
                         dict(type='mmcmcd.ResampleArray', length=16)]),
        dict(type='mmcmcd.PackPairedInputs')])
train_dataloader = dict(
    batch_size=4, num_workers=0, dataset=_dataset,
    sampler=dict(type='DefaultSampler', shuffle=True))
"""


def write(root, number=7, seed=0):
    """Arrays of different lengths; return the two lists."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(5, 30, number)
    radar = [rng.normal(20, 5, (t, 3, 4)) for t in lengths]
    imu = [rng.normal((1, 1e3, 0.1), (1, 1e-2, 0), (t, 3)) for t in lengths]
    for name, arrays in (('radar', radar), ('imu', imu)):
        arrays = {f'k{i}': array for i, array in enumerate(arrays)}
        np.savez(root / f'{name}.npz', **arrays)
    return radar, imu


@pytest.fixture
def config(tmp_path):
    write(tmp_path)
    path = tmp_path / 'config.py'
    path.write_text(CONFIG.replace('{root}', str(tmp_path)))
    return path


def run(monkeypatch, *args):
    spec = importlib.util.spec_from_file_location('statistics_tool', TOOL)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    monkeypatch.setattr(sys, 'argv', [str(TOOL), *map(str, args)])
    with pytest.raises(SystemExit) as end:
        run_tool(tool.main)
    return end.value.code or 0


def read(root):
    return json.loads((root / 'statistics.json').read_text())


def compute(config, **kwargs):
    return array_statistics(Config.fromfile(config), **kwargs)


def test_equals_numpy(config, tmp_path):
    radar, imu = write(tmp_path)
    results = compute(config)
    assert [(r.side, r.computed) for r in results] == [
        ('radar', True),
        ('imu', True),
    ]
    entries = read(tmp_path)
    values = np.concatenate([(a / 10).ravel() for a in radar]).clip(0, 9)
    assert entries['radar']['mean'] == pytest.approx([values.mean()])
    assert entries['radar']['std'] == pytest.approx([values.std()])
    assert entries['radar']['values'] == len(values)
    rows = np.concatenate(imu).astype(np.float32).astype(float)
    assert entries['imu']['mean'] == pytest.approx(rows.mean(axis=0))
    assert entries['imu']['std'][:2] == pytest.approx(rows.std(axis=0)[:2])
    assert entries['imu']['std'][2] == 0  # constant, though not in binary
    assert entries['imu']['items'] == 7 and entries['imu']['skipped'] == 0
    # What is random, and what concerns the pair, is left out.
    types = [cfg['type'] for cfg in entries['imu']['transforms']]
    assert types == ['mmcmcd.LoadArray']


def test_normalising_with_it_gives_zero_and_one(config, tmp_path):
    compute(config)
    cfg = Config.fromfile(config)
    init_default_scope('mmpretrain')
    normalize = dict(
        type='mmcmcd.NormalizeArray',
        statistics=str(tmp_path / 'statistics.json'),
        side='imu',
    )
    load = dict(type='mmcmcd.LoadArray')
    dataset = PairedModalityDataset(
        str(tmp_path),
        cfg.train_dataloader.dataset.sides,
        pipeline=[
            dict(
                type='mmcmcd.OnSide',
                sides='target',
                transforms=[load, normalize],
            )
        ],
    )
    rows = np.concatenate([d['target']['img'].numpy() for d in dataset], 1)
    np.testing.assert_allclose(rows.mean(axis=1), 0, atol=1e-2)
    np.testing.assert_allclose(rows.std(axis=1), [1, 1, 0], atol=1e-2)


def test_tool(config, tmp_path, monkeypatch, capsys):
    assert run(monkeypatch, config) == 0
    text = capsys.readouterr()
    assert 'ETA' in text.err
    assert 'after: mmcmcd.LoadArray mmcmcd.ClampArray\n' in text.out
    assert 'radar: written, 7 arrays' in text.out and 'mean: ' in text.out
    before = (tmp_path / 'statistics.json').read_bytes()

    def refuse(*args):
        raise AssertionError('computed again')

    with monkeypatch.context() as patch:
        patch.setattr(module, '_compute', refuse)
        assert run(patch, config) == 0
    text = capsys.readouterr().out
    assert text.count('up to date') == 2
    assert run(monkeypatch, config, '--force', '--num-workers', 2) == 0
    assert capsys.readouterr().out.count('written') == 2
    assert (tmp_path / 'statistics.json').read_bytes() == before


def test_other_data_need_force(config, tmp_path, monkeypatch, capsys):
    compute(config)
    before = read(tmp_path)
    write(tmp_path, number=9)
    assert run(monkeypatch, config) == 2
    assert 'from other data' in capsys.readouterr().err
    assert read(tmp_path) == before
    assert run(monkeypatch, config, '--force') == 0
    assert read(tmp_path)['imu']['items'] == 9


def test_other_content_needs_force(config, tmp_path):
    """The same names and sizes, other numbers."""
    compute(config)
    size = (tmp_path / 'imu.npz').stat().st_size
    spoil(tmp_path, 7.0)
    assert (tmp_path / 'imu.npz').stat().st_size == size
    with pytest.raises(ConfigError, match="side 'imu'.*written anew"):
        compute(config)
    results = compute(config, force=True)
    assert results[1].entry['mean'] == read(tmp_path)['imu']['mean']


def test_a_loader_is_needed_before(config):
    text = config.read_text()
    config.write_text(
        text.replace("dict(type='mmcmcd.LoadArray', rate=50.),", '')
    )
    with pytest.raises(ConfigError, match='Put it behind a loader'):
        compute(config)


def test_other_transforms_need_force(config, tmp_path, monkeypatch, capsys):
    compute(config)
    text = config.read_text()
    config.write_text(text.replace('scale=0.1', 'scale=0.2'))
    assert run(monkeypatch, config) == 2
    assert "side 'radar' from other data" in capsys.readouterr().err
    # What is left out of the statistics does not matter, nor where data are.
    text = text.replace('std=99.', 'std=1.').replace('(0.2, 0.5)', '0.9')
    config.write_text(text)
    assert not any(result.computed for result in compute(config))


def test_one_side_alone_has_the_same_entry(config, tmp_path):
    """Pre-training of one side may use, and keeps, what distillation has."""
    compute(config)
    before = read(tmp_path)
    text = config.read_text()
    start = text.index('    pipeline=[')
    stop = text.index('train_dataloader')
    views = """    pipeline=[
        dict(type='mmcmcd.SelectSide', side='target'),
        dict(type='mmcmcd.LoadArray', rate=50.),
        dict(type='MultiView', num_views=2, transforms=[[
            dict(type='mmcmcd.RandomTimeCrop'),
            dict(_normalize, side='imu')]]),
        dict(type='PackInputs')])
"""
    config.write_text(text[:start] + views + text[stop:])
    results = compute(config)
    assert [(r.side, r.computed) for r in results] == [('imu', False)]
    (tmp_path / 'statistics.json').unlink()
    compute(config)
    assert read(tmp_path) == {'imu': before['imu']}


def test_the_other_entries_of_a_file_are_kept(config, tmp_path):
    entry = dict(mean=[0], std=[1])
    (tmp_path / 'statistics.json').write_text(json.dumps(dict(other=entry)))
    compute(config)
    assert list(read(tmp_path)) == ['other', 'radar', 'imu']
    assert read(tmp_path)['other'] == entry


def spoil(root, value=np.nan):
    with np.load(root / 'imu.npz') as archive:
        arrays = dict(archive)
    arrays['k3'][2, 1] = value
    np.savez(root / 'imu.npz', **arrays)


def test_unreadable_pairs(config, tmp_path):
    spoil(tmp_path)
    with pytest.raises(UnreadableFileError, match=r'imu.npz/k3 has 1 NaN'):
        compute(config)
    assert 'imu' not in read(tmp_path)
    cfg = Config.fromfile(config)
    cfg.train_dataloader.dataset.on_unreadable = 'skip'
    array_statistics(cfg)
    assert read(tmp_path)['imu']['items'] == 6
    assert read(tmp_path)['imu']['skipped'] == 1


def test_channels_must_agree(config, tmp_path):
    with np.load(tmp_path / 'imu.npz') as archive:
        arrays = dict(archive, k3=np.ones((9, 2)))
    np.savez(tmp_path / 'imu.npz', **arrays)
    with pytest.raises(DatasetError) as caught:
        compute(config)
    assert '3 in ' in str(caught.value) and '2 in ' in str(caught.value)
    assert 'imu.npz/k3' in str(caught.value)


@pytest.mark.parametrize(
    'old, new, words',
    [
        ('(_normalize, side=', '(type="RandomFlip", x=', 'names no file'),
        ('mmcmcd.ClampArray', 'mmcmcd.Clamp', "'mmcmcd.Clamp'"),
        ("sides='target'", "sides='goal'", "no side 'goal'"),
        ("side='imu'", 'mean=0.', 'statistics and side'),
        ('train_dataloader', 'my_dataloader', 'no train_dataloader'),
    ],
)
def test_wrong_configs(config, old, new, words):
    text = config.read_text().replace(old, new)
    config.write_text(text)
    with pytest.raises(ConfigError) as caught:
        compute(config)
    assert words in str(caught.value)


@pytest.mark.parametrize('content', ['{', '[1]', '{"imu": 1}'])
def test_a_file_of_another_kind_is_not_replaced(config, tmp_path, content):
    (tmp_path / 'statistics.json').write_text(content)
    with pytest.raises(ConfigError, match='holds no statistics'):
        compute(config, force=True)
    assert (tmp_path / 'statistics.json').read_text() == content
