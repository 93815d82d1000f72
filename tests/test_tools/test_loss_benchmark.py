"""The benchmark of the losses, on sizes of no interest."""

import importlib.util
import re
import runpy
import sys

import pytest
import torch
from conftest import REPO, run_command

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
    command = [sys.executable, TOOL, *TINY, '--only', pattern, '--out', path]
    result = run_command(command)
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
    (share,) = (row for row in rows if row[0].startswith('ResNet-18'))
    assert 0 < float(share[1]) < float(share[2])


def test_page_has_its_command_plot_and_machine(page):
    text = page.read_text()
    assert 'python tools/benchmarks/losses.py --shrink 64' in text
    assert '(page.png)' in text
    assert page.with_suffix('.png').read_bytes()[1:4] == b'PNG'
    assert f'torch {torch.__version__}' in ' '.join(text.split())
    assert re.search(r'\d of \d+ limits are met', text)
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
            times = measure(tool, case.shrunk(256))
            assert 0 <= times['differ'] < 1e-5 and times['ratio'] > 0
            compared += 1
    assert compared > 15


def test_another_result_stops_it(tool):
    wrong = tool['Way'](lambda rows: lambda: rows.student.sum())
    tool['WAYS']['CMC', 'wrong'] = wrong
    with pytest.raises(tool['ConfigError'], match='CMC, B=8: .* wrong'):
        measure(tool, tool['Case']('CMC', 'wrong', 8))


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
