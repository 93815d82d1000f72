"""Read the text of a config without executing it."""

import ast
import re
import sys

from mmengine.config.utils import MODULE2PACKAGE
from mmengine.registry import MODELS

from ..errors import CheckpointError

# Those of real runs have some ten thousand characters.
_LONGEST = 1 << 20
_BASE, _IMPORTS = '_base_', 'custom_imports'
_SCOPES = ('default_scope', '_scope_')
_SCOPED = re.compile(r'(?:(\w+)\.)?[A-Z]\w*')
_CONSTANTS = (str, int, float, bool, type(None))


def parse_config_text(text):
    """Read what ``Config.pretty_text`` writes, as data.

    Assignments of literals, lists, tuples, sets, dicts and ``dict(k=v)`` are
    read, nothing is run.  Beyond that a text is refused that would make
    mmengine do something when it reads it or builds from it: inherit another
    file, substitute variables, import a module, or call a function that a
    ``type`` names by its path, as ``type='os.system'`` does.

    Args:
        text (str): The text.

    Returns:
        dict: Values by name.

    Raises:
        CheckpointError: The text is none of that; names line and construct.
    """
    if not isinstance(text, str):
        raise CheckpointError(f'expected a text, got {type(text).__name__}')
    if len(text) > _LONGEST:
        raise CheckpointError(f'a text of {len(text)} characters')
    if '{{' in text:
        line = text[: text.index('{{')].count('\n') + 1
        raise CheckpointError(f"line {line}: a substitution, '{{{{'")
    try:
        config = dict(map(_assignment, ast.parse(text).body))
        _require_inert(config, '')
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        if isinstance(error, CheckpointError):
            raise
        line = getattr(error, 'lineno', None)
        where = f'line {line}: ' if line else ''
        raise CheckpointError(
            f'{where}no Python that can be parsed ({type(error).__name__})'
        ) from error
    return config


def _assignment(node):
    if (
        not isinstance(node, ast.Assign)
        or len(node.targets) != 1
        or not isinstance(node.targets[0], ast.Name)
    ):
        raise _construct(node)
    return node.targets[0].id, _value(node.value)


def _value(node):
    """The value of an expression that is a literal."""
    match node:
        case ast.Constant(value=value) if isinstance(value, _CONSTANTS):
            return value
        case ast.List(elts=items):
            return [_value(item) for item in items]
        case ast.Tuple(elts=items):
            return tuple(_value(item) for item in items)
        case ast.Set(elts=items):
            return {_hashable(item) for item in items}
        case ast.Dict(keys=keys, values=values) if None not in keys:
            return {
                _hashable(key): _value(value)
                for key, value in zip(keys, values, strict=True)
            }
        case ast.Call(
            func=ast.Name(id='dict'), args=[], keywords=keywords
        ) if all(word.arg for word in keywords):
            return {word.arg: _value(word.value) for word in keywords}
        # So pretty_text writes keys that are no identifiers.
        case ast.Call(
            func=ast.Name(id='dict'), args=[ast.Dict() as inner], keywords=[]
        ):
            return _value(inner)
        case ast.UnaryOp(
            op=ast.USub(), operand=ast.Constant(value=int() | float() as value)
        ):
            return -value
    raise _construct(node)


def _hashable(node):
    value = _value(node)
    try:
        hash(value)
    except TypeError:
        raise _construct(node) from None
    return value


def _construct(node):
    start = ast.unparse(node).split('\n', 1)[0]
    shown = start if len(start) <= 60 else f'{start[:57]}...'
    return CheckpointError(
        f'line {node.lineno}: {type(node).__name__}, {shown}'
    )


def _require_inert(node, place):
    """Stop at keys that would have effects in mmengine.

    Raises:
        CheckpointError: There is one; names it.
    """
    if isinstance(node, (list, tuple)):
        for index, item in enumerate(node):
            _require_inert(item, f'{place}.{index}')
    if not isinstance(node, dict):
        return
    for key, value in node.items():
        name = f'{place}.{key}'.lstrip('.')
        if (
            key == _BASE
            or (key == _IMPORTS and not _are_imported(value))
            or (key == 'type' and not _is_registered(value))
            or (key in _SCOPES and value is not None and not _is_scope(value))
            # mmpretrain evaluates the names of torch's types.
            or (key == 'dtype' and not _is_name(value))
        ):
            raise CheckpointError(f'{name}={value!r:.60}')
        _require_inert(value, name)


def _are_imported(value):
    names = value.get('imports') if isinstance(value, dict) else None
    names = [names] if isinstance(names, str) else names
    return isinstance(names, (list, tuple)) and all(
        isinstance(name, str) and name in sys.modules for name in names
    )


def _is_registered(value):
    """Whether a ``type`` can only be found in a registry.

    Others are looked up by mmengine as ``package.module.object``, whatever
    that is.
    """
    if not isinstance(value, str) or '.' not in value:
        return True
    scoped = _SCOPED.fullmatch(value)
    return scoped is not None and _is_scope(scoped[1])


def _is_scope(name):
    """Whether a package of OpenMMLab, or one that has joined, is named so."""
    return isinstance(name, str) and (
        name in ('mmengine', 'mmcv')
        or name in MODULE2PACKAGE
        or name in MODELS.children
    )


def _is_name(value):
    return not isinstance(value, str) or value.replace('.', '_').isidentifier()
