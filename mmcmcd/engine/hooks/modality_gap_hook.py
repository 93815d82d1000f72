from collections.abc import Hashable

import torch
from mmengine.dist import (
    broadcast_object_list,
    collect_results,
    get_rank,
    is_main_process,
)
from mmengine.hooks import Hook
from torch import Tensor

from mmcmcd.errors import ConfigError
from mmcmcd.evaluation.functional import (
    alignment_rows,
    centroid_gap,
    held_out_accuracy,
    join_groups,
    linear_cka,
    median_distance,
    mmd_squared,
    split_groups,
    tv_similarity_rows,
    uniformity,
)
from mmcmcd.evaluation.functional.cosine import unit_rows
from mmcmcd.registry import HOOKS

# Fewest groups whose held-out half says anything.
_FEWEST = 8
_SHARED = ('group_index', 'source_path', 'target_path')


def pair_keys(sample, own) -> tuple[Hashable, ...]:
    """What pairs that are not independent of each other share.

    Args:
        sample (DataSample): Of a pair.
        own (tuple): Tells the pair from all others; stands for what it lacks.

    Returns:
        tuple: Its group and its two files.
    """
    return tuple(sample.get(key, own) for key in _SHARED)


@HOOKS.register_module()
class ModalityGapHook(Hook):
    """Log how far apart source and target lie, at each validation.

    From the embeddings that a validated
    :class:`~mmcmcd.models.distillers.CrossModalDistiller` gives, that is the
    rows that its losses compare, it adds ``gap_tv_lower``, ``gap_mmd``,
    ``gap_centroid``, ``gap_alignment``, ``gap_tv_similarity``, ``gap_cka``,
    ``gap_uniformity_source`` and ``gap_uniformity_target`` to the metrics,
    and so to the log and to ``vis_data``. They are those of
    ``tools/analysis_tools/modality_distance.py`` without intervals and
    tests: a linear classifier, ``gap_cka`` debiased, ``gap_tv_similarity``
    in the within form. Where the two sides differ in dimension, the first
    four are left out. Pairs of all processes count.

    Args:
        interval (int): Measure at every so many validations, the first one
            included. Defaults to 1.
        max_pairs (int): Of so many pairs, the same ones each time. Defaults
            to 512.
        teacher_temperature (float): Of ``gap_tv_similarity``. Defaults to
            0.1.
        student_temperature (float): Likewise. Defaults to 0.2.

    Raises:
        ConfigError: A value is out of range, the model gives no embeddings,
            or the validation set has fewer than 8 groups of pairs.
    """

    # As KNNHook: metrics are logged by the hooks of the next priority.
    priority = 'HIGHEST'

    def __init__(
        self,
        interval: int = 1,
        max_pairs: int = 512,
        teacher_temperature: float = 0.1,
        student_temperature: float = 0.2,
    ) -> None:
        for name, value, least in (
            ('interval', interval, 1),
            ('max_pairs', max_pairs, _FEWEST),
        ):
            if not isinstance(value, int) or value < least:
                raise ConfigError(
                    f'ModalityGapHook: {name} must be an integer of {least} '
                    f'or more, got {value!r}.'
                )
        if not min(teacher_temperature, student_temperature) > 0:
            raise ConfigError(
                'ModalityGapHook: temperatures must be positive, got '
                f'teacher_temperature={teacher_temperature} and '
                f'student_temperature={student_temperature}.'
            )
        self.interval = interval
        self.max_pairs = max_pairs
        self.temperatures = (teacher_temperature, student_temperature)
        self._validations = 0
        self._pairs = []

    def before_val_epoch(self, runner) -> None:
        """Begin anew."""
        self._pairs = []

    def after_val_iter(
        self, runner, batch_idx, data_batch=None, outputs=None
    ) -> None:
        """Keep the embeddings of one batch."""
        if self._validations % self.interval:
            return
        for sample in outputs:
            if 'source_embedding' not in sample:
                raise ConfigError(
                    'ModalityGapHook needs validated pairs with embeddings '
                    'of both sides, such as those of '
                    'mmcmcd.CrossModalDistiller; the model of this run '
                    'gives none. Remove the hook.'
                )
            # Pickled, a view would bring the whole batch along.
            rows = [
                sample.get(f'{side}_embedding').float().cpu().clone()
                for side in ('source', 'target')
            ]
            # What a sample lacks it shares with nobody.
            own = (get_rank(), batch_idx, len(self._pairs))
            self._pairs.append((*rows, *pair_keys(sample, own)))

    def after_val_epoch(self, runner, metrics=None) -> None:
        """Measure, and add the figures to the metrics."""
        self._validations += 1
        if (self._validations - 1) % self.interval:
            return
        size = len(runner.val_dataloader.dataset)
        pairs = collect_results(self._pairs, size, 'cpu')
        self._pairs = []
        result = [None]
        if is_main_process():
            try:
                result = [self._measure(pairs)]
            except ConfigError as error:
                # The others wait for a result; all are to raise.
                result = [str(error)]
        broadcast_object_list(result)
        if isinstance(result[0], str):
            raise ConfigError(result[0])
        metrics.update(result[0])

    def _measure(self, pairs: list[tuple]) -> dict[str, float]:
        """Figures by their names in the log."""
        generator = torch.Generator().manual_seed(0)
        order = torch.randperm(len(pairs), generator=generator)
        pairs = [pairs[index] for index in order[: self.max_pairs]]
        source, target, *shared = zip(*pairs, strict=True)
        groups = join_groups(*shared)
        number = int(groups.max()) + 1
        if number < _FEWEST:
            raise ConfigError(
                f'ModalityGapHook: the {len(pairs)} validated pairs are '
                f'{number} groups, but a held-out half needs {_FEWEST} or '
                'more. Validate on more pairs, or remove the hook.'
            )
        source, target = (unit_rows(torch.stack(r)) for r in (source, target))
        figures = self.figures(source, target, groups, generator)
        return {f'gap_{name}': value for name, value in figures.items()}

    def figures(
        self,
        source: Tensor,
        target: Tensor,
        groups: Tensor,
        generator: torch.Generator,
    ) -> dict[str, float]:
        """Compute the figures.

        Args:
            source (Tensor): Unit rows (N, D).
            target (Tensor): Unit rows (N, D').
            groups (Tensor): Numbers of the pairs' groups, from 0, (N, ).
            generator (torch.Generator): Of the draws.

        Returns:
            dict[str, float]: By name.
        """
        found = {}
        if source.shape[1] == target.shape[1]:
            accuracy = held_out_accuracy(
                source,
                target,
                groups,
                split_groups(groups, generator),
                source.new_ones(len(source), 1),
            )
            width = median_distance(torch.cat([source, target]), generator)
            found.update(
                tv_lower=max(0.0, 2 * float(accuracy.mean()) - 1),
                mmd=mmd_squared(source, target, groups, width).value,
                centroid=centroid_gap(source, target)[0],
                alignment=float(alignment_rows(source, target).mean()),
            )
        similarity, _ = tv_similarity_rows(
            source, target, groups, 'within', *self.temperatures
        )
        return dict(
            found,
            tv_similarity=float(similarity.nanmean()),
            cka=linear_cka(source, target, debiased=True),
            uniformity_source=uniformity(source, groups).value,
            uniformity_target=uniformity(target, groups).value,
        )
