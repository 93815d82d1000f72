"""The report of the modality distance as text."""

from ..analysis import MEASURES


def distance_table(report):
    """Write a report as lines for the terminal.

    Args:
        report (dict): Of :func:`mmcmcd.apis.modality_distance.
            modality_distance`.

    Returns:
        str: A table, with notes.
    """
    stages = report['stages']
    settings = report['settings']
    lines = [
        f'{report["pairs"]} of {report["pairs_available"]} pairs in '
        f'{report["groups"]} groups, seed {settings["seed"]}',
        report['space'],
        '',
        _line('', list(stages), 'at equality'),
    ]
    for name, (title, _, equal) in MEASURES.items():
        cells = [_cell(found[name]) for found in stages.values()]
        lines.append(_line(title, cells, equal))
    lines += [
        '',
        '[ ] 95 % interval, p of the permutation test.',
        *_notes(report),
    ]
    return '\n'.join(lines)


def _line(title, cells, equal):
    return ''.join([f'{title:28}', *(f'{c:36}' for c in cells), equal])


def _cell(measure):
    if measure['value'] is None:
        return 'none'
    low, high = (
        '?' if measure[end] is None else f'{measure[end]:.4g}'
        for end in ('low', 'high')
    )
    text = f'{measure["value"]:.4g} [{low}, {high}]'
    if 'p_value' in measure:
        text += f' p={measure["p_value"]:.2g}'
    return text


def _notes(report):
    settings, stages = report['settings'], report['stages']
    whose = (
        "the config's CMD's"
        if report['temperatures_from_config']
        else 'given, or our defaults'
    )
    last = list(stages.values())[-1]
    similar = last['tv_similarity_within']
    yield (
        f'* with equal temperatures; here {settings["teacher_temperature"]} '
        f'(teacher) and {settings["student_temperature"]} (student), {whose}; '
        f'batches of {similar["batch"]} rows.'
    )
    for name, found in stages.items():
        bounds = [
            f'{form} {found[f"tv_similarity_{form}"]["pinsker_bound"]:.4g}'
            for form in ('within', 'cross')
            if 'pinsker_bound' in found[f'tv_similarity_{form}']
        ]
        yield f'Pinsker bound on TV of similarities, {name}: ' + ', '.join(
            bounds
        )
        if 'lower_limit' in found['tv_lower']:
            limits = [
                found[key]['lower_limit']
                for key in ('tv_lower', 'tv_lower_rbf')
            ]
            yield (
                f'With 95 % confidence each, TV {name} is at least '
                f'{limits[0]:.4g} (linear), {limits[1]:.4g} (RBF).'
            )
        reasons = {m['reason'] for m in found.values() if 'reason' in m}
        yield from (f'none, {name}: {reason}.' for reason in sorted(reasons))
    if report['places_student'] is False:
        yield (
            'No loss brings student rows to teacher rows: figures that need '
            'one space tell of chance; see the similarities and CKA.'
        )
