from collections.abc import Iterable, Sequence

import torch
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log
from torch import Tensor

from mmcmcd.errors import ConfigError
from mmcmcd.evaluation.functional import neighbour_overlap, retrieval_figures
from mmcmcd.registry import METRICS


@METRICS.register_module()
class CrossModalRetrieval(BaseMetric):
    """Validation without training: does one modality find the other?

    Figures, in percent, over held-out pairs:

    * ``target2source_R@k`` and ``target2source_mAP``: the student's target
      embeddings query the teacher's source embeddings, for sketches and
      photos sketch-based image retrieval; ``source2target_...`` the other
      way round. Only where both have one dimension; meaningful only for
      losses that place the student in the teacher's space (CMC, cross CMD).
    * ``target2source_class_mAP``, ``source2target_class_mAP``: the same with
      all rows of the query's class as relevant (category-level retrieval),
      where all samples have a ``gt_label``.
    * ``neighbours@k``: agreement of the two spaces on nearest neighbours of
      a pair; meaningful for every loss, the within form of CMD too.

    A file that several pairs share (``source_path``, ``target_path``), such
    as a photo with many sketches, is one query and one gallery row. Pairs
    that share a group or a file are relevant to each other.

    Args:
        topk (Sequence[int]): The k of ``R@k``. Defaults to (1, 5, 10).
        num_neighbours (int): The k of ``neighbours@k``. Defaults to 10.
        lesson (str, optional): Which lesson of a
            :class:`MultiModalDistiller` is validated: its teacher's side is
            the source, its student's the target. Defaults to None: the two
            sides of a :class:`CrossModalDistiller`.
        collect_device (str): As in mmengine. Defaults to 'cpu'.
        prefix (str, optional): As in mmengine. Defaults to 'retrieval', of a
            lesson to '<lesson>_retrieval'.

    Raises:
        ConfigError: The model has no such lesson.
    """

    default_prefix = 'retrieval'

    def __init__(
        self,
        topk: Sequence[int] = (1, 5, 10),
        num_neighbours: int = 10,
        lesson: str | None = None,
        collect_device: str = 'cpu',
        prefix: str | None = None,
    ) -> None:
        if prefix is None and lesson is not None:
            prefix = f'{lesson}_{self.default_prefix}'
        super().__init__(collect_device, prefix)
        self.lesson = lesson
        self.topk = tuple(topk)
        self.num_neighbours = num_neighbours

    def process(self, data_batch, data_samples: Sequence[dict]) -> None:
        """Keep embeddings, files, group and class of one batch."""
        for sample in data_samples:
            pair = self._pair(sample)
            # Pickled between processes, a row that is a view would bring the
            # whole batch along.
            self.results.append(
                dict(
                    source=pair['source_embedding'].float().cpu().clone(),
                    target=pair['target_embedding'].float().cpu().clone(),
                    source_path=pair.get('source_path'),
                    target_path=pair.get('target_path'),
                    group=sample['group_index'],
                    label=_single_label(sample),
                )
            )

    def _pair(self, sample: dict) -> dict:
        """Embeddings and files of the two sides to compare."""
        lessons = sample.get('lessons', {})
        if self.lesson is None and not lessons:
            return sample
        if self.lesson not in lessons:
            raise ConfigError(
                f'CrossModalRetrieval has lesson={self.lesson!r}, but the '
                f'lessons of the model are {sorted(lessons) or "none"}. '
                + (
                    'Name one of them.'
                    if lessons
                    else 'Leave lesson out for mmcmcd.CrossModalDistiller.'
                )
            )
        return lessons[self.lesson]

    def compute_metrics(self, results: list[dict]) -> dict[str, float]:
        """Compute the figures over all pairs."""
        source, target = (
            torch.stack([r[side] for r in results])
            for side in ('source', 'target')
        )
        metrics = {}
        if source.shape[1] == target.shape[1]:
            metrics.update(self._retrieval(source, target, results))
        k = self.num_neighbours
        if len(results) > k:
            metrics[f'neighbours@{k}'] = neighbour_overlap(source, target, k)
        else:
            print_log(
                f'neighbours@{k} needs more than {k} pairs, but the '
                f'validation set has {len(results)}; it is left out.',
                logger='current',
            )
        return metrics

    def _retrieval(
        self, source: Tensor, target: Tensor, results: list[dict]
    ) -> dict[str, float]:
        """Figures of both directions from paired rows (N, D)."""
        source_files, target_files = (
            _numbers(
                index if r[key] is None else r[key]
                for index, r in enumerate(results)
            )
            for key in ('source_path', 'target_path')
        )
        groups = _numbers(r['group'] for r in results)
        relevance = _merge(groups, source_files, target_files)
        labels = [r['label'] for r in results]
        labels = None if None in labels else torch.tensor(labels)
        sides = dict(
            source=(source, _first_of_each(source_files)),
            target=(target, _first_of_each(target_files)),
        )
        metrics = {}
        for query, other in (('target', 'source'), ('source', 'target')):
            (queries, i), (gallery, j) = sides[query], sides[other]
            rows = queries[i], gallery[j]
            found = retrieval_figures(
                *rows, relevance[i], relevance[j], self.topk
            )
            if labels is not None:
                by_class = retrieval_figures(*rows, labels[i], labels[j], ())
                found['class_mAP'] = by_class['mAP']
            metrics.update({f'{query}2{other}_{k}': found[k] for k in found})
        return metrics


def _single_label(sample: dict) -> int | None:
    """The class of a sample; None without one, or with several."""
    label = sample.get('gt_label')
    return None if label is None or label.numel() != 1 else int(label)


def _numbers(values: Iterable) -> Tensor:
    """Number equal values equally (N, ), from 0 in order of appearance."""
    seen = {}
    return torch.tensor([seen.setdefault(v, len(seen)) for v in values])


def _first_of_each(numbers: Tensor) -> Tensor:
    """Index of the first row of each number, see :func:`_numbers`."""
    index = torch.arange(len(numbers))
    first = index.new_full((int(numbers.max()) + 1,), len(numbers))
    return first.scatter_reduce(0, numbers, index, 'amin')


def _merge(*partitions: Tensor) -> Tensor:
    """Join rows (N, ) that share a number in any of the partitions."""
    merged = torch.arange(len(partitions[0]))
    while True:
        before = merged
        for numbers in partitions:
            smallest = torch.full_like(merged, len(merged))
            smallest.scatter_reduce_(0, numbers, merged, 'amin')
            merged = smallest[numbers]
        if torch.equal(merged, before):
            return merged
