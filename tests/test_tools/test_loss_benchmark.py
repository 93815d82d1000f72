"""The benchmark of the losses, on sizes of no interest."""

import importlib.util
import runpy
import sys

import pytest
import torch
from conftest import REPO, run_command

from mmcmcd.apis import measuring

TOOL = REPO / 'tools' / 'benchmarks' / 'losses.py'
TINY = ('--shrink', 64, '--repeats', 1, '--threads', 1)


def table_rows(text):
    return [
        [cell.strip() for cell in line.strip('|').split('|')]
        for line in text.splitlines()
        if line.startswith('| ') and not line.startswith('| ---')
    ]


@pytest.fixture(scope='module')
def tool():
    return runpy.run_path(str(TOOL))


@pytest.fixture(scope='module')
def page(tmp_path_factory):
    path = tmp_path_factory.mktemp('bench') / 'page.md'
    pattern = (
        r'^CMC, B=\d+ against (open|plain)|CMD within, B=[12]\d+ .*naive t|'
        r'CRD|memory of CMC, B|step'
    )
    # Processes started by a tool that is run this way do not know its classes.
    command = [sys.executable, '-m', 'mmcmcd', 'losses', *TINY]
    result = run_command([*command, '--only', pattern, '--out', path])
    assert result.returncode == 0, result.stderr
    assert path.read_text().count('\n| ') == result.stdout.count('\n| ')
    return path


def test_every_row_is_measured_or_says_why_not(page):
    rows = table_rows(page.read_text())
    cases = [row for row in rows if len(row) == 9][1:]
    assert len(cases) > 10
    installed = importlib.util.find_spec('open_clip') is not None
    for title, against, *cells in cases:
        if 'D=256' in title and not torch.cuda.is_available():
            assert cells[0] == 'needs a GPU' and not any(cells[1:])
        elif 'open_clip' in against and not installed:
            assert cells[0] == 'not installed' and not any(cells[1:])
        else:
            assert float(cells[3]) > 0 and float(cells[4]) > 0
            assert cells[1] == '' or float(cells[1]) > 0
            seconds = float(cells[3]) / float(cells[4])
            assert float(cells[5]) == pytest.approx(seconds, rel=0.02)
    (share,) = (row for row in rows if row[0].startswith('ResNet-18'))
    assert 0 < float(share[1]) < float(share[2])


def test_page_has_its_command_plot_and_machine(page):
    text = page.read_text()
    assert 'python tools/benchmarks/losses.py --shrink 64' in text
    assert '(page.png)' in text
    assert page.with_suffix('.png').read_bytes()[1:4] == b'PNG'
    assert f'torch {torch.__version__}' in ' '.join(text.split())
    assert 'No limits are judged.' in text  # in sizes of no interest
    assert '{' not in text


def measure(tool, case):
    threads = torch.get_num_threads()
    try:
        return tool['measure_time'](case, repeats=1, threads=1)
    finally:
        torch.set_num_threads(threads)


def test_all_ways_with_our_formula_agree(tool):
    """Those at hand: a difference would stop the tool."""
    compared = 0
    for case in tool['cpu_cases']():
        if case.way.compare and not case.obstacle:
            turn, differ = measure(tool, case.shrunk(256))
            assert 0 <= differ < 1e-5 and min(turn) > 0
            compared += 1
    assert compared > 15


def test_another_result_stops_it(tool):
    wrong = tool['Way'](lambda rows: lambda: rows.student.sum())
    tool['WAYS']['CMC', 'wrong'] = wrong
    with pytest.raises(tool['ConfigError'], match='CMC, B=8: .* wrong'):
        measure(tool, tool['Case']('CMC', 'wrong', 8))


def test_ours_comes_first_every_other_turn(tool, monkeypatch):
    calls = []

    def spy(name):
        def prepare(rows):
            def step():
                calls.append(name)
                return rows.student.sum()

            return step

        return prepare

    way = tool['Way'](spy('other'), compare='')
    monkeypatch.setitem(tool['OURS'], 'spy', spy('ours'))
    monkeypatch.setitem(tool['WAYS'], ('spy', 'other'), way)
    times = tool['measure_time'].__globals__
    monkeypatch.setitem(times, 'SHORTEST_TURN', 0)  # one call in a turn
    monkeypatch.setitem(times, 'LEAST_SECONDS', 0)
    tool['measure_time'](tool['Case']('spy', 'other', 8), 4, 1)
    assert calls[:2] == ['ours', 'other']  # warm up
    assert calls[2:] == ['ours', 'other', 'other', 'ours'] * 2


def test_row_shows_the_turn_with_the_median_ratio(tool):
    turns = [(9, 3), (1, 2), (4, 4), (5, 3)]
    assert tool['median_turn'](turns[:3]) == (4, 4)
    assert tool['median_turn'](turns) == (5, 3)  # not in our favour


def test_memory_is_that_of_the_step(tool):
    """2048 x 2048 scores of four bytes are 16 MiB."""

    def step(copies):
        def prepare(rows):
            def run():
                scores = rows.student @ rows.teacher.T
                kept = [scores + i for i in range(copies)]
                return sum(matrix.sum() for matrix in kept)

            return run

        return prepare

    peaks = []
    for copies in (1, 9):
        tool['WAYS']['CMC', 'copies'] = tool['Way'](step(copies))
        case = tool['Case']('CMC', 'copies', 2048)
        peaks.append(tool['measure_memory'](case, False, 1) / 2**20)
    assert 30 < peaks[0] < 100
    assert 110 < peaks[1] - peaks[0] < 150


@pytest.mark.parametrize(
    ('args', 'message'),
    [
        (('--only', '('), 'no regular expression'),
        (('--only', 'nothing of it'), 'CMC, B=4096 against open_clip'),
        (('--repeats', 0), '--repeats must be positive'),
        (('--out', 'page.txt'), 'NAME.md'),
    ],
)
def test_wrong_options(tool, monkeypatch, args, message):
    words = [str(word) for word in (TOOL, *TINY, *args)]
    monkeypatch.setattr(sys, 'argv', words)
    with pytest.raises(tool['ConfigError'], match=message):
        tool['main']()


def test_ratios_are_judged(tool):
    judged = tool['judged']
    assert judged(0.2, tool['Fraction'](1, 4)) == '0.2 ≤ 1/4'
    assert judged(0.71, 0.7) == '**0.71 > 0.7**'
    assert judged(1.5, None) == '1.5'


def test_limits_hold_for_full_sizes_alone(tool):
    step = tool['DistillationStep']()
    turn = 1, 8
    assert '0 of 1 limits' in tool['summary']([step], {step: turn})
    small = step.shrunk(2)
    assert tool['summary']([small], {small: turn}) == 'No limits are judged.'
    for row in tool['cpu_cases']() + tool['growths']():
        shrunk = row.shrunk(2)
        limits = ('limit', 'memory_limit', 'time_limit')
        assert not any(getattr(shrunk, name, None) for name in limits)


def test_elsewhere_than_on_linux_it_says_so(tool, monkeypatch, tmp_path):
    monkeypatch.setattr(measuring, '_RESET', tmp_path / 'missing')
    monkeypatch.setattr(sys, 'argv', [str(word) for word in (TOOL, *TINY)])
    with pytest.raises(tool['ConfigError'], match='run it on Linux'):
        tool['main']()
