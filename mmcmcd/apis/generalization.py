"""Report of the terms that a student's error may come from, and advice."""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from ..analysis.modality_distance import Settings, measure_distance
from ..analysis.transfer_advice import (
    TEACHER,
    TransferFeatures,
    expected_gains,
    fit_head,
    measure_errors,
)
from ..atomic_files import write_text
from ..errors import ConfigError
from ..evaluation.functional.generalization import (
    confidence_term,
    margin_loss,
    rademacher_linear,
    rademacher_linear_monte_carlo,
)

_ADVICE = dict(
    pairs='more pairs (twice as many)',
    labels='more labels (twice as many)',
    source='another source, or a better teacher',
)


class Term(NamedTuple):
    """One line of the template.

    Attributes:
        name (str): What it is.
        value (float | None): None where a constant is unknown.
        text (str): How it came about.
    """

    name: str
    value: float | None
    text: str


def template_terms(
    data: TransferFeatures,
    *,
    num_source: int | None = None,
    delta: float = 0.05,
    draws: int = 1000,
    tv: float | None = None,
    seed: int = 0,
) -> list[Term]:
    """Compute the terms of the template, see docs/generalization.md.

    Args:
        data (TransferFeatures): Features of the student in question.
        num_source (int, optional): M, samples the teacher was trained on.
        delta (float): Chance that the first three terms are no bound.
        draws (int): Of the signs of the Monte Carlo estimate.
        tv (float, optional): Lower bound on the total variation, where it
            is known already. Defaults to None: from ``data.unseen``.
        seed (int): Of all draws.

    Returns:
        list[Term]: In the order of the template.
    """
    _, labels = np.unique(data.labels, return_inverse=True)
    features = data.labelled[data.pairs]
    head = fit_head(features, labels)
    weights, scores = _linear(head, features)
    rows = torch.from_numpy(head[:-1].transform(features))
    rows = torch.cat([rows.double(), torch.ones(len(rows), 1)], dim=1)
    radius = float(weights.norm())
    outputs = len(weights)
    closed = rademacher_linear(rows, radius, outputs)
    sampled, error = rademacher_linear_monte_carlo(
        rows, radius, outputs, draws, seed
    )
    number, pairs = len(labels), data.pairs
    return [
        Term(
            'margin loss on the labels',
            margin_loss(scores, torch.from_numpy(labels)),
            'of the fitted head, margin 1',
        ),
        Term(
            'complexity of the head',
            4 * closed,
            f'4 R_n, where R_n <= {closed:.3g} in closed form and '
            f'{sampled:.3g} ± {1.96 * error:.2g} by Monte Carlo, '
            f'B = {radius:.3g} (norm of the fitted head), n = {number}',
        ),
        Term(
            'confidence',
            confidence_term(number, delta),
            f'3 sqrt(log(2 / delta) / 2n), delta = {delta:g}',
        ),
        Term(
            'representation, source',
            None,
            'kappa L sqrt(C / M), M not given (--num-source)'
            if num_source is None
            else f'kappa L sqrt(C) times {num_source**-0.5:.3g}, '
            f'M = {num_source}, constants unknown',
        ),
        Term(
            'representation, pairs',
            None,
            f'kappa L sqrt(C) times {pairs**-0.5:.3g}, m = {pairs}, '
            'constants unknown',
        ),
        _modality_gap(data, tv, seed),
    ]


def _linear(head, features):
    """Weights (K, D + 1) of a head for standardised rows; scores (n, K)."""
    model = head[-1]
    weights = np.hstack([model.coef_, model.intercept_[:, None]])
    if len(weights) == 1:
        # Two classes have one score, the half of which favours either.
        weights = np.vstack([-weights / 2, weights / 2])
    rows = head[:-1].transform(features)
    scores = np.hstack([rows, np.ones((len(rows), 1))]) @ weights.T
    return torch.from_numpy(weights), torch.from_numpy(scores)


def _modality_gap(data, tv, seed):
    name = 'modality gap'
    if tv is not None:
        return Term(name, None, f'kappa L TV, TV >= {tv:.3g} as given')
    if data.unseen is None:
        return Term(name, None, 'kappa L TV, TV not known (--tv)')
    sides = [torch.from_numpy(np.asarray(side)) for side in data.unseen]
    found = measure_distance(
        *sides,
        torch.arange(len(sides[0])),
        Settings(permutations=0, seed=seed),
        names=['tv_lower'],
    )['tv_lower']
    if found['value'] is None:
        return Term(name, None, f'kappa L TV, TV {found["reason"]}')
    return Term(
        name,
        None,
        f'kappa L TV, TV >= {found["value"]:.3g} '
        f'[{found["low"]:.3g}, {found["high"]:.3g}] by a linear classifier '
        'on held-out pairs',
    )


def generalization_report(
    data: TransferFeatures,
    out_dir: str | Path,
    *,
    splits: int = 20,
    seed: int = 0,
    **terms,
) -> str:
    """Write ``generalization.md`` and ``generalization.json``.

    Args:
        data (TransferFeatures): What to report on.
        out_dir (str | Path): Where the files go.
        splits (int): See
            :func:`mmcmcd.analysis.transfer_advice.measure_errors`.
        seed (int): Of all draws.
        **terms: See :func:`template_terms`.

    Returns:
        str: The Markdown text.

    Raises:
        ConfigError: Features do not fit together, or are too few.
    """
    check_features(data)
    errors = measure_errors(data, splits, seed)
    lines = template_terms(data, seed=seed, **terms)
    gains = expected_gains(data, errors)
    curve = [
        dict(pairs=int(m), labels=int(n), error=float(error))
        for m, n, error in zip(
            errors.pairs,
            errors.labels,
            errors.errors.mean(axis=0),
            strict=True,
        )
    ]
    text = _markdown(lines, curve, gains)
    out_dir = Path(out_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    result = dict(
        terms=[term._asdict() for term in lines],
        errors=curve,
        gains={action: gain._asdict() for action, gain in gains.items()},
        advice=next(iter(gains)),
        clear=is_clear(gains),
    )
    write_text(out_dir / 'generalization.md', text)
    write_text(
        out_dir / 'generalization.json', json.dumps(_plain(result), indent=1)
    )
    return text


def _plain(value):
    """Without NaN, which JSON does not know."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and np.isnan(value) else value


def is_clear(gains: dict) -> bool:
    """Whether the first gain is above the second beyond their intervals.

    Args:
        gains (dict[str, Gain]): Of
            :func:`mmcmcd.analysis.transfer_advice.expected_gains`.

    Returns:
        bool: False too where fewer than two actions could be judged.
    """
    known = [gain for gain in gains.values() if gain.mean is not None]
    if len(known) < 2:
        return False
    first, second = known[:2]
    apart = first.mean - second.mean
    return bool(apart > np.hypot(first.half, second.half))


def _markdown(terms, curve, gains):
    parts = [
        '# Generalisation report',
        'A template, not the theorem of the paper: what it is and is not '
        'stands in docs/generalization.md.',
        _table(
            'term | value | how',
            (
                (t.name, '' if t.value is None else f'{t.value:.3g}', t.text)
                for t in terms
            ),
        ),
        'The first three add up to a bound on the error of the head where B '
        'was chosen before. Above 1 they say nothing: what follows is '
        'measured.',
        '## Errors on held-out samples',
        _table(
            'features | labels | error %',
            (
                (
                    'teacher'
                    if row['pairs'] == TEACHER
                    else f'student of {row["pairs"]} pairs',
                    row['labels'],
                    f'{100 * row["error"]:.1f}',
                )
                for row in curve
            ),
        ),
        '## What would help most?',
        _table(
            'action | points of error less, about | from',
            (
                (
                    _ADVICE[action],
                    '?'
                    if g.mean is None
                    else f'{100 * g.mean:.1f} ± {100 * g.half:.1f}',
                    g.basis,
                )
                for action, g in gains.items()
            ),
        ),
        f'Advice: **{_ADVICE[next(iter(gains))]}**'
        + ('.' if is_clear(gains) else ', but within the intervals.'),
    ]
    if any(gain.mean is None for gain in gains.values()):
        parts.append('Only the actions with a figure were compared.')
    return '\n\n'.join(parts) + '\n'


def _table(head, rows):
    rule = ' | '.join(['---'] * len(head.split(' | ')))
    lines = [head, rule, *(' | '.join(map(str, row)) for row in rows)]
    return '\n'.join(f'| {line} |' for line in lines)


def check_features(data: TransferFeatures) -> None:
    """Complain of features that do not fit together.

    Args:
        data (TransferFeatures): To be checked.

    Raises:
        ConfigError: An array has another number of rows than it should, is
            no matrix of finite numbers, or there is no student.
    """
    if not data.pairs > TEACHER:
        raise ConfigError('There is no student; expected one of 1+ pairs.')
    wanted = [
        (f'labelled samples of {_network(m)}', rows, len(data.labels))
        for m, rows in data.labelled.items()
    ]
    if data.test_labels is not None:
        if data.pairs not in data.tests or data.tests.keys() - data.labelled:
            raise ConfigError(
                'There are test labels: expected features of the test samples '
                f'by the {data.pairs}-pair student at least, and by no '
                'network without features of the labelled samples.'
            )
        wanted += [
            (f'test samples of {_network(m)}', rows, len(data.test_labels))
            for m, rows in data.tests.items()
        ]
    for name in ('seen', 'unseen'):
        sides = getattr(data, name)
        if sides is not None:
            wanted += [
                (f'{name} pairs', rows, len(sides[0])) for rows in sides
            ]
    for name, rows, count in wanted:
        if rows.ndim != 2 or len(rows) != count or not np.isfinite(rows).all():
            raise ConfigError(
                f'{name}: expected finite features ({count}, D), got shape '
                f'{rows.shape}.'
            )


def _network(pairs):
    return 'the teacher' if pairs == TEACHER else f'the {pairs}-pair student'
