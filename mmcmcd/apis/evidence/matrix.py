"""What a matrix file says, and the runs that follow from it."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mmcmcd.errors import ConfigError

from ..cli import load_config
from .job import Cell, Job

STAGES = ('teacher', 'student', 'score')
SPLITS = ('tune', 'test')
# Stands for the seed of a run in the values of options.
SEED = '{seed}'
NO_TEACHER = ''
_REQUIRED = (
    'title',
    'metric',
    'seeds',
    'teachers',
    'downstream',
    'budgets',
    'splits',
    'tuning',
    'methods',
)
_OPTIONAL = dict(
    names={}, sweeps={}, student_metrics=(), student_hooks=(), notes=''
)


@dataclass(frozen=True)
class Method:
    """A way to a student.

    Attributes:
        name (str): Of its rows in the tables.
        config (str, optional): What trains the student; None: nothing does.
        grid (tuple[dict]): Settings, options of the config each.
        teacher (bool): Whether it has one.
        ours (bool): Whether it is one of those that the others are compared
            with; all others are baselines.
    """

    name: str
    config: str | None = None
    grid: tuple[dict, ...] = ({},)
    teacher: bool = True
    ours: bool = False


@dataclass(frozen=True)
class Sweep:
    """One method, with a series of values of one thing.

    Attributes:
        name (str): What is changed, the label of its axis.
        method (str): Which one.
        teacher (str): By which one.
        budget (str): Of labels.
        seeds (tuple[int]): Repetitions.
        values (dict[str, dict]): By value, options by stage.
    """

    name: str
    method: str
    teacher: str
    budget: str
    seeds: tuple[int, ...]
    values: dict[str, dict]


@dataclass(frozen=True)
class Matrix:
    """Data set x teacher x method x budget of labels x seed.

    Attributes:
        path (Path): The file that it was read from.
        title (str): Of its page.
        metric (str): Figure of validation that counts, higher is better.
        seeds (tuple[int]): Repetitions, each with a teacher (unless they
            share one), students, draws of labels and heads of its own.
        teachers (dict[str, dict]): By name ``config`` to train, or
            ``checkpoint`` to take, and ``shared_seed``, the one seed of a
            teacher that all repetitions share.
        downstream (str): Config of step 3.
        budgets (dict[str, dict]): By name options of ``downstream``.
        splits (dict[str, dict]): Of 'tune' and 'test' options by stage.
        tuning (dict): ``seeds``, ``budgets`` and ``teachers`` to choose
            settings with.
        methods (dict[str, Method]): By name.
        sweeps (dict[str, Sweep]): By name.
        names (dict[str, str]): What stands for ``{name}`` in paths, so that
            another matrix can inherit them.
        student_metrics (Sequence[str]): Figures of validation of step 2 to
            show, such as ``retrieval/target2source_mAP``.
        student_hooks (Sequence[dict]): Configs of hooks that students of a
            teacher get beside those of their configs.
        notes (str): What its page should say.
    """

    path: Path
    title: str
    metric: str
    seeds: tuple[int, ...]
    teachers: dict[str, dict]
    downstream: str
    budgets: dict[str, dict]
    splits: dict[str, dict]
    tuning: dict
    methods: dict[str, Method]
    sweeps: dict[str, Sweep] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    student_metrics: tuple[str, ...] = ()
    student_hooks: tuple[dict, ...] = ()
    notes: str = ''
    # Runs by what they are of: many cells share them.
    _made: dict = field(default_factory=dict, repr=False)

    def cells(self, split: str, settings: dict[str, int]) -> list[Cell]:
        """List the cells of a split.

        Args:
            split (str): 'tune' has every setting of the grids, with the
                seeds, budgets and teachers of ``tuning``; 'test' that of
                ``settings``, with all of them.
            settings (dict[str, int]): Chosen index by method, 0 for those
                that are not named.
        """
        tune = split == 'tune'
        scope = self.tuning if tune else {}
        seeds = scope.get('seeds', self.seeds)
        budgets = scope.get('budgets', self.budgets)
        teachers = scope.get('teachers', self.teachers)
        found = []
        for seed, method in itertools.product(seeds, self.methods.values()):
            chosen = [settings.get(method.name, 0)]
            for setting, teacher, budget in itertools.product(
                range(len(method.grid)) if tune else chosen,
                teachers if method.teacher else [NO_TEACHER],
                budgets,
            ):
                found.append(
                    self._cell(split, method, teacher, setting, budget, seed)
                )
        return found

    def sweep_cells(
        self, sweep: Sweep, settings: dict[str, int]
    ) -> list[Cell]:
        """List the cells of a sweep, on the split 'tune'."""
        method = self.methods[sweep.method]
        setting = settings.get(method.name, 0)
        return [
            self._cell(
                'tune',
                method,
                sweep.teacher,
                setting,
                sweep.budget,
                seed,
                (sweep.name, value),
            )
            for value in sweep.values
            for seed in sweep.seeds
        ]

    def _cell(self, split, method, teacher, setting, budget, seed, swept=()):
        of = (split, method.name, teacher, setting, seed, swept)
        return Cell(
            score=self._once(self._score, *of, budget),
            split=split,
            method=method.name,
            teacher=teacher,
            setting=setting,
            budget=budget,
            seed=seed,
            sweep=swept,
        )

    def _once(self, make, *of):
        key = (make.__name__, *of)
        if key not in self._made:
            self._made[key] = make(*of)
        return self._made[key]

    def _score(self, split, name, teacher, setting, seed, swept, budget):
        needs = ()
        if self.methods[name].config is not None:
            of = (split, name, teacher, setting, seed, swept)
            needs = (self._once(self._student, *of),)
        return Job(
            'score',
            f'{_title(name, teacher, setting)}, {budget} labels, seed {seed}',
            self._resolve(self.downstream),
            self._options('score', split, seed, swept, self.budgets[budget]),
            seed,
            needs,
        )

    def _student(self, split, name, teacher, setting, seed, swept):
        method = self.methods[name]
        needs = ()
        if teacher:
            needs = (self._once(self._teacher, split, teacher, seed, swept),)
        return Job(
            'student',
            f'{_title(name, teacher, setting)}, seed {seed}',
            self._resolve(method.config),
            self._options('student', split, seed, swept, method.grid[setting]),
            seed,
            needs,
            tuple(self.student_hooks) if needs else (),
        )

    def _teacher(self, split, name, seed, swept):
        entry = self.teachers[name]
        if 'checkpoint' in entry:
            return Job('file', name, self._resolve(entry['checkpoint']), {}, 0)
        # All repetitions may share one.
        seed = entry.get('shared_seed', seed)
        return Job(
            'teacher',
            f'teacher {name}, seed {seed}',
            self._resolve(entry['config']),
            self._options('teacher', split, seed, swept),
            seed,
        )

    def _options(self, stage, split, seed, swept, own=()):
        options = dict(self.splits[split].get(stage, {}))
        options.update(own)
        if swept:
            changed = self.sweeps[swept[0]].values[swept[1]]
            options.update(changed.get(stage, {}))
        return _with_seed(options, seed)

    def _resolve(self, config):
        for name, text in self.names.items():
            config = config.replace(f'{{{name}}}', text)
        if '::' in config or '://' in config:
            return config
        return str((self.path.parent / config).resolve())


def read_matrix(path: str | Path) -> Matrix:
    """Read a matrix file and check it.

    Args:
        path (str | Path): A Python file as those of ``configs/evidence``.

    Raises:
        ConfigError: A field is missing, unknown or names what is not there.
    """
    cfg = load_config(str(path))
    path = Path(cfg.filename)
    fields = {
        name: value
        for name, value in cfg.to_dict().items()
        # Those that only help to write the file.
        if not name.startswith('_')
    }
    missing = [name for name in _REQUIRED if name not in fields]
    unknown = sorted(fields.keys() - {*_REQUIRED, *_OPTIONAL})
    if missing or unknown:
        raise ConfigError(
            f"matrix '{path}': fields missing: {missing}, unknown: {unknown}. "
            f'It has {", ".join((*_REQUIRED, *_OPTIONAL))}; see '
            'docs/evidence.md.'
        )
    fields = {**_OPTIONAL, **fields}
    for name in ('teachers', 'budgets', 'splits', 'tuning', 'methods'):
        _require_dict(f"matrix '{path}', {name}", fields[name])
    if not isinstance(fields['seeds'], (list, tuple)):
        raise ConfigError(
            f"matrix '{path}': seeds must be a list, got {fields['seeds']!r}."
        )
    fields['budgets'] = {str(k): v for k, v in fields['budgets'].items()}
    methods = {
        name: _read_method(path, name, entry)
        for name, entry in fields.pop('methods').items()
    }
    sweeps = {
        name: _read_sweep(path, name, entry)
        for name, entry in fields.pop('sweeps').items()
    }
    matrix = Matrix(
        path=path,
        methods=methods,
        sweeps=sweeps,
        **dict(fields, seeds=tuple(fields['seeds'])),
    )
    _check(matrix)
    return matrix


def _read_method(path, name, entry):
    where = f"matrix '{path}', methods[{name!r}]"
    entry = dict(_require_dict(where, entry or {}))
    known = ('config', 'grid', 'teacher', 'ours')
    _require_known(where, entry, known, 'fields')
    if not entry.get('config'):
        entry['teacher'] = False
    grid = entry.get('grid') or ({},)
    if isinstance(grid, dict):
        raise ConfigError(
            f'{where}: grid must be a list of settings, each a dict of '
            'options, but is one dict.'
        )
    entry['grid'] = tuple(_require_dict(f'{where}, grid', g) for g in grid)
    return Method(name, **entry)


def _read_sweep(path, name, entry):
    where = f"matrix '{path}', sweeps[{name!r}]"
    fields = ('method', 'teacher', 'budget', 'seeds', 'values')
    _require_known(
        where, _require_dict(where, entry), fields, 'fields', fields
    )
    values = {str(k): v for k, v in entry['values'].items()}
    return Sweep(
        name, **dict(entry, seeds=tuple(entry['seeds']), values=values)
    )


def _check(matrix):
    where = f"matrix '{matrix.path}'"
    _require_known(f'{where}, splits', matrix.splits, SPLITS, 'splits', SPLITS)
    for split, options in matrix.splits.items():
        _require_known(f'{where}, splits.{split}', options, STAGES, 'stages')
    scope = dict(seeds=None, budgets=matrix.budgets, teachers=matrix.teachers)
    _require_known(f'{where}, tuning', matrix.tuning, scope, 'fields')
    for name, known in scope.items():
        if known is not None:
            chosen = matrix.tuning.get(name, known)
            _require_known(f'{where}, tuning.{name}', chosen, known, name)
    for name, entry in matrix.teachers.items():
        place = f'{where}, teachers[{name!r}]'
        known = ('config', 'checkpoint', 'shared_seed')
        _require_known(place, _require_dict(place, entry), known, 'fields')
        if ('config' in entry) == ('checkpoint' in entry):
            raise ConfigError(
                f'{where}: teacher {name!r} needs either config or checkpoint.'
            )
    for sweep in matrix.sweeps.values():
        place = f'{where}, sweeps[{sweep.name!r}]'
        _require_known(place, [sweep.method], matrix.methods, 'methods')
        _require_known(place, [sweep.teacher], matrix.teachers, 'teachers')
        _require_known(place, [sweep.budget], matrix.budgets, 'budgets')
        for value, options in sweep.values.items():
            _require_known(f'{place}[{value!r}]', options, STAGES, 'stages')
    files = [matrix.downstream]
    files += [m.config for m in matrix.methods.values() if m.config]
    for entry in matrix.teachers.values():
        files.append(entry.get('config') or entry['checkpoint'])
    for name in files:
        path = matrix._resolve(name)
        if '::' not in path and '://' not in path and not Path(path).is_file():
            raise ConfigError(
                f"{where}: file '{name}' does not exist; paths count from "
                f'{matrix.path.parent}.'
            )


def _require_dict(where, value):
    if not isinstance(value, dict):
        raise ConfigError(f'{where}: expected a dict, got {value!r}.')
    return value


def _require_known(where, names, known, what, needed=()):
    unknown = sorted(set(names) - set(known))
    missing = sorted(set(needed) - set(names))
    if unknown or missing:
        raise ConfigError(
            f'{where}: unknown {what} {unknown}, missing {missing}; there '
            f'are {sorted(known)}.'
        )


def _title(method, teacher, setting):
    of = f' ({teacher})' if teacher else ''
    return f'{method}{of}, setting {setting}'


def _with_seed(value, seed):
    """Put the seed of a run into its options."""
    if isinstance(value, dict):
        return {k: _with_seed(v, seed) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_with_seed(v, seed) for v in value)
    if value == SEED:
        return seed
    return value.replace(SEED, str(seed)) if type(value) is str else value


def unique_jobs(cells: Sequence[Cell]) -> list[Job]:
    """List the runs of cells, each once, before those that need it.

    Args:
        cells (Sequence[Cell]): Many share teachers and students.
    """
    found = {}

    def add(job):
        for need in job.needs:
            add(need)
        if job.kind != 'file':
            found.setdefault(job, None)

    for cell in cells:
        add(cell.score)
    return list(found)
