"""The question of step 3: what is a student worth when labels are few?"""

import copy
import hashlib
import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from mmengine.config import Config

from mmcmcd.analysis import plus_minus
from mmcmcd.errors import ConfigError
from mmcmcd.models.utils import file_sha256

from .quiet_run import release, run_quietly, validated


class Draw(NamedTuple):
    """One draw of labels.

    Attributes:
        labels (str): Name of the label budget, a row of the table.
        options (dict): Dotted keys of the config and the values that choose
            the labels, e.g. ``{'train_dataloader.dataset.ann_file': ...}``.
        seed (int): Of the initialisation of the head and of the batches.
    """

    labels: str
    options: dict
    seed: int


def label_list(ann_file: str) -> dict:
    """Options of a :class:`Draw` that reads its labels from a list."""
    return {'train_dataloader.dataset.ann_file': ann_file}


def parse_students(entries: Sequence[str], seeds: Sequence[int]) -> dict:
    """Turn ``NAME=FILE`` words of a command line into students.

    Args:
        entries (Sequence[str]): The words; ``{seed}`` in a file stands for
            the seed.
        seeds (Sequence[int]): The seeds for which files must exist.

    Returns:
        dict[str, str | None]: For :class:`FewLabelStudy`, scratch first.

    Raises:
        ConfigError: A word has another form, or a file does not exist.
    """
    students = {'scratch': None}
    for entry in entries:
        name, _, path = entry.partition('=')
        files = {path.replace('{seed}', str(seed)) for seed in seeds}
        missing = sorted(f for f in files if not Path(f).is_file())
        if missing:
            raise ConfigError(
                f'--students {entry!r}: expected NAME=FILE with existing '
                'files, for example cmcd=work_dirs/depth_nyu_tiny/'
                f'student-1a2b3c4d.pth. Missing: {", ".join(missing)}.'
            )
        students[name] = path
    return students


class FewLabelStudy:
    """Fine-tune several students on the same draws of few labels.

    Every student gets the same config, budget, seeds and labels. Finished
    runs are kept in ``results.jsonl`` and not repeated while their config
    and their student's weights are the same.

    Args:
        config (Config): Of a stock mmseg or mmpretrain model with
            ``model.backbone.init_cfg``, trained in iterations.
        students (dict[str, str | None]): Name to exported student; None
            trains from scratch. ``{seed}`` in a path stands for the seed of
            the draw, so that each has a student of its own.
        draws (Sequence[Draw]): The draws.
        work_dir (str | Path): Where runs and results go.
        metrics (Sequence[str]): Validation figures to keep. Defaults to
            mmseg's ``mIoU``.
        keep_weights (bool): Keep the outcome of every run, as ``model.pth``
            in its folder. Defaults to False.
    """

    def __init__(
        self,
        config: Config,
        students: dict[str, str | None],
        draws: Sequence[Draw],
        work_dir: str | Path,
        metrics: Sequence[str] = ('mIoU',),
        keep_weights: bool = False,
    ) -> None:
        self.config = config
        self.students = students
        self.draws = list(draws)
        self.work_dir = Path(work_dir)
        self.metrics = tuple(metrics)
        self.keep_weights = keep_weights
        self._file = self.work_dir / 'results.jsonl'

    def run(self) -> list[dict]:
        """Fine-tune what is missing.

        Returns:
            list[dict]: ``student``, ``labels``, ``options``, ``seed``, the
            metrics and ``seconds_per_step`` of every run.
        """
        self.work_dir.mkdir(parents=True, exist_ok=True)
        found = {}
        if self._file.exists():
            lines = self._file.read_text().splitlines()
            found = {r['fingerprint']: r for r in map(json.loads, lines)}
        jobs = [(name, draw) for draw in self.draws for name in self.students]
        wanted = [self.fingerprint(*job) for job in jobs]
        missing = [key not in found for key in wanted]
        for number, (job, key) in enumerate(zip(jobs, wanted, strict=True)):
            if key in found:
                continue
            name, draw = job
            title = (
                f'fine-tuning {sum(missing[: number + 1])}/{sum(missing)}: '
                f'{name}, {draw.labels} labels, seed {draw.seed}'
            )
            result = dict(self._fine_tune(*job, title), fingerprint=key)
            found[key] = result
            with self._file.open('a') as file:
                file.write(json.dumps(result) + '\n')
        return [found[key] for key in wanted]

    def fingerprint(self, name: str, draw: Draw) -> str:
        """Return a hash of a run's config and of its student's weights."""
        student = self._student(name, draw)
        weights = '' if student is None else file_sha256(student)
        text = self._run_config(name, draw).pretty_text
        # The path of a student says nothing, its content all.
        text = text.replace(repr(student), 'STUDENT')
        return hashlib.sha256(f'{text}{weights}'.encode()).hexdigest()[:16]

    def run_dir(self, name: str, draw: Draw) -> Path:
        """Return the folder of one run."""
        return self.work_dir / f'{name}-{draw.labels}-seed{draw.seed}'

    def _student(self, name: str, draw: Draw) -> str | None:
        path = self.students[name]
        return None if path is None else path.replace('{seed}', str(draw.seed))

    def _run_config(self, name: str, draw: Draw) -> Config:
        cfg = copy.deepcopy(self.config)
        cfg.randomness = dict(seed=draw.seed)
        cfg.merge_from_dict(draw.options)
        cfg.log_level = 'WARNING'
        cfg.default_hooks.checkpoint = None
        student = self._student(name, draw)
        if student is None:
            cfg.model.backbone.init_cfg = None
        else:
            cfg.model.backbone.init_cfg.checkpoint = student
        # The loop validates once, at its end: nothing is selected on it.
        cfg.train_cfg.val_interval = cfg.train_cfg.max_iters + 1
        return cfg

    def _fine_tune(self, name: str, draw: Draw, title: str) -> dict:
        cfg = self._run_config(name, draw)
        runner, pace = run_quietly(cfg, self.run_dir(name, draw), title)
        if self.keep_weights:
            torch.save(
                dict(state_dict=runner.model.state_dict()),
                Path(cfg.work_dir) / 'model.pth',
            )
        figures = validated(runner)
        release(runner)
        return dict(
            student=name,
            **draw._asdict(),
            **_chosen(figures, self.metrics),
            seconds_per_step=pace,
        )


def _chosen(
    figures: dict[str, float], metrics: Sequence[str]
) -> dict[str, float]:
    """The figures to keep."""
    missing = [m for m in metrics if m not in figures]
    if missing:
        raise ConfigError(
            f'{", ".join(missing)}: not among the figures that the config '
            f'validates, {sorted(figures)}. Correct val_evaluator and '
            'default_hooks.'
        )
    return {m: figures[m] for m in metrics}


def few_label_table(
    results: Sequence[dict], baseline: str, metric: str = 'mIoU'
) -> str:
    """Format results as a Markdown table, one row a budget and student.

    Args:
        results (Sequence[dict]): Of :meth:`FewLabelStudy.run`.
        baseline (str): Name of the student that gains are counted from; the
            interval of a gain is that of the differences on the same draws.
        metric (str): Which figure to show. Defaults to ``mIoU``.

    Returns:
        str: The table, intervals of 95 %.
    """
    figures = defaultdict(dict)
    for r in results:
        key = str(r['options']), r['seed']
        figures[r['labels'], r['student']][key] = r
    lines = [
        f'| labels | student | {metric} % | gain over {baseline} | runs '
        '| s / step |',
        '| --- | --- | --- | --- | --- | --- |',
    ]
    for (labels, student), runs in figures.items():
        base = figures[labels, baseline]
        gains = [runs[k][metric] - base[k][metric] for k in runs if k in base]
        gain = '' if student == baseline else plus_minus(gains, '+')
        mean = plus_minus([r[metric] for r in runs.values()])
        seconds = np.mean([r['seconds_per_step'] for r in runs.values()])
        lines.append(
            f'| {labels} | {student} | {mean} | {gain} | {len(runs)} '
            f'| {seconds:.3f} |'
        )
    return '\n'.join(lines)
