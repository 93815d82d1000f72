"""The page of a matrix: tables, pictures, and every single figure."""

import math
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mmcmcd.analysis import mean_interval, plus_minus, spearman_interval
from mmcmcd.atomic_files import write_text
from mmcmcd.errors import ConfigError

from .matrix import NO_TEACHER, Matrix
from .picture import draw_methods, draw_sweeps
from .results import Results
from .work import Workplace

_SCRATCH = 'scratch'
_GAP = 'gap_'
# Of a correlation.
_FEWEST_POINTS = 6


def write_report(
    matrix: Matrix,
    place: Workplace,
    settings: dict,
    out: Path,
    command: str,
) -> Results:
    """Write ``out``, and beside it ``.jsonl`` with all figures and pictures.

    Figures of cells of the matrix that the ``.jsonl`` holds already, of other
    machines, stay, unless the work directory has the same cells. Others, of
    another state of the matrix, go.

    Args:
        matrix (Matrix): The matrix.
        place (Workplace): Where its runs are; it may hold none.
        settings (dict): Of :func:`read_settings`.
        out (Path): The page, NAME.md.
        command (str): How the tool was called, for the page.

    Returns:
        Results: What the page shows.

    Raises:
        ConfigError: There is nothing to show.
    """
    cells = matrix.cells('test', settings['settings'])
    sweeps = {
        name: matrix.sweep_cells(sweep, settings['settings'])
        for name, sweep in matrix.sweeps.items()
    }
    everything = [*cells, *(c for part in sweeps.values() for c in part)]
    results = Results(matrix.metric, matrix.student_metrics)
    figures = out.with_suffix('.jsonl')
    results.read(figures)
    results.collect(place, everything)
    shown = [line for c in everything if (line := results.line(c))]
    if not shown:
        raise ConfigError(
            f'nothing has been run: no figure of {matrix.path.name} in '
            f'{place.root} or {figures}. Call run first.'
        )
    results.write(figures, everything)
    table = Table(matrix, results, cells)
    parts = [
        f'# {matrix.title}',
        matrix.notes,
        _what_was_run(matrix, results, cells),
        table.verdict(settings['contender']),
    ]
    picture = out.with_suffix('.png')
    draw_methods(table, picture)
    parts.append(f'![{matrix.metric} by method]({picture.name})')
    parts += [table.of_teacher(teacher) for teacher in matrix.teachers]
    parts += [table.of_students(), table.of_distances()]
    if any(results.by_seed(part) for part in sweeps.values()):
        picture = out.with_name(f'{out.stem}_sweeps.png')
        draw_sweeps(matrix, results, sweeps, picture)
        parts.append(_sensitivity(matrix, results, sweeps, picture.name))
    parts += [
        _tuning(matrix, settings),
        _failures(results, everything),
        _reproduce(shown, figures.name, command),
    ]
    write_text(out, '\n\n'.join(filter(None, parts)) + '\n')
    return results


class Table:
    """Figures of the split 'test', by teacher, method and budget.

    Args:
        matrix (Matrix): The matrix.
        results (Results): Its figures.
        cells (Sequence[Cell]): Of the split.
    """

    def __init__(self, matrix, results, cells):
        self.matrix = matrix
        self.results = results
        grouped = defaultdict(list)
        for cell in cells:
            grouped[cell.method, cell.teacher, cell.budget].append(cell)
        self.cells = dict(grouped)
        self.figures = {
            key: results.by_seed(part) for key, part in grouped.items()
        }

    def rows(self, teacher):
        """Methods that can be compared under a teacher, and their keys."""
        return {
            name: (name, teacher if method.teacher else NO_TEACHER)
            for name, method in self.matrix.methods.items()
        }

    def best_baseline(self, teacher, budget):
        """Name of the baseline with the highest mean; None without any."""
        means = {
            name: mean_interval([*found.values()])[0]
            for name, key in self.rows(teacher).items()
            if not self.matrix.methods[name].ours
            and (found := self.figures[(*key, budget)])
        }
        return max(means, key=means.get, default=None)

    def differences(self, teacher, budget, name, reference):
        """A method's figures less another's, of the same seeds."""
        rows = self.rows(teacher)
        ours = self.figures[(*rows[name], budget)]
        other = self.figures[(*rows[reference], budget)]
        common = sorted(ours.keys() & other.keys())
        return [ours[seed] - other[seed] for seed in common]

    def verdict(self, contender):
        """Say what the contender is worth against the best baseline."""
        if contender is None:
            return (
                'No method of ours was chosen beforehand: call tune, so that '
                'one is.'
            )
        lines = [
            f'**{contender}**, chosen among the bold methods on the split for '
            'tuning, against the other method that is best here (which is '
            'chosen on these very figures, in its favour). Each interval '
            'stands for itself: of many, some miss.',
            '',
            '| teacher | labels | best baseline | difference | it is |',
            '| --- | --- | --- | --- | --- |',
        ]
        for teacher in self.matrix.teachers:
            for budget in self.matrix.budgets:
                best = self.best_baseline(teacher, budget)
                if best is None:
                    continue
                values = self.differences(teacher, budget, contender, best)
                if not values:
                    continue
                lines.append(
                    f'| {teacher} | {budget} | {best} | '
                    f'{plus_minus(values, "+")} | {_judgement(values)} |'
                )
        return '\n'.join(lines)

    def of_teacher(self, teacher):
        """Three tables: figures, gains over scratch, over the best."""
        budgets = [*self.matrix.budgets]
        best = {b: self.best_baseline(teacher, b) for b in budgets}
        parts = [f'## Teacher: {teacher}']
        first, gains, behind = [], [], []
        for name, key in self.rows(teacher).items():
            label = f'**{name}**' if self.matrix.methods[name].ours else name
            shown = [self._cell((*key, b)) for b in budgets]
            first.append([label, *shown, str(self._number(key, budgets))])
            if name != _SCRATCH and _SCRATCH in self.matrix.methods:
                gains.append(
                    [label]
                    + [self._gain(teacher, b, name, _SCRATCH) for b in budgets]
                )
            behind.append(
                [label]
                + [self._gain(teacher, b, name, best[b]) for b in budgets]
            )
        head = ['method', *map(_labels, budgets)]
        parts.append(f'{self.matrix.metric}:')
        parts.append(_table([*head, 'seeds'], first))
        if gains:
            parts += ['Gain over scratch:', _table(head, gains)]
        named = '; '.join(f'{_labels(b)}: {best[b]}' for b in budgets)
        parts.append(f'Difference to the best baseline ({named}):')
        parts.append(_table(head, behind))
        return '\n\n'.join(parts)

    def of_students(self):
        """What was validated of the students themselves, without labels."""
        metrics = self.matrix.student_metrics
        rows = []
        budget = next(iter(self.matrix.budgets))
        for teacher in self.matrix.teachers:
            for name, key in self.rows(teacher).items():
                if key[1] == NO_TEACHER:
                    continue
                lines = [
                    line['student']
                    for cell in self.cells[(*key, budget)]
                    if 'student' in (line := self.results.line(cell) or {})
                ]
                shown = [
                    _plain(
                        [line[m] for line in lines if m in line],
                        3 if m.startswith(_GAP) else 2,
                    )
                    for m in metrics
                ]
                rows.append([name, teacher, *shown])
        if not metrics or not rows:
            return ''
        head = ['method', 'teacher', *metrics]
        return '## The students, without labels\n\n' + _table(head, rows)

    def of_distances(self):
        """How figures of the gap go with those of step 3, over methods."""
        rows = []
        for metric in self.matrix.student_metrics:
            if not metric.startswith(_GAP):
                continue
            for teacher in self.matrix.teachers:
                row = [metric, teacher]
                for budget in self.matrix.budgets:
                    points = self._points(metric, teacher, budget)
                    if len(points) < _FEWEST_POINTS:
                        row.append('')
                        continue
                    rho, low, high = spearman_interval(
                        *zip(*points, strict=True)
                    )
                    row.append(f'{rho:+.2f} [{low:+.2f}, {high:+.2f}]')
                rows.append(row)
        if not any(any(row[2:]) for row in rows):
            return ''
        head = ['gap', 'teacher', *(_labels(b) for b in self.matrix.budgets)]
        return (
            '## Does distance explain the result?\n\n'
            f"Spearman's correlation of the gap after step 2 with "
            f'{self.matrix.metric}, over methods (means over seeds), with a '
            'bootstrap interval over methods. Where nearer is better it is '
            'negative, of CKA, a similarity, positive.\n\n'
            + _table(head, rows)
        )

    def _points(self, metric, teacher, budget):
        points = []
        for name, key in self.rows(teacher).items():
            lines = [
                line
                for cell in self.cells[(*key, budget)]
                if metric
                in (line := self.results.line(cell) or {}).get('student', {})
            ]
            if lines and self.matrix.methods[name].teacher:
                points.append(
                    (
                        np.mean([line['student'][metric] for line in lines]),
                        np.mean([line[self.matrix.metric] for line in lines]),
                    )
                )
        return points

    def _number(self, key, budgets):
        return min(len(self.figures[(*key, b)]) for b in budgets)

    def _cell(self, key):
        cells = self.cells[key]
        text = _plain([*self.figures[key].values()])
        failed = sum(
            'failed' in (self.results.line(cell) or {}) for cell in cells
        )
        return f'{text} ({failed} FAILED)' if failed else text

    def _gain(self, teacher, budget, name, reference):
        if reference is None or name == reference:
            return ''
        values = self.differences(teacher, budget, name, reference)
        return plus_minus(values, '+') if values else ''


def _what_was_run(matrix, results, cells):
    lines = [line for c in cells if (line := results.line(c))]
    missing = results.missing(cells)
    text = (
        f'{len(matrix.methods)} methods, {len(matrix.teachers)} teachers, '
        f'{len(matrix.budgets)} budgets of labels, {len(matrix.seeds)} seeds: '
        f'{len(lines)} of {len(cells)} cells'
    )
    if missing:
        text += f'; **{missing} were not run**'
    return (
        f'{text}. Mean and 95 % interval (Student t) over seeds; differences '
        'are of the same seeds and draws of labels. Intervals are about other '
        'seeds, not about other test data. Bold: the losses under study; the '
        'others are baselines. All methods with a teacher have the same '
        'student, schedule, augmentation, batches and number of tuned '
        'settings; those without have their own views and schedule.'
    )


def _sensitivity(matrix, results, sweeps, picture):
    parts = [
        '## Sensitivity',
        'On the split for tuning, one option changed at a time. The number '
        'of epochs stays, so that fewer pairs or a larger batch are fewer '
        'steps, too.',
        f'![sensitivity]({picture})',
    ]
    for name, cells in sweeps.items():
        sweep = matrix.sweeps[name]
        rows = []
        for value in sweep.values:
            part = [c for c in cells if c.sweep[1] == value]
            found = results.by_seed(part)
            rows.append([value, _plain([*found.values()]), str(len(found))])
        title = f'{sweep.method} ({sweep.teacher}), {sweep.budget} labels'
        parts.append(
            _table([name, f'{matrix.metric}, {title}', 'seeds'], rows)
        )
    return '\n\n'.join(parts)


def _tuning(matrix, settings):
    if not settings['scores']:
        return (
            '## Tuning\n\nNothing was tuned: every method has the first '
            'setting of its grid.'
        )
    scope = matrix.tuning
    rows = []
    for name, scores in settings['scores'].items():
        chosen = settings['settings'][name]
        for index, score in enumerate(scores):
            options = matrix.methods[name].grid[index]
            text = ', '.join(
                f'`{key}={value}`' for key, value in options.items()
            )
            shown = 'failed' if score is None else f'{score:.2f}'
            if index == chosen:
                shown = f'**{shown}**'
            rows.append([name, text or 'as in its config', shown])
    counts = ', '.join(
        f'{len(scope[key])} {key} ({", ".join(map(str, scope[key]))})'
        for key in ('seeds', 'teachers', 'budgets')
        if key in scope
    )
    text = (
        f'## Tuning\n\nMean {matrix.metric} on the split for tuning: '
        f'{counts}. The best, in bold, was taken for all teachers and '
        'budgets.'
    )
    return f'{text}\n\n{_table(["method", "setting", "mean"], rows)}'


def _failures(results, cells):
    found = results.failures(cells)
    if not found:
        return ''
    rows = [
        [
            ' '.join(reason.replace('|', '/').split()),
            str(len(titles)),
            titles[0],
        ]
        for reason, titles in found.items()
    ]
    head = ['reason', 'cells', 'one of them']
    return f'## Failed\n\n{_table(head, rows)}'


def _reproduce(lines, figures, command):
    places = sorted({line['machine'] for line in lines if 'machine' in line})
    versions = sorted(
        {', '.join(line['versions']) for line in lines if 'versions' in line}
    )
    dates = sorted({line['date'] for line in lines if 'date' in line})
    text = (
        '## Reproduce\n\n'
        f'```bash\n{command}\n```\n\n'
        f'Every figure, with settings and seed, is in [{figures}]({figures}). '
    )
    if dates:
        text += (
            f'{" to ".join(sorted({dates[0], dates[-1]}))}, '
            f'{"; ".join(places)}; {"; ".join(versions)}.'
        )
    return text


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ['---'] * len(head), *rows]
    return '\n'.join(f'| {" | ".join(line)} |' for line in lines)


def _labels(budget):
    return f'labels: {budget}'


def _plain(values, digits=2):
    return plus_minus(values, digits=digits) if values else 'none'


def _judgement(values):
    mean, half = mean_interval(values)
    if math.isnan(half):
        return 'one seed'
    if abs(mean) <= half:
        return 'not told apart'
    return 'ahead' if mean > 0 else 'behind'
