from collections.abc import Sequence

import torch
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log

from mmcmcd.evaluation.functional import neighbour_overlap, recall_at_k
from mmcmcd.registry import METRICS


@METRICS.register_module()
class CrossModalRetrieval(BaseMetric):
    """Label-free validation: does the student find its partner?

    Figures, in percent, over held-out pairs:

    * ``R@k``: target embeddings query the teacher's source embeddings. Only
      where both have one dimension; meaningful only for losses that place
      the student in the teacher's space (CMC, cross CMD).
    * ``neighbours@k``: agreement of the two spaces on nearest neighbours;
      meaningful for every loss, the within form of CMD too.

    Args:
        topk (Sequence[int]): The k of ``R@k``. Defaults to (1, 5).
        num_neighbours (int): The k of ``neighbours@k``. Defaults to 10.
        collect_device (str): As in mmengine. Defaults to 'cpu'.
        prefix (str, optional): As in mmengine. Defaults to 'retrieval'.
    """

    default_prefix = 'retrieval'

    def __init__(
        self,
        topk: Sequence[int] = (1, 5),
        num_neighbours: int = 10,
        collect_device: str = 'cpu',
        prefix: str | None = None,
    ) -> None:
        super().__init__(collect_device, prefix)
        self.topk = tuple(topk)
        self.num_neighbours = num_neighbours

    def process(self, data_batch, data_samples: Sequence) -> None:
        """Keep the embeddings of one batch."""
        for sample in data_samples:
            self.results.append(
                (
                    sample['source_embedding'].float().cpu(),
                    sample['target_embedding'].float().cpu(),
                    sample['group_index'],
                )
            )

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Compute the figures over all pairs."""
        source, target = (torch.stack([r[i] for r in results]) for i in (0, 1))
        groups = torch.tensor([r[2] for r in results])
        metrics = {}
        if source.shape[1] == target.shape[1]:
            recalls = recall_at_k(target, source, self.topk, groups)
            metrics.update(
                {
                    f'R@{k}': recall
                    for k, recall in zip(self.topk, recalls, strict=True)
                }
            )
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
