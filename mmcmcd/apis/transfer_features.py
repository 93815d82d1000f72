"""Features for the generalisation report, from a file or from a config."""

import copy
from collections.abc import Sequence

import numpy as np

from ..analysis.transfer_advice import TEACHER, TransferFeatures
from ..errors import ConfigError
from .cli import load_config
from .dataset_configs import phase_dataset_cfgs
from .modality_distance import read_arrays
from .paired_features import embed_pairs

# Held-out and seen pairs that are compared, at most.
_MOST_PAIRS = 2000


def parse_fewer_pairs(words: Sequence[str]) -> dict:
    """Turn ``COUNT=FILE`` words of a command line into files by count.

    Args:
        words (Sequence[str]): The words.

    Returns:
        dict[int, str]: By number of pairs.

    Raises:
        ConfigError: A word has another form, or a count comes twice.
    """
    files = {}
    for word in words:
        count, _, path = word.partition('=')
        if not count.isdigit() or not int(count) or not path:
            raise ConfigError(
                f'--fewer-pairs {word!r}: expected COUNT=FILE, e.g. '
                '100=work_dirs/half/epoch_60.pth of a run with 100 pairs.'
            )
        if int(count) in files:
            raise ConfigError(f'--fewer-pairs has {count} pairs twice.')
        files[int(count)] = path
    return files


def read_transfer_features(
    path: str, num_pairs: int, fewer: dict[int, str]
) -> TransferFeatures:
    """Read features that were made anywhere.

    Args:
        path (str): ``.npz`` with ``labels`` (n, ), ``labelled`` (n, D) and,
            as far as there are any, ``labelled_source`` (n, D');
            ``seen_source`` and ``seen_target``, pairs of the distillation;
            ``source`` and ``target``, held-out pairs; ``test_labels`` (T, ),
            ``test`` (T, D) and ``test_source`` (T, D').
        num_pairs (int): m of this student.
        fewer (dict[int, str]): Files with ``labelled`` and, where the first
            has it, ``test``, of students of fewer pairs.

    Returns:
        TransferFeatures: What is there.

    Raises:
        ConfigError: A file is missing or lacks an array that it needs, or a
            count of fewer pairs is not below ``num_pairs``.
    """
    _check_fewer(fewer, num_pairs)
    files = {num_pairs: _Arrays(path)}
    files |= {count: _Arrays(other) for count, other in fewer.items()}
    main = files[num_pairs]
    labelled = {m: file['labelled'] for m, file in files.items()}
    tests, test_labels = {}, None
    if 'labelled_source' in main:
        labelled[TEACHER] = main['labelled_source']
    if 'test_labels' in main:
        test_labels = main['test_labels']
        tests = {m: file['test'] for m, file in files.items()}
        if 'test_source' in main:
            tests[TEACHER] = main['test_source']
    return TransferFeatures(
        main['labels'],
        labelled,
        seen=main.both('seen_source', 'seen_target'),
        unseen=main.both('source', 'target'),
        tests=tests,
        test_labels=test_labels,
    )


class _Arrays:
    """The arrays of one file."""

    def __init__(self, path):
        self._path = path
        self._arrays = read_arrays(path, 'labels=..., labelled=...')

    def __contains__(self, name):
        return name in self._arrays

    def __getitem__(self, name):
        if name not in self._arrays:
            raise ConfigError(
                f"features '{self._path}' have no array '{name}', only "
                f'{sorted(self._arrays)}. docs/generalization.md lists what '
                'belongs together.'
            )
        return self._arrays[name]

    def both(self, *names):
        """The two, or None if neither is there."""
        if not any(name in self for name in names):
            return None
        return tuple(self[name] for name in names)


def _check_fewer(fewer, num_pairs):
    wrong = [count for count in fewer if count >= num_pairs]
    if wrong:
        raise ConfigError(
            f'--fewer-pairs {wrong[0]}: not fewer than the {num_pairs} pairs '
            'of the student that is asked about.'
        )


def embed_transfer(
    config: str,
    checkpoint: str,
    *,
    labels_per_class: int | None = None,
    fewer: dict[int, str] | None = None,
    split: str = 'test',
    work_dir: str | None = None,
    seed: int = 0,
    cfg_options: dict | None = None,
) -> TransferFeatures:
    """Embed pairs that a student was distilled on, and held-out ones.

    The labelled samples are drawn from the training pairs, the test samples
    are the held-out pairs; all go through the transforms of the test.

    Args:
        config (str): Of a distillation whose pairs have classes, see
            :func:`mmcmcd.apis.load_config`.
        checkpoint (str): ``epoch_*.pth`` of a run of it.
        labels_per_class (int, optional): How many to draw. Defaults to None:
            all training pairs count as labelled.
        fewer (dict[int, str], optional): Checkpoints of runs with fewer
            training pairs, by number.
        split (str): Of the held-out pairs, 'test' or 'val'.
        work_dir (str, optional): Where logs go.
        seed (int): Of the draw.
        cfg_options (dict, optional): Dotted keys and their values.

    Returns:
        TransferFeatures: Of students and teacher.

    Raises:
        CheckpointError: See :func:`mmcmcd.apis.paired_features.embed_pairs`.
        ConfigError: As there; or the pairs have no classes.
    """
    cfg = load_config(config)
    if cfg_options:
        cfg.merge_from_dict(cfg_options)

    def embed(count, path, seen):
        run = _with_training_pairs(cfg, split) if seen else copy.deepcopy(cfg)
        # The runner's scopes and loggers go by this name.
        run.experiment_name = f'generalization_{path}_{count}_{seen}'.replace(
            '/', '_'
        )
        phase = 'test' if seen else split
        pairs = embed_pairs(run, config, path, split=phase, work_dir=work_dir)
        if pairs.labels is None:
            raise ConfigError(
                f"config '{config}': its pairs have no classes. Give them "
                'by the list of pairs, or embed labelled samples yourself '
                'and use --features.'
            )
        rows = {
            side: pairs.sides[side].embeddings[pairs.links[side]].numpy()
            for side in ('source', 'target')
        }
        return rows, pairs.labels

    seen, classes = embed(0, checkpoint, True)
    unseen, test_labels = embed(0, checkpoint, False)
    fewer = fewer or {}
    _check_fewer(fewer, len(classes))
    rng = np.random.default_rng(seed)
    chosen = _draw(classes, labels_per_class, rng)
    labelled = {
        len(classes): seen['target'][chosen],
        TEACHER: seen['source'][chosen],
    }
    tests = {len(classes): unseen['target'], TEACHER: unseen['source']}
    for count, path in fewer.items():
        labelled[count] = embed(count, path, True)[0]['target'][chosen]
        tests[count] = embed(count, path, False)[0]['target']
    return TransferFeatures(
        classes[chosen],
        labelled,
        seen=_some(seen, rng),
        unseen=_some(unseen, rng),
        tests=tests,
        test_labels=test_labels,
    )


def _with_training_pairs(cfg, split):
    """A config that tests on its training pairs, as they are tested."""
    cfg = copy.deepcopy(cfg)
    pipeline = phase_dataset_cfgs(cfg, split)[0]['pipeline']
    phase_dataset_cfgs(cfg, 'train')
    cfg.test_dataloader = copy.deepcopy(cfg[f'{split}_dataloader'])
    cfg.test_dataloader.dataset = copy.deepcopy(cfg.train_dataloader.dataset)
    for dataset in phase_dataset_cfgs(cfg, 'test'):
        dataset['pipeline'] = copy.deepcopy(pipeline)
        dataset['test_mode'] = True
    return cfg


def _draw(classes, count, rng):
    order = rng.permutation(len(classes))
    if count is None:
        return order
    kept = [order[classes[order] == c][:count] for c in np.unique(classes)]
    return np.concatenate(kept)


def _some(rows, rng):
    """At most so many pairs (source, target), for what grows as N^2."""
    chosen = rng.permutation(len(rows['source']))[:_MOST_PAIRS]
    return rows['source'][chosen], rows['target'][chosen]
