"""Show where locations of a target are found in the source of its pair."""

import logging
from pathlib import Path

import numpy as np
import torch
from mmengine.dataset import pseudo_collate
from mmengine.logging import print_log
from mmengine.registry import DATASETS

from ..analysis import (
    Correspondence,
    save_correspondence_picture,
    spread_cells,
)
from ..errors import ConfigError
from ..evaluation.functional.cosine import unit_rows
from .browse import as_picture, trace_pipeline
from .cli import load_config
from .dataset_configs import phase_dataset_cfgs
from .paired_features import build_distiller_runner


def visualize_correspondence(
    config,
    checkpoint,
    out,
    *,
    dense=None,
    split='test',
    pairs=4,
    pair_ids=None,
    points=5,
    cfg_options=None,
):
    """Draw what locations of the student's map find in the teacher's.

    Args:
        config (str): See :func:`mmcmcd.apis.load_config`.
        checkpoint (str): ``epoch_*.pth`` of a run of it.
        out (str): The picture to write; a log goes to ``log`` beside it.
        dense (str, optional): Name of the dense comparison. Defaults to
            None: the only one.
        split (str): 'test' or 'val'. Defaults to 'test'.
        pairs (int): How many pairs, spread evenly over the split.
        pair_ids (Sequence[str], optional): Which pairs instead.
        points (int | Sequence[tuple[float, float]]): How many locations of a
            pair, spread over the valid ones; or which, as shares x, y from 0
            to 1 of width and height of the target, as the student sees it.
        cfg_options (dict, optional): Dotted keys and their values.

    Returns:
        str: The file written.

    Raises:
        CheckpointError: The checkpoint is missing or of another model.
        ConfigError: The config is none of a distillation, lacks the split,
            the dense comparison or a pair; both sides differ in dimension;
            or a point has no valid location.
    """
    cfg = load_config(config)
    if cfg_options:
        cfg.merge_from_dict(cfg_options)
    out = Path(out)
    runner = build_distiller_runner(
        cfg,
        config,
        checkpoint,
        split=split,
        work_dir=str(out.parent / 'log'),
    )
    model = runner.model
    dense = _choose_dense(model, dense, config)
    items = _find_pairs(cfg, split, pairs, pair_ids)
    runner.load_or_resume()
    model.eval()
    rows = [
        _correspondence(model, dataset, index, dense, points)
        for dataset, index in items
    ]
    save_correspondence_picture(
        out,
        rows,
        f'{dense}: locations of the target (numbers) in the source, '
        f'{split} set',
    )
    return str(out)


def _choose_dense(model, name, config):
    names = sorted(getattr(model, 'dense', {}))
    if not names:
        raise ConfigError(
            f"config '{config}' has no dense comparison, so that there are no "
            'locations to compare: expected model.dense, as in '
            'configs/cmcd/depth_nyu_dense.py.'
        )
    if name is None and len(names) == 1:
        (name,) = names
    if name not in names:
        raise ConfigError(
            f"config '{config}' has the dense comparisons {names}, "
            f'not {name!r}: choose one of them by --dense.'
        )
    return name


def _find_pairs(cfg, split, number, pair_ids):
    """Data sets and indices of the wanted pairs."""
    datasets = [DATASETS.build(c) for c in phase_dataset_cfgs(cfg, split)]
    items = [(d, index) for d in datasets for index in range(len(d))]
    if pair_ids is None:
        number = min(number, len(items))
        return [items[i * len(items) // number] for i in range(number)]
    by_id = {d.get_data_info(i)['pair_id']: (d, i) for d, i in items}
    unknown = [name for name in pair_ids if name not in by_id]
    if unknown:
        raise ConfigError(
            f'The {split} set has no pair {", ".join(map(repr, unknown))}: '
            f'its {len(by_id)} pairs are {", ".join(list(by_id)[:5])} and so '
            'on. Choose --pair-ids among them, or another --split.'
        )
    return [by_id[name] for name in pair_ids]


def _correspondence(model, dataset, index, dense, points):
    """Run the model on one pair, and compare some of its locations."""
    name, stages = trace_pipeline(dataset, index)
    data = model.data_preprocessor(pseudo_collate([dataset[index]]), False)
    with torch.no_grad():
        (sample,) = model(**data, mode='predict')
    regions = sample.regions[dense]
    _require_one_space(regions, dense)
    cells = regions['cells'].cpu().numpy()
    chosen = _choose_cells(cells, regions['grid'], points, name)
    queries, gallery = (
        unit_rows(regions[side].float()).cpu() for side in ('target', 'source')
    )
    similarity = np.full((len(chosen), *regions['grid']), np.nan)
    similarity[:, cells[:, 0], cells[:, 1]] = queries[chosen] @ gallery.T
    pictures = {
        side: _as_seen(stages[-1]['sides'][side], images.shape[2:])
        for side, images in data['inputs'].items()
    }
    return Correspondence(
        name, **pictures, cells=cells[chosen], similarity=similarity
    )


def _require_one_space(regions, dense):
    widths = [regions[side].shape[1] for side in ('source', 'target')]
    if widths[0] != widths[1]:
        raise ConfigError(
            f'dense comparison {dense!r}: the locations of the teacher have '
            f'{widths[0]} dimensions and those of the student {widths[1]}: '
            'they cannot be compared. Distil with CMC or cross CMD, which '
            f'need one space (model.dense.{dense}.projector).'
        )
    if not regions['places_student']:
        print_log(
            f'The loss of {dense} leaves open how the student is turned '
            'against the teacher (CMD within): what a location finds is '
            'chance. CMC or the cross form of CMD would place it.',
            logger='current',
            level=logging.WARNING,
        )


def _choose_cells(cells, grid, points, name):
    """Indices of the cells that are asked for."""
    if not len(cells):
        raise ConfigError(
            f'pair {name!r} has no location with enough valid pixels. Choose '
            'other pairs by --pair-ids.'
        )
    if isinstance(points, int):
        return spread_cells(cells, grid, points)
    chosen = []
    for x, y in points:
        wanted = [
            min(int(share * number), number - 1)
            for share, number in zip((y, x), grid, strict=True)
        ]
        found = (cells == wanted).all(axis=1).nonzero()[0]
        if not len(found):
            raise ConfigError(
                f'point {x},{y} of pair {name!r} is on a location without '
                'enough valid pixels. Choose another point.'
            )
        chosen.append(int(found[0]))
    return np.array(chosen)


def _as_seen(view, size):
    """RGB picture of a side, padded as the preprocessor pads its input."""
    if view.is_array:
        raise ConfigError(
            'A picture of correspondence needs two sides that are images, '
            f'but one is an array of shape {tuple(view.img.shape)}.'
        )
    picture = as_picture(view)[..., ::-1]
    missing = [n - have for n, have in zip(size, picture.shape, strict=False)]
    return np.pad(picture, [*((0, n) for n in missing), (0, 0)])
