"""Training runs of a study, each trained once."""

import copy
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from mmengine.config import Config

from mmcmcd.atomic_files import write_text
from mmcmcd.models.utils import file_sha256
from mmcmcd.version import __version__

from .quiet_run import release, run_quietly, validated

_RECORD = 'finished.json'


def train_cached(
    config: Config,
    work_dir: str | Path,
    title: str,
    inputs: Sequence[str | Path] = (),
) -> dict:
    """Train in this process, unless the same run is there already.

    A run is the same if its config and the contents of its input files are,
    and the version of this package; where these files lie does not matter.
    Data and other code are not looked at: after a change of them, take
    another ``work_dir``.

    Args:
        config (Config): What to train; not changed.
        work_dir (str | Path): Where logs, weights and the record of the run
            go.
        title (str): What the progress line says.
        inputs (Sequence[str | Path]): Files named in the config, such as the
            teacher's checkpoint.

    Returns:
        dict: ``seconds`` of training, and the last figures of validation by
        name, e.g. ``retrieval/target2source_R@1``.
    """
    work_dir = Path(work_dir)
    record = work_dir / _RECORD
    fingerprint = _fingerprint(config, inputs)
    if record.exists():
        found = json.loads(record.read_text())
        if found.pop('fingerprint') == fingerprint:
            print(f'{title}: done before, kept in {work_dir}')
            return found
    runner, pace = run_quietly(copy.deepcopy(config), work_dir, title)
    result = dict(seconds=pace * runner.iter, **validated(runner))
    release(runner)
    # A half-written record would stop the next run.
    write_text(record, json.dumps(dict(result, fingerprint=fingerprint)))
    return result


def _fingerprint(config, inputs):
    text = __version__ + config.pretty_text
    for path in inputs:
        text = text.replace(repr(str(path)), file_sha256(path))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
