"""Take the student out of a distiller."""

import hashlib
import io
import os
import re
import tempfile
from pathlib import Path

import torch

from ...errors import CheckpointError
from ...version import __version__
from .checkpoint import read_checkpoint, read_state_dict

_STUDENT, _STUDENTS = 'student.', 'students.'
_META_KEYS = (
    'student',
    'data_preprocessor',
    'array_normalization',
    'epoch',
    'iter',
)


def export_student(source, out, meta=None, student=None):
    """Write one student alone, as a backbone that stock configs load.

    The keys are ``backbone.*``, so ``init_cfg=dict(type='Pretrained',
    checkpoint=..., prefix='backbone.')`` loads the file in mmpretrain and
    mmseg.  A student that is a whole model, as of :class:`JointDistiller`,
    keeps its keys, head and all.  As OpenMMLab's ``publish_model.py`` does,
    the first 8 digits of the file's SHA-256 end its name.  The file appears
    at once or not at all.

    Args:
        source (str | nn.Module): A checkpoint of a distillation run, or the
            distiller itself.
        out (str): ``DIR/NAME.pth``; ``DIR/NAME-<sha8>.pth`` is written.
        meta (dict, optional): Plain values to store beside the weights.  By
            default those that :class:`StudentExportHook` left in the
            checkpoint: the student's config, the preprocessing of its
            images, epoch and iteration.
        student (str, optional): Which one of several, by its side.  Defaults
            to None: the only one.

    Returns:
        str: The file written.

    Raises:
        CheckpointError: ``source`` is unreadable, holds no student, none of
            that name, or several when none is named.
    """
    if isinstance(source, torch.nn.Module):
        state, found = source.state_dict(), {}
    else:
        state = read_state_dict(source, role='distillation')
        found = read_checkpoint(source, role='distillation').get('meta') or {}
    side = _choose_student(source, state, student)
    prefix = _STUDENT if side is None else f'{_STUDENTS}{side}.'
    names = {k: k[len(prefix) :] for k in state if k.startswith(prefix)}
    place = _place(names.values())
    weights = {
        place + name: state[key].detach().cpu().clone()
        for key, name in names.items()
    }
    found = {**found, **found.get('students', {}).get(side, {})}
    found = {key: found[key] for key in _META_KEYS if key in found}
    found.update(meta or {}, mmcmcd_version=__version__)
    return _write(dict(state_dict=weights, meta=found), Path(out))


def _choose_student(source, state, student):
    """The side of the student to write, None of one that has no name."""
    sides = {k.split('.')[1] for k in state if k.startswith(_STUDENTS)}
    if not sides and not any(key.startswith(_STUDENT) for key in state):
        raise CheckpointError(_no_student(source, state))
    if student is None and len(sides) <= 1:
        return next(iter(sides), None)
    if student in sides:
        return student
    name = _name(source)
    if not sides:
        raise CheckpointError(
            f'{name} holds one student only, without a name: leave '
            f'{student!r} (--student) out.'
        )
    asked = 'none' if student is None else repr(student)
    raise CheckpointError(
        f'{name} holds the students {", ".join(sorted(sides))}, and {asked} '
        f'of them was named. Name one: --student {min(sides)}.'
    )


def _place(names):
    """What a backbone is called in a model; a whole model has that name."""
    parts = {name.split('.')[0] for name in names}
    # Some backbones have a part of that name, too, but no head.
    is_model = 'backbone' in parts and parts & {'decode_head', 'head'}
    return '' if is_model else 'backbone.'


def _name(source):
    return f"'{source}'" if isinstance(source, (str, Path)) else 'the model'


def _no_student(source, state):
    message = (
        f"{_name(source)} holds no student: no key begins with '{_STUDENT}'. "
    )
    if any(key.startswith('backbone.') for key in state):
        return message + (
            "Its keys begin with 'backbone.': it is an exported student (or "
            'another stock model) already, and can be used as it is.'
        )
    tops = sorted({key.split('.')[0] + '.' for key in state})
    return message + (
        'Expected a checkpoint of a distillation run (epoch_*.pth in its '
        f'work directory), got keys that begin with {", ".join(tops[:5])}'
    )


def _write(content, out):
    """Write atomically, under a name that ends in the content's hash."""
    # A buffer, because torch stores a file's name within it: the same
    # weights shall have the same hash under every name.
    buffer = io.BytesIO()
    torch.save(content, buffer)
    data = buffer.getvalue()
    stem = re.sub(r'-[0-9a-f]{8}$', '', out.name.removesuffix('.pth'))
    path = out.with_name(f'{stem}-{hashlib.sha256(data).hexdigest()[:8]}.pth')
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, suffix='.tmp')
    try:
        with os.fdopen(handle, 'wb') as file:
            file.write(data)
        os.chmod(temporary, 0o644)  # mkstemp keeps others from reading
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    return str(path)
