"""Embed held-out pairs with teacher and student, and show what comes out."""

import csv
import logging
from pathlib import Path

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log
from mmengine.registry import DATASETS

from ..analysis import (
    GalleryRow,
    Hit,
    project_to_plane,
    rank_partners,
    require_projection,
    save_feature_map,
    save_retrieval_gallery,
    unique_files,
)
from ..datasets import PairedModalityDataset
from ..errors import ConfigError
from ..models.distillers import CrossModalDistiller
from .browse import as_picture, trace_pipeline
from .cli import load_config
from .dataset_configs import phase_dataset_cfgs
from .test import build_test_runner, prepare_test_config

DIRECTIONS = {
    'target2source': ('target', 'source'),
    'source2target': ('source', 'target'),
}


class _PairCollector(BaseMetric):
    """Keep what :meth:`CrossModalDistiller.predict` says of every pair."""

    default_prefix = 'pairs'

    def process(self, data_batch, data_samples):
        for sample in data_samples:
            label = sample.get('gt_label')
            self.results.append(
                dict(
                    source=sample['source_path'],
                    target=sample['target_path'],
                    label=None if label is None else int(label[0]),
                    source_row=sample['source_embedding'].float().cpu(),
                    target_row=sample['target_embedding'].float().cpu(),
                )
            )

    def compute_metrics(self, results):
        self.pairs = results
        return {}


def _require_pairs(dataset, name, split):
    kind = DATASETS.get(dataset['type'])
    if kind is not None and not issubclass(kind, PairedModalityDataset):
        raise ConfigError(
            f"config '{name}': {split}_dataloader has a {kind.__name__}, but "
            'only pairs have two sides to compare. A config of joint training '
            'validates on the target alone: give it the loader of pairs of '
            'the config that it inherits, as in configs/cmcd/'
            'depth_nyu_dense.py.'
        )


def require_distiller(model, name):
    """Stop at a model that embeds other than one source and one target.

    Args:
        model (nn.Module): What a config builds.
        name (str): Of the config.

    Raises:
        ConfigError: It is none of one teacher and one student.
    """
    if not isinstance(model, CrossModalDistiller):
        raise ConfigError(
            f"config '{name}' builds a {type(model).__name__}; "
            'expected a config of mmcmcd.CrossModalDistiller, one teacher and '
            'one student, such as configs/cmcd/sketch_sketchy.py.'
        )


def build_distiller_runner(
    cfg, name, checkpoint, *, split='test', work_dir=None
):
    """Build a runner to look at the pairs of one split, without metrics.

    Args:
        cfg (Config): A distillation config; changed in place.
        name (str): Its name or path.
        checkpoint (str): ``epoch_*.pth`` of a run of it.
        split (str): 'test' or 'val'. Defaults to 'test'.
        work_dir (str, optional): Where the log goes.

    Returns:
        Runner: Ready for ``runner.test()`` on the split.

    Raises:
        CheckpointError: The checkpoint is missing or of another model.
        ConfigError: The config is none of a distillation, has no such split,
            or its split has no pairs.
    """
    for dataset in phase_dataset_cfgs(cfg, split):
        _require_pairs(dataset, name, split)
    cfg.test_dataloader = cfg[f'{split}_dataloader']
    cfg.test_cfg = dict(type='TestLoop')
    cfg.test_evaluator = []
    # Those of the config would evaluate, and demand more than pairs.
    cfg.custom_hooks, cfg.default_hooks = [], {}
    prepare_test_config(cfg, name, checkpoint, work_dir=work_dir)
    runner = build_test_runner(cfg, checkpoint)
    require_distiller(runner.model, name)
    return runner


def embed_pairs(cfg, name, checkpoint, *, split='test', work_dir=None):
    """Embed the pairs of one split with teacher and student.

    Args:
        cfg (Config): See :func:`build_distiller_runner`.
        name (str): As there.
        checkpoint (str): As there.
        split (str): As there.
        work_dir (str, optional): As there.

    Returns:
        EmbeddedPairs: All pairs of the split.

    Raises:
        CheckpointError: See :func:`build_distiller_runner`.
        ConfigError: As there; or teacher and student embed in spaces of
            different size.
    """
    datasets = phase_dataset_cfgs(cfg, split)
    runner = build_distiller_runner(
        cfg, name, checkpoint, split=split, work_dir=work_dir
    )
    if not any(
        getattr(loss, 'places_student', True)
        for loss in runner.model.losses.values()
    ):
        print_log(
            'These losses leave open how the student is turned against the '
            'teacher (CMD within): what a query finds in the other modality '
            'is chance. CMC or the cross form of CMD would place it.',
            logger='current',
            level=logging.WARNING,
        )
    collector = _PairCollector()
    runner.test_evaluator.metrics.append(collector)
    runner.test()
    classes = DATASETS.build(datasets[0]).metainfo.get('classes') or ()
    return unique_files(collector.pairs, tuple(classes))


def visualize_pairs(
    config,
    checkpoint,
    out_dir,
    *,
    split='test',
    num_queries=8,
    topk=5,
    directions=('target2source',),
    method='tsne',
    max_pairs=1000,
    seed=0,
    cfg_options=None,
):
    """Draw what a query finds, and where both modalities lie.

    Writes ``retrieval_<direction>.png`` and ``.csv`` (all queries) and
    ``features_<method>.png`` and ``.csv``.

    Args:
        config (str): See :func:`mmcmcd.apis.load_config`.
        checkpoint (str): See :func:`embed_pairs`.
        out_dir (str): Where the files go.
        split (str): 'test' or 'val'.
        num_queries (int): Rows of the gallery, drawn at random.
        topk (int): Its columns, and how many files a query has in the csv.
        directions (Sequence[str]): Keys of ``DIRECTIONS``.
        method (str): 'tsne' or 'umap'.
        max_pairs (int): The 2-D picture shows at most so many pairs, drawn
            at random. Retrieval is always among all.
        seed (int): Of both draws, and of the method.
        cfg_options (dict, optional): Dotted keys and their values.

    Returns:
        list[str]: The files written.

    Raises:
        ConfigError: See :func:`embed_pairs`; or the method's package is not
            installed.
    """
    require_projection(method)
    cfg = load_config(config)
    if cfg_options:
        cfg.merge_from_dict(cfg_options)
    out_dir = Path(out_dir)
    pairs = embed_pairs(
        cfg, config, checkpoint, split=split, work_dir=str(out_dir / 'log')
    )
    pictures = _PairPictures(cfg, split)
    generator = np.random.default_rng(seed)
    written = []
    for direction in directions:
        sides = DIRECTIONS[direction]
        ranking = rank_partners(pairs, *sides, topk)
        number = len(ranking.rank)
        chosen = np.sort(
            generator.permutation(number)[: min(num_queries, number)]
        )
        path = out_dir / f'retrieval_{direction}'
        _write_ranking(path.with_suffix('.csv'), pairs, sides, ranking)
        save_retrieval_gallery(
            path.with_suffix('.png'),
            _gallery_rows(pairs, sides, ranking, chosen, pictures),
            f'{len(chosen)} of {number} {sides[0]} queries (seed {seed}) '
            f'among {len(pairs.sides[sides[1]].files)} {sides[1]} files, '
            f'{split} set',
        )
        written += [path.with_suffix('.png'), path.with_suffix('.csv')]
    shown = pairs
    if len(pairs) > max_pairs:
        indices = generator.choice(len(pairs), max_pairs, replace=False)
        shown = pairs.subset(np.sort(indices))
    path = out_dir / f'features_{method}'
    points, setting = _project(shown, method, seed)
    save_feature_map(
        path.with_suffix('.png'),
        points,
        shown.links,
        f'{setting}, {len(shown)} {split} pairs, seed {seed}',
        labels=shown.labels,
        classes=shown.classes,
    )
    _write_points(path.with_suffix('.csv'), shown, points)
    written += [path.with_suffix('.png'), path.with_suffix('.csv')]
    return [str(path) for path in written]


def _project(pairs, method, seed):
    rows = [side.embeddings for side in pairs.sides.values()]
    plane, setting = project_to_plane(torch.cat(rows).numpy(), method, seed)
    cut = np.cumsum([len(part) for part in rows])[:-1]
    points = np.split(plane, cut)
    return dict(zip(pairs.sides, points, strict=True)), setting


def _gallery_rows(pairs, sides, ranking, chosen, pictures):
    query_side, gallery_side = sides
    queries = pairs.sides[query_side].files
    gallery = pairs.sides[gallery_side].files

    def image(index):
        return pictures.load(gallery_side, gallery[index])

    rows = []
    for query in chosen:
        hits = [
            Hit(image(index), float(similarity), bool(partner))
            for index, similarity, partner in zip(
                ranking.top[query],
                ranking.similarity[query],
                ranking.is_partner[query],
                strict=True,
            )
        ]
        rows.append(
            GalleryRow(
                pictures.load(query_side, queries[query]),
                hits,
                image(ranking.partner[query]),
                int(ranking.rank[query]),
            )
        )
    return rows


def _write_ranking(path, pairs, sides, ranking):
    queries, gallery = (pairs.sides[side].files for side in sides)
    with path.open('w', newline='') as file:
        table = csv.writer(file)
        table.writerow(
            ('query', 'partner_rank', 'place', 'file', 'cosine', 'is_partner')
        )
        for number, query in enumerate(queries):
            for place, index in enumerate(ranking.top[number]):
                table.writerow(
                    (
                        query,
                        ranking.rank[number],
                        place + 1,
                        gallery[index],
                        f'{ranking.similarity[number, place]:.6f}',
                        int(ranking.is_partner[number, place]),
                    )
                )


def _write_points(path, pairs, points):
    """One pair a row: both files, the class, both points."""
    with path.open('w', newline='') as file:
        table = csv.writer(file)
        header = ['source', 'target', 'label', 'class']
        table.writerow([*header, *(f'{s}_{a}' for s in points for a in 'xy')])
        for number in range(len(pairs)):
            own = {side: pairs.links[side][number] for side in points}
            label = '' if pairs.labels is None else pairs.labels[number]
            named = pairs.classes and label != ''
            table.writerow(
                [
                    *(pairs.sides[side].files[i] for side, i in own.items()),
                    label,
                    pairs.classes[label] if named else '',
                    *(
                        f'{value:.6f}'
                        for side, i in own.items()
                        for value in points[side][i]
                    ),
                ]
            )


class _PairPictures:
    """The images of a split as its pipeline loads them, by file."""

    def __init__(self, cfg, split):
        self._datasets = [
            DATASETS.build(leaf) for leaf in phase_dataset_cfgs(cfg, split)
        ]
        self._places = {}
        for dataset in self._datasets:
            for index in range(len(dataset)):
                info = dataset.get_data_info(index)
                for side in ('source', 'target'):
                    key = side, info[side]['img_path']
                    self._places.setdefault(key, (dataset, index))

    def load(self, side, file):
        """Return the picture (H, W, 3) uint8 RGB of one file."""
        dataset, index = self._places[side, file]
        _, stages = trace_pipeline(dataset, index)
        return as_picture(stages[0]['sides'][side])[..., ::-1]
