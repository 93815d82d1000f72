"""Figures of the distance of two modalities, with intervals."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from ..errors import ConfigError, DatasetError
from ..evaluation.functional import (
    alignment_rows,
    centroid_gap,
    cka_jackknife,
    held_out_accuracy,
    median_distance,
    mmd_squared,
    random_signs,
    split_groups,
    tv_similarity_rows,
    uniformity,
)
from ..evaluation.functional.cosine import unit_rows

# Name: title, range, and what it is where both modalities are equal.
MEASURES = dict(
    tv_lower=('TV, lower bound, linear', (0, 1), '0'),
    tv_lower_rbf=('TV, lower bound, RBF', (0, 1), '0'),
    tv_similarity_within=('TV of similarities, within', (0, 1), '0 *'),
    tv_similarity_cross=('TV of similarities, cross', (0, 1), '0 *'),
    mmd=('MMD squared, unbiased', (None, 4), '0'),
    centroid=('distance of centroids', (0, 2), 'near 0'),
    alignment=('alignment', (0, 4), '0'),
    cka=('linear CKA', (0, 1), '1'),
    cka_debiased=('linear CKA, debiased', (None, 1), '1'),
    uniformity_source=('uniformity of source', (-8, 0), 'equal'),
    uniformity_target=('uniformity of target', (-8, 0), 'equal'),
)
# Rows whose similarities make one distribution, and how often at most.
BATCH, MOST_BATCHES = 256, 16
# Features of the second classifier, and blocks of CKA's jackknife.
_RANDOM_FEATURES, _BLOCKS = 512, 20
_CONFIDENCE = 0.95


@dataclass
class Settings:
    """What the figures depend on besides the embeddings.

    Attributes:
        teacher_temperature (float): Of the similarities of the source.
        student_temperature (float): Of the similarities of the target.
        permutations (int): Of the tests; 0 leaves them out.
        seed (int): Of all draws.
    """

    teacher_temperature: float = 0.1
    student_temperature: float = 0.2
    permutations: int = 200
    seed: int = 0


def measure_distance(
    source: Tensor,
    target: Tensor,
    groups: Tensor,
    settings: Settings,
    step: Callable = lambda: None,
    names: Iterable[str] = tuple(MEASURES),
) -> dict[str, dict]:
    """Measure how far apart source and target lie.

    Rows are divided by their lengths first, as the losses do.

    Args:
        source (Tensor): (N, D).
        target (Tensor): (N, D'); row ``i`` of both is one pair.
        groups (Tensor): Numbers from 0 of independent groups of pairs, (N, ).
        settings (Settings): The rest.
        step (Callable): Called after each figure.
        names (Iterable[str]): Figures, of ``MEASURES``. Defaults to all.

    Returns:
        dict[str, dict]: By these names: ``value``, ``low`` and
        ``high`` (95 % interval), ``interval`` (how it was made) and, where
        there is a test, ``baseline`` (mean over permutations) and
        ``p_value``. A figure that needs one space, where D' is not D, has
        the value None and a ``reason``.

    Raises:
        ConfigError: Shapes do not fit, or an embedding is not finite.
        DatasetError: There are fewer than 4 groups.
    """
    if not len(source) == len(target) == len(groups):
        raise ConfigError(
            f'{len(source)} source rows, {len(target)} target rows and '
            f'{len(groups)} groups: expected one of each for every pair.'
        )
    rows = _Rows(
        unit_rows(source.float()),
        unit_rows(target.float()),
        groups,
        split_groups(groups, _generator(settings)),
    )
    found = {}
    for name in names:
        if name not in _ANY_WIDTH and source.shape[1] != target.shape[1]:
            found[name] = dict(
                value=None,
                reason=f'needs one space, but source rows are '
                f'{source.shape[1]} wide and target rows {target.shape[1]}',
            )
        else:
            found[name] = _clip(_COMPUTE[name](rows, settings), name)
        step()
    return found


@dataclass
class _Rows:
    source: Tensor
    target: Tensor
    groups: Tensor
    fitted: Tensor


def _generator(settings):
    return torch.Generator().manual_seed(settings.seed)


def _tv_lower(rows, settings, num_random=0):
    generator = _generator(settings)
    signs = random_signs(rows.groups, settings.permutations, generator)
    accuracy = held_out_accuracy(
        rows.source,
        rows.target,
        rows.groups,
        rows.fitted,
        torch.cat([torch.ones_like(rows.source[:, :1]), signs], dim=1),
        num_random=num_random,
        generator=generator,
    ).double()
    number, right = len(accuracy), float(accuracy[:, 0].sum())
    # A group's accuracy varies less than one throw of its mean would, so
    # the interval of Clopper and Pearson is on the safe side.
    low, high = (
        _proportion(right, number, quantile) for quantile in (0.025, 0.975)
    )
    bound, *permuted = (2 * accuracy.mean(dim=0) - 1).tolist()
    return dict(
        value=bound,
        low=2 * low - 1,
        high=2 * high - 1,
        interval='Clopper-Pearson over held-out groups, for this classifier',
        lower_limit=max(0.0, 2 * _proportion(right, number, 0.05) - 1),
        accuracy=right / number,
        held_out_groups=number,
        **_test(bound, permuted),
    )


def _proportion(successes, number, quantile):
    """Limit of Clopper and Pearson (Biometrika 1934) of a proportion."""
    upper = quantile > 0.5
    a, b = successes + upper, number - successes + (not upper)
    if not a or not b:
        return float(upper)
    return float(stats.beta.ppf(quantile, a, b))


def _tv_similarity(rows, settings, form):
    size = len(rows.groups)
    batch = min(BATCH, size)
    order = torch.randperm(size, generator=_generator(settings))
    order = order[: size // batch * batch].split(batch)[:MOST_BATCHES]
    parts = [
        tv_similarity_rows(
            rows.source[part],
            rows.target[part],
            rows.groups[part],
            form,
            settings.teacher_temperature,
            settings.student_temperature,
        )
        for part in order
    ]
    tv, divergence = map(torch.cat, zip(*parts, strict=True))
    known, order = tv.isfinite(), torch.cat(order)
    if not known.any():
        raise DatasetError(
            'No pair has one of another group in its batch, so there is no '
            'distribution of similarities. Measure more groups.'
        )
    result = _mean(tv[known], rows.groups[order[known]])
    divergence = divergence[known].double().mean().clamp_min(0)
    return dict(
        result,
        interval=result['interval'] + ', given the rows of their batch',
        pinsker_bound=float((divergence / 2).sqrt()),
        batch=batch,
        rows=int(known.sum()),
        teacher_temperature=settings.teacher_temperature,
        student_temperature=settings.student_temperature,
    )


def _mmd(rows, settings):
    generator = _generator(settings)
    pooled = torch.cat([rows.source, rows.target])
    width = median_distance(pooled, generator)
    signs = random_signs(rows.groups, settings.permutations, generator)
    found = mmd_squared(rows.source, rows.target, rows.groups, width, signs)
    return dict(
        _interval(found.value, found.influence, rows.groups),
        width=width,
        **_test(found.value, found.signed.tolist()),
    )


def _centroid(rows, settings):
    value, influence = centroid_gap(rows.source, rows.target)
    signs = random_signs(
        rows.groups, settings.permutations, _generator(settings)
    )
    swapped = signs.T @ (rows.source - rows.target) / len(signs)
    return dict(
        _interval(value, influence, rows.groups),
        **_test(value, torch.linalg.vector_norm(swapped, dim=1).tolist()),
    )


def _alignment(rows, settings):
    return _mean(alignment_rows(rows.source, rows.target), rows.groups)


def _uniformity(rows, settings, side):
    found = uniformity(getattr(rows, side), rows.groups)
    return _interval(found.value, found.influence, rows.groups)


def _cka(rows, settings, debiased):
    number = int(rows.groups.max()) + 1
    order = torch.randperm(number, generator=_generator(settings))
    blocks = min(_BLOCKS, number)
    value, without = cka_jackknife(
        rows.source, rows.target, (order % blocks)[rows.groups], debiased
    )
    spread = (blocks - 1) * float(without.var(correction=0))
    half = np.sqrt(spread) * _t(blocks - 1)
    return dict(
        value=value,
        low=value - half,
        high=value + half,
        interval=f'jackknife over {blocks} blocks of groups',
    )


def _mean(values, groups):
    values = values.double()
    mean = float(values.mean())
    return _interval(mean, values - mean, groups)


def _interval(value, influence, groups):
    """Student-t interval of a mean over pairs that depend within groups."""
    influence = influence.double()
    _, place = groups.unique(return_inverse=True)
    number = int(place.max()) + 1
    sums = influence.new_zeros(number).index_add_(0, place, influence)
    spread = number / max(number - 1, 1) * float(sums.square().sum())
    half = np.sqrt(spread) / len(influence) * _t(number - 1)
    return dict(
        value=value,
        low=value - half,
        high=value + half,
        interval='Student t over groups of pairs',
    )


def _t(freedom):
    return float(stats.t.ppf((1 + _CONFIDENCE) / 2, freedom))


def _test(value, permuted):
    """Permutation test (Phipson and Smyth 2010: the data is one of them)."""
    if not permuted:
        return {}
    # Swaps that change nothing differ by rounding.
    reached = sum(other >= value - 1e-9 for other in permuted)
    return dict(
        baseline=float(np.mean(permuted)),
        p_value=(1 + reached) / (1 + len(permuted)),
    )


def _clip(result, name):
    """Keep a figure and its interval in the range of the measure."""
    lowest, highest = MEASURES[name][1]
    for key in ('value', 'low', 'high'):
        if np.isfinite(result[key]):
            result[key] = float(np.clip(result[key], lowest, highest))
        else:
            result[key] = None
    if result['value'] is None:
        result['reason'] = 'an embedding is constant, or too few pairs'
    return result


_COMPUTE = dict(
    tv_lower=_tv_lower,
    tv_lower_rbf=lambda r, s: _tv_lower(r, s, _RANDOM_FEATURES),
    tv_similarity_within=lambda r, s: _tv_similarity(r, s, 'within'),
    tv_similarity_cross=lambda r, s: _tv_similarity(r, s, 'cross'),
    mmd=_mmd,
    centroid=_centroid,
    alignment=_alignment,
    cka=lambda r, s: _cka(r, s, debiased=False),
    cka_debiased=lambda r, s: _cka(r, s, debiased=True),
    uniformity_source=lambda r, s: _uniformity(r, s, 'source'),
    uniformity_target=lambda r, s: _uniformity(r, s, 'target'),
)
# Each of these looks at similarities within either side.
_ANY_WIDTH = {
    'tv_similarity_within',
    'cka',
    'cka_debiased',
    'uniformity_source',
    'uniformity_target',
}
