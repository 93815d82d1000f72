"""Settings of the methods, chosen on the split 'tune'."""

import json
from collections import defaultdict
from pathlib import Path

import numpy as np

from mmcmcd.atomic_files import write_text
from mmcmcd.errors import ConfigError

from .matrix import Matrix
from .work import FAILED, Workplace


def default_settings_file(matrix: Matrix) -> Path:
    """The file beside a matrix that holds its chosen settings."""
    return matrix.path.with_suffix('.json')


def write_settings(matrix: Matrix, place: Workplace, path: Path) -> dict:
    """Choose the best setting of each method, and write all figures.

    The score of a setting is the mean over the seeds, budgets and teachers of
    ``matrix.tuning``; every method has as many runs a setting. The contender
    is the best of the methods that are ours.

    Args:
        matrix (Matrix): The matrix.
        place (Workplace): Where its runs of the split 'tune' are.
        path (Path): The file to write.

    Returns:
        dict: ``settings``, the index by method, ``scores``, by method the
        mean of each of its settings (None where a run failed), and
        ``contender``.

    Raises:
        ConfigError: Runs are missing, or all settings of a method failed.
    """
    values = defaultdict(list)
    for cell in matrix.cells('tune', {}):
        record = place.record(cell.score)
        if record is None and place.state(cell.score) != FAILED:
            raise ConfigError(
                f"'{cell.score.title}' is not finished in {place.root}: "
                'call tune again.'
            )
        values[cell.method, cell.setting].append(
            figure(record, matrix.metric) if record else None
        )
    scores = {
        name: [
            _mean(values[name, setting]) for setting in range(len(method.grid))
        ]
        for name, method in matrix.methods.items()
    }
    settings = {}
    for name, means in scores.items():
        if all(mean is None for mean in means):
            raise ConfigError(
                f'all settings of {name!r} failed; see failed.json in the '
                f'folders of {place.root}.'
            )
        settings[name] = int(
            np.argmax([-np.inf if m is None else m for m in means])
        )
    ours = [name for name, method in matrix.methods.items() if method.ours]
    contender = max(
        ours, key=lambda name: scores[name][settings[name]], default=None
    )
    content = dict(settings=settings, contender=contender, scores=scores)
    # Indices say nothing of a grid that was changed since.
    text = json.dumps(dict(content, grids=_grids(matrix)), indent=1)
    write_text(path, text + '\n')
    return content


def read_settings(matrix: Matrix, path: Path | None = None) -> dict:
    """Read what :func:`write_settings` wrote.

    Args:
        matrix (Matrix): The matrix.
        path (Path, optional): The file. Defaults to that beside the matrix,
            and, where there is none, to the first setting of each method.

    Raises:
        ConfigError: The file is missing or does not suit the matrix.
    """
    path = path or default_settings_file(matrix)
    if not path.is_file():
        if path != default_settings_file(matrix):
            raise ConfigError(f"--settings '{path}' does not exist.")
        return dict(settings={}, contender=None, scores={})
    try:
        content = json.loads(path.read_text())
        grids = content['grids']
        content = {
            key: content[key] for key in ('settings', 'contender', 'scores')
        }
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"'{path}' is not what tune writes ({error!r}): call it again."
        ) from error
    present = _grids(matrix)
    changed = sorted(
        name
        for name in {*grids, *present}
        if grids.get(name) != present.get(name)
    )
    if changed:
        raise ConfigError(
            f"'{path}' was chosen from other grids than those of "
            f"'{matrix.path}': {changed}. Call tune again."
        )
    return content


def _grids(matrix):
    """Grids by method, as they come back from a file."""
    grids = {name: [*m.grid] for name, m in matrix.methods.items()}
    return json.loads(json.dumps(grids))


def figure(record: dict, metric: str) -> float:
    """Take a figure of validation from a record.

    Raises:
        ConfigError: It was not measured.
    """
    try:
        return record['metrics'][metric]
    except KeyError:
        raise ConfigError(
            f"'{record['title']}' has no {metric!r}, only "
            f'{sorted(record["metrics"])}: correct metric in the matrix.'
        ) from None


def _mean(values):
    return None if None in values else float(np.mean(values))
