import zlib
from collections.abc import Sequence

import torch
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log
from torch import Tensor

from mmcmcd.errors import ConfigError
from mmcmcd.evaluation.functional import (
    location_errors,
    neighbour_overlap,
    retrieval_figures,
)
from mmcmcd.registry import METRICS

_DIRECTIONS = (('target', 'source'), ('source', 'target'))


@METRICS.register_module()
class RegionRetrieval(BaseMetric):
    """Validation of a dense comparison: does a location find its partner?

    Figures of the locations (cells of the maps that a dense comparison of
    :class:`CrossModalDistiller` compares) of held-out pairs:

    * ``image_target2source_R@k``: the student's location asks all locations
      of the teacher's map of the same image: where is it? In percent; chance
      is ``100 * k / L`` of L locations. ``image_target2source_distance``:
      the mean distance, in cells, between its own cell and the most similar.
    * ``target2source_R@k`` and ``target2source_mAP``: it asks locations of
      all images: what is it, and where? In percent; only its own cell of its
      own image is right, so the mAP is the mean reciprocal rank.
    * ``source2target_...`` and ``image_source2target_...``: the other way
      round.
    * ``neighbours@k``: agreement of both spaces on nearest neighbours of a
      location among those of all images, in percent.

    The last one alone where both sides differ in dimension, or the loss does
    not place the student in the teacher's space (CMD within). All locations
    of an image take part in its own figures, which are those of one image at
    a time; of the others memory and time grow with the number of locations,
    so that ``locations_per_image`` are drawn, always the same ones. Images
    without a valid location take no part.

    Args:
        dense (str, optional): Which of the dense comparisons. Defaults to
            None: the only one.
        topk (Sequence[int]): The k of ``R@k``. Defaults to (1, 5).
        locations_per_image (int, optional): The most locations of an image
            that ask, and are found, among all images. Defaults to 16. None:
            all.
        num_neighbours (int): The k of ``neighbours@k``. Defaults to 10.
        seed (int): Of the draw. Defaults to 0.
        collect_device (str): As in mmengine. Defaults to 'cpu'.
        prefix (str, optional): As in mmengine. Defaults to 'region', of a
            named comparison to '<dense>_region'.

    Raises:
        ConfigError: A value is out of range, or the model has no such
            comparison.
    """

    default_prefix = 'region'

    def __init__(
        self,
        dense: str | None = None,
        topk: Sequence[int] = (1, 5),
        locations_per_image: int | None = 16,
        num_neighbours: int = 10,
        seed: int = 0,
        collect_device: str = 'cpu',
        prefix: str | None = None,
    ) -> None:
        if prefix is None and dense is not None:
            prefix = f'{dense}_{self.default_prefix}'
        super().__init__(collect_device, prefix)
        if locations_per_image is not None and locations_per_image < 1:
            raise ConfigError(
                'RegionRetrieval.locations_per_image must be None or an '
                f'integer of 1 or more, but got {locations_per_image!r}.'
            )
        self.dense = dense
        self.topk = tuple(topk)
        self.locations_per_image = locations_per_image
        self.num_neighbours = num_neighbours
        self.seed = seed

    def process(self, data_batch, data_samples: Sequence[dict]) -> None:
        """Keep figures within each image, and rows of some locations."""
        for sample in data_samples:
            regions = self._regions(sample)
            sides = {s: regions[s].float() for s in ('source', 'target')}
            found = {}
            if _are_comparable(regions) and len(regions['cells']):
                found = {
                    f'{query}2{other}': location_errors(
                        sides[query], sides[other], regions['cells']
                    )
                    for query, other in _DIRECTIONS
                }
            chosen = self._draw(len(regions['cells']), sample['pair_id'])
            self.results.append(
                dict(
                    # Indexing copies: a view would bring the batch along.
                    rows={s: rows.cpu()[chosen] for s, rows in sides.items()},
                    errors={
                        direction: [values.cpu() for values in errors]
                        for direction, errors in found.items()
                    },
                )
            )

    def _regions(self, sample: dict) -> dict:
        """What the wanted comparison compares in one image."""
        regions = sample.get('regions', {})
        if self.dense is None and len(regions) == 1:
            return next(iter(regions.values()))
        if self.dense not in regions:
            raise ConfigError(
                f'RegionRetrieval has dense={self.dense!r}, but the dense '
                f'comparisons of the model are {sorted(regions) or "none"}. '
                + (
                    'Name one of them.'
                    if regions
                    else 'Add model.dense, or leave this metric out.'
                )
            )
        return regions[self.dense]

    def _draw(self, number: int, pair_id: str) -> Tensor:
        """Choose locations, in any process and order of images the same."""
        text = f'{self.seed} {pair_id}'
        generator = torch.Generator().manual_seed(zlib.crc32(text.encode()))
        order = torch.randperm(number, generator=generator)
        return order[: self.locations_per_image]

    def compute_metrics(self, results: list[dict]) -> dict[str, float]:
        """Compute the figures over all pairs."""
        found = [r for r in results if len(r['rows']['target'])]
        if len(found) < len(results):
            print_log(
                f'{len(results) - len(found)} of {len(results)} images have '
                'no valid location and take no part in the figures of '
                'regions.',
                logger='current',
            )
        if not found:
            return {}
        rows = {
            side: torch.cat([r['rows'][side] for r in found])
            for side in ('source', 'target')
        }
        metrics = {}
        for query, other in _DIRECTIONS:
            direction = f'{query}2{other}'
            if direction in found[0]['errors']:
                errors = [r['errors'][direction] for r in found]
                metrics.update(
                    self._retrieval(direction, rows[query], rows[other])
                )
                metrics.update(self._localization(direction, errors))
        k = self.num_neighbours
        if len(rows['source']) > k:
            metrics[f'neighbours@{k}'] = neighbour_overlap(
                rows['source'], rows['target'], k
            )
        return metrics

    def _retrieval(
        self, direction: str, queries: Tensor, gallery: Tensor
    ) -> dict[str, float]:
        """Figures among all images, of paired rows (N, D)."""
        own = torch.arange(len(queries))
        found = retrieval_figures(queries, gallery, own, own, self.topk)
        return {f'{direction}_{key}': found[key] for key in found}

    def _localization(
        self, direction: str, errors: list[list[Tensor]]
    ) -> dict[str, float]:
        """Figures within the own image, of ranks and distances by image."""
        ranks, distances = map(torch.cat, zip(*errors, strict=True))
        found = {
            f'R@{k}': 100 * (ranks <= k).double().mean().item()
            for k in self.topk
        }
        found['distance'] = distances.double().mean().item()
        return {f'image_{direction}_{key}': found[key] for key in found}


def _are_comparable(regions: dict) -> bool:
    same_width = regions['source'].shape[1] == regions['target'].shape[1]
    return same_width and regions['places_student']
