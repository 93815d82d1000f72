"""The benchmark of dense comparisons, on sizes of no interest."""

import runpy
import sys

import pytest
import torch
from conftest import REPO

TOOL = REPO / 'tools' / 'benchmarks' / 'dense.py'
TINY = ('--shrink', 32, '--repeats', 1, '--threads', 1)


@pytest.fixture(scope='module')
def tool():
    return runpy.run_path(str(TOOL))


def table_rows(text, columns):
    rows = [
        [cell.strip() for cell in line.strip('|').split('|')]
        for line in text.splitlines()
        if line.startswith('| ') and not line.startswith('| ---')
    ]
    return [row for row in rows if len(row) == columns][1:]


def test_page(tool, tmp_path, monkeypatch, capsys):
    path = tmp_path / 'page.md'
    pattern = '^step: CMC$|locations: (CMC|prototypes), D=512'
    words = [TOOL, *TINY, '--only', pattern, '--out', path]
    monkeypatch.setattr(sys, 'argv', [str(word) for word in words])
    # A process of its own would import everything again.
    monkeypatch.setitem(
        tool['main'].__globals__,
        'in_new_process',
        lambda function, *arguments: function(*arguments),
    )
    threads = torch.get_num_threads()
    tool['main']()
    torch.set_num_threads(threads)
    text, printed = path.read_text(), capsys.readouterr().out
    assert text.count('\n| ') == f'\n{printed}'.count('\n| ') > 5
    assert 'python tools/benchmarks/dense.py --shrink 32' in text
    assert f'torch {torch.__version__}' in ' '.join(text.split())
    assert '{' not in text and '≤' not in text
    ((title, mine, without, ratio, interval),) = table_rows(text, 5)
    assert title == 'CMC, B=4'
    assert float(mine) > 0 and float(without) > 0
    low, high = map(float, interval.split(' to '))
    assert low == high == pytest.approx(float(ratio), rel=0.01)
    cmc, prototypes = table_rows(text, 6)
    assert cmc[0] == 'CMC, D=512, 2 x 15 x 20'
    assert all(float(cell) > 0 for cell in cmc[1:])
    assert float(cmc[5]) < 1e-5
    assert prototypes[3:] == ['', '', '']


@pytest.mark.parametrize(
    ('name', 'logged'),
    [
        ('depth_nyu_dense_tiny.py', {'loss_dense_32', 'loss_dense_16'}),
        ('CMC', {'loss_x', 'loss_cmc', 'loss_cmd'}),
        ('CMC, same image', {'loss_x', 'loss_cmc', 'loss_cmd'}),
        ('prototypes', {'loss_x', 'loss_cmc', 'loss_cmd'}),
        ('CMC, whitened', {'loss_x', 'loss_cmc', 'loss_cmd'}),
    ],
)
def test_variants_take_a_step(tool, name, logged):
    losses = tool['make_step'](name, 2)()
    assert logged == {key for key in losses if key.startswith('loss_')}
    assert all(losses[key].isfinite() for key in logged)


def test_every_variant_compares_locations(tool):
    for row in tool['all_rows']():
        if isinstance(row, tool['Locations']) and row.dim == 512:
            small = row._replace(dim=8, images=2)
            comparison = tool['make_comparison'](small)
            loss = tool['run']('ours', comparison, tool['make_maps'](small))
            assert loss.isfinite() and loss > 0


def test_another_result_stops_it(tool, monkeypatch):
    row = tool['Locations']('CMC', dim=8, images=2)
    assert 0 <= tool['difference'](row, 1) < 1e-5
    ways = dict(tool['WAYS'], naive=lambda _, maps: maps.student.sum())
    monkeypatch.setitem(tool['difference'].__globals__, 'WAYS', ways)
    with pytest.raises(tool['ConfigError'], match='locations: CMC, D=8'):
        tool['difference'](row, 1)


def test_median_and_its_interval(tool):
    interval = tool['median_interval']
    assert interval([1.2, 1.1, 1.3]) == (1.2, 1.1, 1.3)
    # Ranks 4 and 12 of 15: binom(15, 1/2) is below 4 in 1.8 % of cases.
    assert interval([*range(15, 0, -1)]) == (8, 4, 12)


def test_both_steps_take_turns(tool, monkeypatch):
    calls = []

    def make_step(variant, batch):
        return lambda: calls.append('without' if variant is None else 'dense')

    measure = tool['measure_step']
    monkeypatch.setitem(measure.__globals__, 'make_step', make_step)
    threads = torch.get_num_threads()
    turns = measure(tool['Step']('CMC'), 3, threads)
    assert len(turns) == 3 and all(min(turn) > 0 for turn in turns)
    assert calls == ['dense', 'without', 'without', 'dense'] * 2


@pytest.mark.parametrize(
    ('args', 'message'),
    [
        (('--only', '('), 'no regular expression'),
        (('--only', 'nothing of it'), 'step: CMC, same image'),
        (('--repeats', 0), '--repeats must be positive'),
        (('--out', 'page.txt'), 'NAME.md'),
    ],
)
def test_wrong_options(tool, monkeypatch, args, message):
    words = [str(word) for word in (TOOL, *TINY, *args)]
    monkeypatch.setattr(sys, 'argv', words)
    with pytest.raises(tool['ConfigError'], match=message):
        tool['main']()
