import importlib.util
import json
import re
import sys

import cv2
import numpy as np
import pytest
import torch
from conftest import REPO, TinyRun
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from mmcmcd.analysis import MEASURES
from mmcmcd.apis import run_tool
from mmcmcd.apis.modality_distance import embed_stages

TOOL = REPO / 'tools/analysis_tools/modality_distance.py'
NORM = """
_base_ = './tiny.py'
model = dict(source_norm=dict(type='BN1d', num_features=64, affine=False))
"""


def measure(monkeypatch, out, *args):
    """Exit status of the tool, run in this process."""
    spec = importlib.util.spec_from_file_location('modality_distance', TOOL)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    words = [*args, '--out-dir', out, '--permutations', 19]
    monkeypatch.setattr(sys, 'argv', ['modality_distance', *map(str, words)])
    with pytest.raises(SystemExit) as end:
        run_tool(tool.main)
    return end.value.code or 0


def report(out):
    text = (out / 'modality_distance.json').read_text()
    picture = cv2.imread(str(out / 'modality_distance.png'))
    assert picture.std() > 5
    return json.loads(text)


@pytest.fixture
def run(tmp_path):
    return TinyRun(tmp_path, num_pairs=16)


@pytest.fixture
def trained(run):
    """A config with a source_norm, and a checkpoint with its statistics."""
    config = run.root / 'norm.py'
    config.write_text(NORM)
    torch.manual_seed(5)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(Config.fromfile(config).model)
    model.source_norm.running_mean.fill_(0.2)
    path = run.root / 'epoch_1.pth'
    torch.save(dict(state_dict=model.state_dict()), path)
    return config, path


@pytest.fixture
def features(tmp_path):
    rng = np.random.default_rng(0)
    source = rng.normal(size=(60, 8)).astype(np.float32)
    path = tmp_path / 'features.npz'
    np.savez(path, source=source, target=source + 1, groups=np.arange(60) // 2)
    return path


def test_before_and_after_training(run, trained, monkeypatch, capsys):
    out = run.root / 'out'
    assert not measure(monkeypatch, out, *trained, '--max-pairs', 12)
    found = report(out)
    assert (found['pairs'], found['pairs_available']) == (12, 16)
    assert found['stages'].keys() == {'before', 'after'}
    before, after = found['stages'].values()
    assert before.keys() == after.keys() == MEASURES.keys()
    # The teacher is the same, the student another.
    assert before['uniformity_source'] == after['uniformity_source']
    assert before['alignment']['value'] != after['alignment']['value']
    assert 'source_norm' in found['space']
    assert found['temperatures_from_config']
    printed = capsys.readouterr().out
    for title, _, _ in MEASURES.values():
        (line,) = (
            x for x in printed.splitlines() if x.startswith(f'{title} ')
        )
        assert line.count('[') == 2 or 'none' in line
    assert str(out / 'modality_distance.json') in printed


def test_rows_are_those_that_the_losses_compare(trained):
    config, checkpoint = trained
    found = embed_stages(str(config), str(checkpoint))
    cfg = Config.fromfile(config)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(cfg.model)
    model.teacher.load()
    model.load_state_dict(torch.load(checkpoint)['state_dict'])
    model.eval()
    seen = []
    for number in range(16):
        image = cv2.imread(str(config.parent / f'data/rgb/{number}.png'))
        image = (torch.from_numpy(image).permute(2, 0, 1)[None] - 127.0) / 64
        with torch.no_grad():
            seen.append(model.embed_source(image)[0])
    # In the order of the files' names.
    order = np.argsort([str(number) for number in range(16)])
    expected = torch.stack([seen[i] for i in order])
    source, _ = found.stages['after']
    assert torch.allclose(source, expected, atol=1e-4)
    assert torch.equal(source, found.stages['before'][0])


def test_without_a_checkpoint_the_pairs_normalise(trained, monkeypatch):
    config, _ = trained
    found = embed_stages(str(config))
    assert found.stages.keys() == {'before'}
    source, _ = found.stages['before']
    assert float(source.mean(dim=0).abs().max()) < 1e-4
    again = embed_stages(str(config))
    other = embed_stages(str(config), seed=1)
    target = found.stages['before'][1]
    assert torch.equal(target, again.stages['before'][1])
    assert not torch.equal(target, other.stages['before'][1])
    assert torch.equal(source, other.stages['before'][0])


def test_features_from_anywhere(features, tmp_path, monkeypatch, capsys):
    out = tmp_path / 'out'
    assert not measure(monkeypatch, out, '--features', features)
    found = report(out)
    assert found['groups'] == 30
    measured = found['stages']['features']
    assert measured['cka']['value'] > 0.5
    assert measured['tv_lower']['p_value'] == 0.05
    assert not found['temperatures_from_config']
    assert 'our defaults' in capsys.readouterr().out


def test_features_of_other_widths(tmp_path, monkeypatch, capsys):
    path, out = tmp_path / 'features.npz', tmp_path / 'out'
    rng = np.random.default_rng(0)
    np.savez(
        path, source=rng.normal(size=(40, 8)), target=rng.normal(size=(40, 5))
    )
    assert not measure(monkeypatch, out, '--features', path)
    measured = report(out)['stages']['features']
    assert measured['tv_lower']['value'] is None
    assert measured['tv_similarity_within']['value'] > 0
    assert 'needs one space' in capsys.readouterr().out


def test_a_loss_that_leaves_the_space_open_is_noted(run, monkeypatch, capsys):
    out = run.root / 'out'
    options = ['--cfg-options', 'model.losses.cmcd.cmc=None']
    assert not measure(monkeypatch, out, run.config, *options)
    assert report(out)['places_student'] is False
    assert 'tell of chance' in capsys.readouterr().out


@pytest.mark.parametrize(
    'fault', ['neither', 'both', 'model', 'weights', 'array', 'file', 'rows']
)
def test_a_fault_is_one_line(
    run, trained, features, monkeypatch, capsys, fault
):
    args = dict(
        neither=[],
        both=[run.config, '--features', features],
        model=[run.seg_config],
        weights=[trained[0], run.teacher],
        array=['--features', run.root / 'none.npz'],
        file=['--features', run.root / 'missing.npz'],
        rows=['--features', run.root / 'rows.npz'],
    )[fault]
    message = dict(
        neither='Give either a config',
        both='Give either a config',
        model='builds a EncoderDecoder',
        weights="does not fit the config's",
        array=r"expected an array 'target' \(N, D\)",
        file='cannot be read',
        rows='source has 4 rows, target 3',
    )[fault]
    rows = np.ones((4, 2))
    np.savez(run.root / 'none.npz', source=rows)
    np.savez(run.root / 'rows.npz', source=rows, target=rows[:3])
    assert measure(monkeypatch, run.root / 'out', *args) == 2
    error = capsys.readouterr().err
    (line,) = (x for x in error.splitlines() if x.startswith('error: '))
    assert re.search(message, line), line
