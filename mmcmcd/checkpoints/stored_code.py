"""Remove the stored configs that mmengine would execute."""

import logging

from mmengine.logging import print_log

from ..errors import CheckpointError
from .config_text import parse_config_text

_META, _HUB, _RUNTIME = 'meta', 'message_hub', 'runtime_info'
# Of mmcv and early mmengine: Runner.resume executes it for one value.
_EXECUTED, _USED = 'config', 'gpu_ids'
# What inferencers build a model from when they get no config.
_KEPT_IF_PLAIN = 'cfg'


def remove_stored_code(content, name):
    """Leave no config text in a checkpoint that could do anything.

    ``meta['config']`` is removed, except that its ``gpu_ids`` become
    ``meta['gpu_ids']``; ``meta['cfg']`` and the message hub's stay if
    :func:`.parse_config_text` finds them plain.  A warning tells of others.

    Args:
        content (object): A checkpoint; changed in place.
        name (str): What it is called, for the warning.

    Returns:
        object: ``content``.
    """
    if not isinstance(content, dict):
        return content
    # Only by ``in``, [] and del: a file can set attributes of an OrderedDict
    # that are named as its methods.
    meta = _require_dict(content, _META, name)
    if meta is not None:
        if _EXECUTED in meta:
            config = _parse(meta, _EXECUTED, 'meta', name)
            del meta[_EXECUTED]
            if config and _USED in config:
                meta[_USED] = config[_USED]
        if _KEPT_IF_PLAIN in meta:
            _keep_if_plain(meta, 'meta', name)
    hub = _require_dict(content, _HUB, name)
    runtime = None if hub is None else _require_dict(hub, _RUNTIME, name)
    if runtime is not None and _KEPT_IF_PLAIN in runtime:
        _keep_if_plain(runtime, f'{_HUB}.{_RUNTIME}', name)
    return content


def _require_dict(parent, key, name):
    """The dict under a key; what is there and is none goes."""
    if key not in parent:
        return None
    if isinstance(parent[key], dict):
        return parent[key]
    _warn(name, key, f'expected a dict, got {type(parent[key]).__name__}')
    del parent[key]
    return None


def _keep_if_plain(parent, place, name):
    if _parse(parent, _KEPT_IF_PLAIN, place, name) is None:
        del parent[_KEPT_IF_PLAIN]


def _parse(parent, key, place, name):
    try:
        return parse_config_text(parent[key])
    except CheckpointError as error:
        _warn(name, f'{place}.{key}', str(error))
        return None


def _warn(name, place, reason):
    print_log(
        f"checkpoint '{name}': '{place}' is no plain config ({reason}). It "
        'was not run, and is left out.',
        logger='current',
        level=logging.WARNING,
    )
