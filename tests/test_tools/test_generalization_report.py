import importlib.util
import json
import re
import sys
import uuid

import numpy as np
import pytest
import torch
from conftest import REPO
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from mmcmcd.analysis.transfer_advice import Gain, TransferFeatures
from mmcmcd.apis import run_tool
from mmcmcd.apis.generalization import is_clear, template_terms

TOOL = REPO / 'tools/analysis_tools/generalization_report.py'


def features(path, seed=0, noise=1.0, **extra):
    """Write three classes of 60 samples, their sources, and pairs."""
    rng = np.random.default_rng(seed)
    labels = np.arange(60) % 3
    teacher = 2 * np.eye(3, 8)[labels] + rng.normal(size=(60, 8))
    student = teacher + noise * rng.normal(size=(60, 8))
    arrays = dict(
        labels=labels,
        labelled=student,
        labelled_source=teacher,
        seen_source=teacher[:30],
        seen_target=student[:30],
        source=teacher[30:],
        target=student[30:],
    )
    np.savez(path, **{**arrays, **extra})
    return path


def report(monkeypatch, *words):
    """Exit status of the tool, run in this process."""
    spec = importlib.util.spec_from_file_location('report_tool', TOOL)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    monkeypatch.setattr(sys, 'argv', ['report', *map(str, words)])
    with pytest.raises(SystemExit) as end:
        run_tool(tool.main)
    return end.value.code or 0


def test_report_of_features(monkeypatch, tmp_path, capsys):
    words = ('--features', features(tmp_path / 'a.npz'), '--num-pairs', 400)
    words += ('--num-source', 10000, '--splits', 4)
    assert not report(monkeypatch, *words, '--out-dir', tmp_path / 'out')
    printed = capsys.readouterr().out
    assert (tmp_path / 'out/generalization.md').read_text() in printed
    assert 'A template, not the theorem of the paper' in printed
    assert 'times 0.01, M = 10000' in printed
    assert 'times 0.05, m = 400' in printed
    found = json.loads((tmp_path / 'out/generalization.json').read_text())
    gains = found['gains']
    assert set(gains) == {'pairs', 'labels', 'source'}
    assert found['advice'] == max(gains, key=lambda a: gains[a]['mean'])
    assert gains['pairs']['basis'].startswith('the distillation on seen')
    errors = {(e['pairs'], e['labels']): e['error'] for e in found['errors']}
    assert {m for m, _ in errors} == {0, 400}
    assert all(0 <= error <= 1 for error in errors.values())
    by_name = {term['name']: term['value'] for term in found['terms']}
    assert by_name['confidence'] == pytest.approx(
        3 * np.sqrt(np.log(40) / 120)
    )


def test_students_of_fewer_pairs_are_the_evidence(monkeypatch, tmp_path):
    main = features(tmp_path / 'a.npz', noise=0.5)
    fewer = features(tmp_path / 'b.npz', noise=6.0)
    words = ('--features', main, '--num-pairs', 400, '--fewer-pairs')
    words += (f'100={fewer}', '--splits', 4, '--out-dir', tmp_path / 'out')
    assert not report(monkeypatch, *words)
    found = json.loads((tmp_path / 'out/generalization.json').read_text())
    assert found['gains']['pairs']['basis'] == 'students of fewer pairs'
    assert found['advice'] == 'pairs'
    # Students of few pairs do not hide what labels are worth to this one.
    assert found['gains']['labels']['mean'] > 0.01
    assert {e['pairs'] for e in found['errors']} == {0, 100, 400}


def test_what_is_missing_is_said(monkeypatch, tmp_path, capsys):
    path = tmp_path / 'a.npz'
    whole = np.load(features(path))
    np.savez(path, labels=whole['labels'], labelled=whole['labelled'])
    words = ('--features', path, '--num-pairs', 9, '--splits', 3)
    assert not report(monkeypatch, *words, '--out-dir', tmp_path, '--tv', 0.5)
    printed = capsys.readouterr().out
    assert printed.count('not judged: needs') == 2
    assert 'Only the actions with a figure were compared.' in printed
    assert 'TV >= 0.5 as given' in printed
    json.loads((tmp_path / 'generalization.json').read_text())


def test_test_samples_of_a_file(monkeypatch, tmp_path):
    extra = np.load(features(tmp_path / 'b.npz', seed=5))
    path = features(
        tmp_path / 'a.npz',
        test_labels=extra['labels'],
        test=extra['labelled'],
        test_source=extra['labelled_source'],
    )
    words = ('--features', path, '--num-pairs', 9, '--splits', 3)
    assert not report(monkeypatch, *words, '--out-dir', tmp_path)
    found = json.loads((tmp_path / 'generalization.json').read_text())
    assert {e['labels'] for e in found['errors']} == {15, 30, 60}


@pytest.mark.parametrize('classes', [2, 3])
def test_the_terms_bound_the_error_of_the_head(classes):
    rng = np.random.default_rng(0)
    labels = np.arange(60) % classes
    rows = 4 * np.eye(3, 5)[labels] + rng.normal(size=(60, 5))
    terms = template_terms(TransferFeatures(labels, {9: rows}), draws=500)
    margin, head, confidence = (term.value for term in terms[:3])
    assert 0 <= margin < 0.5
    assert head > 0 and confidence > 0
    numbers = re.findall(r'R_n <= ([\d.]+) .* and ([\d.]+) ±', terms[1].text)
    closed, sampled = map(float, numbers[0])
    assert closed / 2**0.5 < sampled < 1.01 * closed
    assert head == pytest.approx(4 * closed, rel=0.01)
    assert [t.value for t in terms[3:]] == [None] * 3


def test_an_advice_within_the_intervals_is_not_clear():
    first, second = Gain(0.3, 0.05, ''), Gain(0.1, 0.05, '')
    unknown = Gain(None, float('nan'), '')
    assert is_clear(dict(a=first, b=second, c=unknown))
    assert not is_clear(dict(a=first, b=second._replace(half=0.3)))
    assert not is_clear(dict(a=first, c=unknown))


def distorted(name, change):
    def write(path):
        arrays = dict(np.load(features(path)))
        arrays[name] = change(arrays[name])
        np.savez(path, **arrays)

    return write


@pytest.mark.parametrize(
    ('write', 'words', 'message'),
    [
        (lambda p: None, (), 'cannot be read as .npz'),
        (
            lambda p: np.savez(p, labels=[0, 1]),
            (),
            "have no array 'labelled', only",
        ),
        (distorted('labelled', lambda x: x[:-1]), (), r'expected .*\(60, D\)'),
        (distorted('target', lambda x: x * np.nan), (), 'unseen pairs'),
        (
            distorted('labels', lambda x: 0 * x),
            (),
            '8 labelled samples or more',
        ),
        (features, ('--fewer-pairs', 'half.npz'), 'expected COUNT=FILE'),
        (features, ('--fewer-pairs', '9=half.npz'), 'not fewer than the 9'),
        (features, ('a.py', 'b.pth'), 'Give either a config'),
    ],
    ids=[
        'missing', 'array', 'rows', 'nan', 'class', 'word', 'count', 'both',
    ],
)  # fmt: skip
def test_a_fault_is_one_line(
    monkeypatch, tmp_path, capsys, write, words, message
):
    path = tmp_path / 'a.npz'
    write(path)
    words = ['--features', path, '--num-pairs', 9, *words]
    words += [] if '--fewer-pairs' in words else ['--splits', 2]
    if 'a.py' in words:
        words = ['a.py', 'b.pth', '--features', path, '--num-pairs', 9]
    words += ['--out-dir', tmp_path]
    assert report(monkeypatch, *words) == 2
    (line,) = (
        x
        for x in capsys.readouterr().err.splitlines()
        if x.startswith('error: ')
    )
    assert re.search(message, line), line


LABELLED = """
_base_ = './tiny.py'
_sides = dict(source=dict(folder=''), target=dict(folder=''))
_labels = dict(
    ann_file='pairs.csv', metainfo=dict(classes=('even', 'odd')), sides=_sides)
train_dataloader = dict(dataset=_labels)
val_dataloader = dict(dataset=_labels)
test_dataloader = dict(dataset=_labels)
"""


def test_report_of_a_config(tiny_run, monkeypatch, capsys):
    rows = [
        f'{i},rgb/{i}.png,depth/{i}.png,{("even", "odd")[i % 2]}'
        for i in range(8)
    ]
    text = '\n'.join(['pair_id,source,target,label', *rows])
    (tiny_run.root / 'data/pairs.csv').write_text(text + '\n')
    config = tiny_run.root / 'labelled.py'
    config.write_text(LABELLED)
    cfg = Config.fromfile(tiny_run.config)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(cfg.model)
    paths = [tiny_run.root / f'{name}.pth' for name in ('whole', 'half')]
    for path in paths:
        torch.save(dict(state_dict=model.state_dict()), path)
    out = tiny_run.root / 'out'
    words = (config, paths[0], '--splits', 2, '--out-dir', out)
    words += ('--fewer-pairs', f'4={paths[1]}', '--cfg-options')
    words += (f'experiment_name={uuid.uuid4().hex}',)
    assert not report(monkeypatch, *words)
    found = json.loads((out / 'generalization.json').read_text())
    assert {e['pairs'] for e in found['errors']} == {0, 4, 8}
    # The same weights are as good with either number of pairs.
    errors = {(e['pairs'], e['labels']): e['error'] for e in found['errors']}
    assert errors[4, 8] == errors[8, 8]
    assert report(monkeypatch, tiny_run.config, *words[1:]) == 2
    assert 'its pairs have no classes' in capsys.readouterr().err
