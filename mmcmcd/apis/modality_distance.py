"""Measure the distance of two modalities, before and after training."""

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from mmengine.device import get_device
from mmengine.logging import MMLogger
from mmengine.registry import MODELS
from mmengine.runner import Runner, set_random_seed
from torch import Tensor

from .. import atomic_files
from ..analysis import (
    MEASURES,
    Settings,
    measure_distance,
    save_distance_picture,
)
from ..datasets.progress import progress_bar
from ..engine.hooks.modality_gap_hook import pair_keys
from ..errors import ConfigError
from ..evaluation.functional import join_groups
from ..models.distillers.source_norm import apply_source_norm
from ..models.losses import CMDLoss
from .cli import load_config
from .dataset_configs import phase_dataset_cfgs
from .paired_features import require_distiller
from .test import require_fit
from .train import set_dataloader_defaults

_NORM = 'source_norm.'
_LOGGER = 'modality_distance'


@dataclass
class Embeddings:
    """What is compared.

    Attributes:
        stages (dict[str, tuple[Tensor, Tensor]]): Source (N, D) and target
            (N, D') rows, of 'before' and 'after' training, or of 'features'.
        groups (Tensor): Numbers from 0 of independent groups, (N, ).
        space (str): Where the rows come from, in words.
        temperatures (tuple[float, float] | None): Teacher's and student's,
            of the config's CMD.
        places_student (bool | None): Whether a loss brings the rows of the
            two sides together; None where it is not known.
    """

    stages: dict[str, tuple[Tensor, Tensor]]
    groups: Tensor
    space: str
    temperatures: tuple[float, float] | None = None
    places_student: bool | None = None


def modality_distance(
    embeddings,
    out_dir,
    *,
    permutations=200,
    max_pairs=10000,
    seed=0,
    teacher_temperature=None,
    student_temperature=None,
):
    """Measure, and write ``modality_distance.json`` and ``.png``.

    Args:
        embeddings (Embeddings): Of :func:`embed_stages` or
            :func:`read_features`.
        out_dir (str): Where the files go.
        permutations (int): Of the tests.
        max_pairs (int): Measure at most so many pairs, drawn at random.
        seed (int): Of all draws.
        teacher_temperature (float, optional): Of the similarities of the
            source. Defaults to None: of the config's CMD, or 0.1.
        student_temperature (float, optional): Likewise, of the target, 0.2.

    Returns:
        dict: What the json holds.

    Raises:
        ConfigError: Embeddings do not fit together, or are not finite.
        DatasetError: There are fewer than 4 groups of pairs.
    """
    number = len(embeddings.groups)
    generator = torch.Generator().manual_seed(seed)
    kept = torch.randperm(number, generator=generator)[:max_pairs].sort()[0]
    groups = join_groups(embeddings.groups[kept].tolist())
    stages = {
        name: tuple(rows[kept] for rows in sides)
        for name, sides in embeddings.stages.items()
    }
    teacher, student = embeddings.temperatures or (0.1, 0.2)
    settings = Settings(
        teacher_temperature or teacher,
        student_temperature or student,
        permutations,
        seed,
    )
    bar = progress_bar(len(stages) * len(MEASURES))
    found = {
        name: measure_distance(*sides, groups, settings, bar.update)
        for name, sides in stages.items()
    }
    bar.file.write('\n')
    report = dict(
        space=embeddings.space,
        places_student=embeddings.places_student,
        pairs=len(kept),
        pairs_available=number,
        groups=int(groups.max()) + 1,
        widths={n: [r.shape[1] for r in s] for n, s in stages.items()},
        settings=asdict(settings),
        temperatures_from_config=embeddings.temperatures is not None,
        stages=found,
    )
    out_dir = Path(out_dir)
    text = json.dumps(report, indent=2, allow_nan=False)
    atomic_files.write_text(out_dir / 'modality_distance.json', text + '\n')
    save_distance_picture(
        out_dir / 'modality_distance.png', found, stages, groups, report
    )
    return report


def read_features(path):
    """Read features from anywhere.

    Args:
        path (str): ``.npz`` of ``source`` (N, D), ``target`` (N, D') and,
            if several pairs depend on each other, ``groups`` (N, ).

    Returns:
        Embeddings: Their only stage is 'features'.

    Raises:
        ConfigError: The file is missing, or lacks an array.
    """
    arrays = read_arrays(path, 'source=..., target=...')
    rows = [_matrix(arrays, side, path) for side in ('source', 'target')]
    groups = arrays.get('groups', np.arange(len(rows[0])))
    if not len(rows[0]) == len(rows[1]) == len(groups):
        raise ConfigError(
            f"features '{path}': source has {len(rows[0])} rows, target "
            f'{len(rows[1])} and groups {len(groups)}. Row i of all is one '
            'pair: give as many of each.'
        )
    return Embeddings(
        dict(features=tuple(rows)),
        join_groups(groups.tolist()),
        f'features of {Path(path).name}',
    )


def read_arrays(path, example):
    """Read a file of features.

    Args:
        path (str): ``.npz``.
        example (str): What is in such a file, for the message.

    Returns:
        dict[str, np.ndarray]: By name.

    Raises:
        ConfigError: It cannot be read.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (OSError, ValueError, AttributeError) as error:
        raise ConfigError(
            f"features '{path}' cannot be read as .npz: {error}. Write them "
            f'by numpy.savez(FILE, {example}).'
        ) from error


def _matrix(arrays, side, path):
    rows = arrays.get(side)
    if rows is None or rows.ndim != 2 or rows.dtype.kind not in 'fiu':
        what = (
            'nothing'
            if rows is None
            else f'shape {rows.shape} of {rows.dtype}'
        )
        raise ConfigError(
            f"features '{path}': expected an array '{side}' (N, D) of "
            f'numbers, got {what}. It has {sorted(arrays)}.'
        )
    return torch.from_numpy(rows.astype(np.float32))


def embed_stages(
    config, checkpoint=None, *, split='test', seed=0, cfg_options=None
):
    """Embed held-out pairs before training and, of a checkpoint, after.

    Rows are those that the losses compare: of the source the teacher's, with
    ``teacher_projector`` and ``source_norm``, of the target the student's,
    with ``student_projector``. 'before' is the student as the config
    initialises it with the seed. Its ``source_norm`` is the checkpoint's, so
    that the source rows are the same before and after; without a checkpoint
    it has the statistics of the pairs themselves.

    Args:
        config (str): See :func:`mmcmcd.apis.load_config`.
        checkpoint (str, optional): ``epoch_*.pth`` of a run of it.
        split (str): 'test' or 'val'. Defaults to 'test'.
        seed (int): Of the student's initial weights. Defaults to 0.
        cfg_options (dict, optional): Dotted keys and their values.

    Returns:
        Embeddings: All pairs of the split.

    Raises:
        CheckpointError: A checkpoint is missing or of another model.
        ConfigError: The config is none of a distillation of one student, or
            has no such split.
    """
    cfg = load_config(config)
    if cfg_options:
        cfg.merge_from_dict(cfg_options)
    phase_dataset_cfgs(cfg, split)
    # How each weight was initialised is of no interest here.
    if not MMLogger.check_instance_created(_LOGGER):
        MMLogger.get_instance(_LOGGER, log_level='WARNING')
    set_random_seed(seed)
    model = MODELS.build(cfg.model)
    require_distiller(model, config)
    model.init_weights()
    model.to(get_device()).eval()
    set_dataloader_defaults(cfg, f'{split}_dataloader', True, True)
    loader = Runner.build_dataloader(cfg[f'{split}_dataloader'], seed=seed)
    stages = {}
    if checkpoint is None:
        stages['before'], groups = _embed_untrained(model, loader)
    else:
        state = require_fit(model, checkpoint, 'measured')
        if model.source_norm is not None:
            model.source_norm.load_state_dict(
                {
                    key.removeprefix(_NORM): value
                    for key, value in state.items()
                    if key.startswith(_NORM)
                }
            )
        stages['before'], groups = _embed(model, loader, 'before training')
        model.load_state_dict(state, strict=False)
        stages['after'], _ = _embed(model, loader, 'after training')
    return Embeddings(stages, groups, _space(model, split), *_of_losses(model))


def _embed_untrained(model, loader):
    """Like training, normalise by the rows at hand: there are no others."""
    norm, model.source_norm = model.source_norm, None
    (source, target), groups = _embed(model, loader, 'before training')
    model.source_norm = norm
    if norm is not None:
        rows = source.to(next(model.parameters()).device)
        with torch.no_grad():
            source = apply_source_norm(norm.train(), rows, 'source_norm')
        source = source.cpu()
    return (source, target), groups


def _embed(model, loader, stage):
    """Rows of both sides (N, D), and groups (N, ), of all pairs."""
    print(f'Embedding the pairs {stage}', file=sys.stderr)
    bar = progress_bar(len(loader))
    sides, keys = ([], []), []
    for batch in loader:
        with torch.no_grad():
            samples = model.test_step(batch)
        for sample in samples:
            for rows, side in zip(sides, ('source', 'target'), strict=True):
                rows.append(sample.get(f'{side}_embedding').float().cpu())
            keys.append(pair_keys(sample, ('pair', len(keys))))
        bar.update()
    bar.file.write('\n')
    groups = join_groups(*zip(*keys, strict=True))
    return tuple(torch.stack(rows) for rows in sides), groups


def _space(model, split):
    teacher = ['the teacher']
    if 'teacher_projector' in model.teacher.module:
        teacher.append('teacher_projector')
    if model.source_norm is not None:
        teacher.append('source_norm')
    student = ['the student']
    if model.student_projector is not None:
        student.append('student_projector')
    return (
        f'{split} pairs as the losses compare them: source by '
        f'{", ".join(teacher)}; target by {", ".join(student)}; unit rows'
    )


def _of_losses(model):
    """Temperatures of the first CMD, and whether the student is placed."""
    temperatures = next(
        (
            (loss.teacher_temperature, loss.student_temperature)
            for loss in model.losses.modules()
            if isinstance(loss, CMDLoss)
        ),
        None,
    )
    return temperatures, model.places_student
