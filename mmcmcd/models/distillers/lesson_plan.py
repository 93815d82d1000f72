"""Whether what a config says of a MultiModalDistiller fits together."""

from mmengine.model import ModuleDict

from mmcmcd.errors import ConfigError


def check_plan(teachers: dict, students: dict, lessons: dict) -> None:
    """Stop where teachers, students and lessons do not fit each other.

    Args:
        teachers (dict[str, dict]): See :class:`MultiModalDistiller`, like
            the others.
        students (dict[str, dict]): By side.
        lessons (dict[str, dict]): By name.

    Raises:
        ConfigError: A part is empty or has an unusable name, lacks a key or
            has an unknown one, a lesson names an unknown teacher or student,
            or one of these has no lesson.
    """
    networks = dict(teacher=teachers, student=students)
    _check_names('teachers', teachers)
    _check_names('students', students)
    _check_names('lessons', lessons)
    for side, cfg in teachers.items():
        _check_keys(
            f'teachers.{side}', cfg, ['backbone'], ['projector', 'norm']
        )
    for name, cfg in lessons.items():
        _check_keys(
            f'lessons.{name}',
            cfg,
            [*networks, 'losses'],
            ['projector', 'queue'],
        )
        for role, known in networks.items():
            if cfg[role] not in known:
                raise ConfigError(
                    f'model.lessons.{name}.{role}={cfg[role]!r} is unknown: '
                    f'model.{role}s has {sorted(known)}. Name one of them, '
                    'or add it there.'
                )
    for role, known in networks.items():
        idle = set(known) - {cfg[role] for cfg in lessons.values()}
        if idle:
            raise ConfigError(
                f'model.{role}s: {", ".join(sorted(idle))} takes part in no '
                f'lesson. Add one with {role}={min(idle)!r} to '
                f'model.lessons, or remove model.{role}s.{min(idle)}.'
            )


def _check_names(part, cfg):
    if not cfg:
        raise ConfigError(
            f'model.{part} is empty: MultiModalDistiller needs at least one '
            'teacher, one student, and a lesson for each of them.'
        )
    for name in cfg:
        # They become names of modules, of figures in the log and of files.
        if not str(name).isidentifier() or hasattr(ModuleDict(), name):
            raise ConfigError(
                f'model.{part}: {name!r} cannot be a name here. Expected '
                "letters, digits and '_', and no attribute of a torch "
                'module; choose another one, in the data set, too.'
            )
        # mmengine adds up all figures whose key has this word.
        if part == 'lessons' and 'loss' in name:
            raise ConfigError(
                f"model.lessons: {name!r} contains 'loss', so that its "
                'statistics would be trained on; choose another name.'
            )


def _check_keys(where, cfg, required, optional):
    cfg = cfg or {}
    missing = [key for key in required if key not in cfg]
    unknown = [key for key in cfg if key not in [*required, *optional]]
    if missing or unknown:
        raise ConfigError(
            f'model.{where} lacks {missing} and has the unknown keys '
            f'{unknown}; expected {required}, and optionally {optional}.'
        )
