"""The figures of a matrix, from runs and from a file of earlier ones."""

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from mmcmcd.atomic_files import write_text

from .job import Cell
from .settings import figure
from .work import Workplace

# Of a record, beside its figures: what many of them share.
_ORIGIN = ('date', 'machine', 'python', 'versions')


class Results:
    """Figures by cell.

    Args:
        metric (str): That counts.
        student_metrics (Sequence[str]): Those of step 2.
    """

    def __init__(self, metric: str, student_metrics: Sequence[str]) -> None:
        self.metric = metric
        self.student_metrics = tuple(student_metrics)
        self.lines = {}

    def read(self, path: Path) -> None:
        """Add those of a file that :meth:`write` wrote, if it is there."""
        if not path.is_file():
            return
        origins = []
        for line in map(json.loads, path.read_text().splitlines()):
            if 'fingerprint' not in line:
                origins.append(line)
                continue
            if (origin := line.pop('origin', None)) is not None:
                line.update(origins[origin])
            self.lines[line['fingerprint']] = line

    def collect(self, place: Workplace, cells: Sequence[Cell]) -> None:
        """Add those of runs, in place of older ones."""
        for cell in cells:
            job = cell.score
            record, reason = place.record(job), place.failure(job)
            # What failed here may have been measured elsewhere.
            if record is None and (reason is None or self.has(cell)):
                continue
            line = dict(fingerprint=job.fingerprint, **cell.key)
            if record is None:
                line['failed'] = reason
            else:
                line[self.metric] = figure(record, self.metric)
                line.update(
                    {name: record[name] for name in ('seconds', *_ORIGIN)}
                )
                line['student'] = self._of_student(place, job)
            # As it comes back from a file.
            self.lines[job.fingerprint] = _rounded(line)

    def _of_student(self, place, job):
        record = place.record(job.needs[0]) if job.needs else None
        if record is None:
            return {}
        figures = {
            name: record['metrics'][name]
            for name in self.student_metrics
            if name in record['metrics']
        }
        return dict(figures, seconds=record['seconds'])

    def write(self, path: Path, cells: Sequence[Cell]) -> None:
        """Write what is known of cells, a JSON object a line.

        First come the dates, machines and versions that the others refer to.

        Args:
            path (Path): The file.
            cells (Sequence[Cell]): All that belong in it.
        """
        origins, lines = {}, []
        for cell in cells:
            line = self.line(cell)
            if line is None:
                continue
            # Another cell, of a sweep, may be the same run.
            line = {**line, **cell.key}
            origin = {key: line.pop(key) for key in _ORIGIN if key in line}
            if origin:
                text = json.dumps(origin)
                line['origin'] = origins.setdefault(text, len(origins))
            lines.append(json.dumps(line))
        write_text(path, '\n'.join([*origins, *lines]) + '\n')

    def line(self, cell: Cell) -> dict | None:
        """What is known of a cell; None if nothing is."""
        return self.lines.get(cell.score.fingerprint)

    def has(self, cell: Cell) -> bool:
        """Whether the figure of a cell is known."""
        return self.metric in (self.line(cell) or {})

    def by_seed(self, cells: Sequence[Cell]) -> dict[int, float]:
        """The figures of cells that differ in their seed."""
        lines = {cell.seed: self.line(cell) for cell in cells}
        return {
            seed: line[self.metric]
            for seed, line in lines.items()
            if line is not None and self.metric in line
        }

    def failures(self, cells: Sequence[Cell]) -> dict[str, list[str]]:
        """Titles of cells that failed, by reason."""
        found = defaultdict(list)
        for cell in cells:
            line = self.line(cell)
            if line is not None and 'failed' in line:
                found[line['failed']].append(cell.score.title)
        return dict(found)

    def missing(self, cells: Sequence[Cell]) -> int:
        """How many cells nothing is known of."""
        return sum(self.line(cell) is None for cell in cells)


def _rounded(value):
    """Figures to four decimals."""
    if isinstance(value, dict):
        return {key: _rounded(each) for key, each in value.items()}
    return round(value, 4) if isinstance(value, float) else value
