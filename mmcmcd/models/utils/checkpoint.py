"""Checkpoints that are read in full or refused, never in part."""

import hashlib
import os
from dataclasses import dataclass, field

import torch
from mmengine.logging import print_log
from mmengine.model import PretrainedInit
from mmengine.runner import CheckpointLoader

from ...errors import CheckpointError
from .stem import input_channels_differ

# A classifier trained on other classes is no part of a backbone.
HEAD_PREFIXES = ('fc.', 'head.', 'classifier.')
# What took the place of hidden patches in pre-training: mmpretrain's files of
# DINOv2 have it, its backbone has not, and no feature depends on it.
_MASK_TOKEN = 'mask_token'  # noqa: S105 (no password)
_NAMES_SHOWN = 3

_TEACHER_SOURCES = (
    'A teacher can come from your own contrastive run (python tools/train.py '
    "with a config of configs/pretrain, then prefix='backbone.'), from the "
    "mmpretrain model zoo (a file or URL, prefix='backbone.'), from "
    "torchvision (checkpoint='torchvision://resnet50', no prefix), or from "
    "an mmseg model (type='mmseg.ResNetV1c', prefix='backbone.')."
)


_STUDENT_SOURCES = (
    'Give an exported student (student-*.pth in the work directory of a '
    'distillation run) or other weights: '
    '--cfg-options {0}.init_cfg.checkpoint=FILE; or train from scratch: '
    '--cfg-options {0}.init_cfg=None.'
)


@dataclass
class StateMismatch:
    """Where a state dict and a module differ; false when they agree.

    Attributes:
        total (int): Number of tensors of the module.
        missing (list[str]): Keys of the module that the file lacks.
        mismatched (list[tuple]): (key, shape in the file, shape in the
            module) where the shapes differ.
        unexpected (list[str]): Keys of the file that the module lacks.
    """

    total: int
    missing: list = field(default_factory=list)
    mismatched: list = field(default_factory=list)
    unexpected: list = field(default_factory=list)

    def __bool__(self):
        return bool(self.missing or self.mismatched or self.unexpected)

    def without(self, ignored):
        """Return a copy that leaves out the keys that ``ignored`` accepts.

        Args:
            ignored (callable): Takes a key, returns a bool.
        """
        return StateMismatch(
            self.total,
            [key for key in self.missing if not ignored(key)],
            [item for item in self.mismatched if not ignored(item[0])],
            [key for key in self.unexpected if not ignored(key)],
        )

    def describe(self):
        """Say counts and first names, and the likely cause, in one line."""
        parts = []
        if self.missing:
            parts.append(
                f'{len(self.missing)} of {self.total} tensors are missing '
                f'in the file ({_first(self.missing)})'
            )
        if self.mismatched:
            shapes = [
                f'{key}: file {tuple(filed)}, network {tuple(wanted)}'
                for key, filed, wanted in self.mismatched
            ]
            parts.append(
                f'{len(shapes)} of another shape ({_first(shapes, "; ")})'
            )
        if self.unexpected:
            parts.append(
                f'{len(self.unexpected)} in the file unknown to the network '
                f'({_first(self.unexpected)})'
            )
        return '; '.join(parts) + '. ' + self._cause()

    def _cause(self):
        stem = 'stem.'
        if any(key.startswith(stem) for key in self.unexpected):
            return (
                "The file has a deep stem ('stem.*', as in ResNetV1c), "
                'the network has not: use the backbone type that the '
                'file was trained with.'
            )
        if any(key.startswith(stem) for key in self.missing):
            return (
                "The network has a deep stem ('stem.*', as in "
                'ResNetV1c), the file has not: use the backbone type '
                'that the file was trained with.'
            )
        if (
            len(self.mismatched) == 1
            and not self.missing
            and not self.unexpected
        ):
            _, filed, wanted = self.mismatched[0]
            if input_channels_differ(filed, wanted):
                return (
                    f'The file takes {filed[1]} input channels, the network '
                    f'{wanted[1]}: set in_channels={filed[1]}, or adapt the '
                    "weights (student_stem='sum' in a distiller)."
                )
        if self.missing and not self.mismatched and not self.unexpected:
            return (
                'The file is partial, or made for a shallower network: '
                'check type, depth and variant.'
            )
        return 'Use the same type, depth and variant in both.'


def load_backbone_strict(module, checkpoint, prefix='', role='teacher'):
    """Load a backbone so that every tensor comes from the file.

    mmengine's ``Pretrained`` loads what fits and only warns about the rest;
    a teacher that is half random would go unnoticed.  Heads of a classifier
    (``fc.``, ``head.``, ``classifier.``) may stand in the file when no prefix
    is given, and the ``mask_token`` of masked pre-training always.  Integer
    tensors (BatchNorm's step counter, tables of indices) may be missing, for
    they are not learned.

    Args:
        module (nn.Module): The backbone; changed in place.
        checkpoint (str): File, URL, ``torchvision://``, ``open-mmlab://``,
            anything that mmengine reads.  The weights may be nested under
            ``state_dict`` or ``model``.
        prefix (str): Part of the keys that comes before the backbone's own
            names, e.g. ``'backbone.'``.  Defaults to ''.
        role (str): Who is loaded, for messages.  Defaults to 'teacher'.

    Raises:
        CheckpointError: The file is missing, unreadable, holds nothing under
            ``prefix``, or does not match ``module`` key by key and shape by
            shape.
    """
    stored = read_state_dict(checkpoint, role=role)
    state = select_prefix(stored, prefix, module, checkpoint, role)
    names = set(module.state_dict())
    unused = (_MASK_TOKEN,) if prefix else (_MASK_TOKEN, *HEAD_PREFIXES)
    state = {
        key: value
        for key, value in state.items()
        if key in names or not key.startswith(unused)
    }
    mismatch = compare_state(module, state)
    if mismatch:
        raise CheckpointError(
            f"{role} checkpoint '{checkpoint}' does not fit "
            f'{type(module).__name__}: {mismatch.describe()}'
        )
    module.load_state_dict(state, strict=False)
    loaded = _report(module, checkpoint, prefix, stored, state)
    print_log(f'{role}: {loaded}', logger='current')


def pretrained_cfgs(init_cfg):
    """Those of a module's ``init_cfg`` that load a file.

    Args:
        init_cfg (dict | list[dict] | None): As mmengine takes it.

    Returns:
        list[dict]: The configs of type ``Pretrained``.
    """
    init_cfgs = init_cfg if isinstance(init_cfg, (list, tuple)) else [init_cfg]
    return [
        cfg
        for cfg in init_cfgs
        if isinstance(cfg, dict)
        and cfg.get('type') in ('Pretrained', PretrainedInit)
    ]


def require_pretrained(checkpoint, name):
    """Stop if a local file that an ``init_cfg`` names does not exist.

    Args:
        checkpoint (str): File or URL; URLs are not looked up.
        name (str): Where the module stands in the config, e.g.
            ``'model.backbone'``.

    Raises:
        CheckpointError: There is no such file; says what to give instead.
    """
    if (
        not isinstance(checkpoint, str)
        or '://' in checkpoint
        or os.path.isfile(os.path.expanduser(checkpoint))
    ):
        return
    role = name.removeprefix('model.')
    if role.startswith('teacher'):
        advice = _TEACHER_SOURCES
    else:
        role = f'{role}: pretrained'
        advice = _STUDENT_SOURCES.format(name)
    raise CheckpointError(
        f"{role} checkpoint '{checkpoint}' does not exist. {advice}"
    )


def read_state_dict(
    checkpoint, role='pretrained', nested=('state_dict', 'model')
):
    """Read the weights of a checkpoint.

    Args:
        checkpoint (str): See :func:`load_backbone_strict`.
        role (str): Who is loaded, for messages.
        nested (tuple[str]): Keys under which weights may be found.

    Returns:
        dict[str, Tensor]: The weights, without a common ``module.`` that
        data-parallel training leaves.

    Raises:
        CheckpointError: The file is missing, unreadable or holds no weights.
    """
    content = read_checkpoint(checkpoint, role)
    for key in nested:
        if isinstance(content.get(key), dict):
            content = content[key]
            break
    state = {
        key: value
        for key, value in content.items()
        if isinstance(key, str) and torch.is_tensor(value)
    }
    if not state:
        raise CheckpointError(
            f"{role} checkpoint '{checkpoint}' holds no weights: expected a "
            f'dict of tensors, alone or under one of {list(nested)}, got a '
            f'dict with keys {sorted(map(str, content))[:6]}.'
        )
    if all(key.startswith('module.') for key in state):
        state = {key[len('module.') :]: v for key, v in state.items()}
    return state


def read_checkpoint(checkpoint, role='pretrained'):
    """Read a checkpoint through mmengine's loader, as data, on CPU.

    Args:
        checkpoint (str): See :func:`load_backbone_strict`.
        role (str): Who is loaded, for messages.

    Returns:
        dict: The content of the file.

    Raises:
        CheckpointError: The file is missing or unreadable, would run code
            when it is read, or is no dict.
    """
    if not isinstance(checkpoint, (str, os.PathLike)) or not str(checkpoint):
        raise CheckpointError(
            f'{role} checkpoint: expected a file name or URL, got '
            f'{checkpoint!r}. {_sources(role)}'.rstrip()
        )
    try:
        content = CheckpointLoader.load_checkpoint(
            str(checkpoint), map_location='cpu', logger='silent'
        )
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{role} checkpoint '{checkpoint}' does not exist. "
            f'{_sources(role)}'.rstrip()
        ) from error
    except CheckpointError:  # the file is there, and the reason is said
        raise
    except Exception as error:  # a broken connection, a store, a scheme
        raise CheckpointError(
            f"{role} checkpoint '{checkpoint}' cannot be read "
            f'({type(error).__name__}: {_one_line(error)}). If it is a URL, '
            'download it by hand and give the path.'
        ) from error
    if not isinstance(content, dict):
        raise CheckpointError(
            f"{role} checkpoint '{checkpoint}': expected a dict, got a "
            f'{type(content).__name__}.'
        )
    return content


def select_prefix(state, prefix, module, checkpoint, role='pretrained'):
    """Keep the keys that begin with ``prefix``, and cut it off.

    Args:
        state (dict[str, Tensor]): Weights of a file.
        prefix (str): With or without the final dot; '' keeps all.
        module (nn.Module): The network to load, to find a better prefix.
        checkpoint (str): Name of the file, for messages.
        role (str): Who is loaded, for messages.

    Returns:
        dict[str, Tensor]: The selected weights.

    Raises:
        CheckpointError: No key begins with ``prefix``, or none of those that
            do is one of the module's while another prefix would fit.
    """
    if prefix and not prefix.endswith('.'):
        prefix += '.'
    selected = {
        key[len(prefix) :]: value
        for key, value in state.items()
        if key.startswith(prefix)
    }
    names = module.state_dict().keys()
    if any(key in names for key in selected):
        return selected
    candidates = _fitting_prefixes(state, names)
    if selected and not candidates:
        return selected  # another architecture: the comparison names it
    message = (
        f"{role} checkpoint '{checkpoint}': no key under prefix "
        f"'{prefix}' belongs to {type(module).__name__}. "
    )
    if candidates:
        message += (
            ' or '.join(
                f"Keys begin with '{p}': set prefix='{p}'" for p in candidates
            )
            + '.'
        )
    else:
        tops = sorted({key.split('.')[0] + '.' for key in state})
        message += (
            f'The file holds {len(state)} tensors that begin with '
            f'{_first(tops)}; none of them fits this network.'
        )
    raise CheckpointError(message)


def compare_state(module, state):
    """Compare weights with a module, without changing either.

    The module's own hooks that prepare weights for loading (resized position
    embeddings, :func:`adapt_input_channels`) are honoured.

    Args:
        module (nn.Module): The network.
        state (dict[str, Tensor]): Weights, named as in the module.

    Returns:
        StateMismatch: False in a boolean context if all agrees.
    """
    prepared = _run_load_hooks(module, state)
    own = module.state_dict()
    result = StateMismatch(total=len(own))
    for key, value in own.items():
        if key in prepared:
            if prepared[key].shape != value.shape:
                result.mismatched.append(
                    (key, prepared[key].shape, value.shape)
                )
        elif key not in state and value.is_floating_point():
            # What a hook removes on purpose is rebuilt by the module.
            result.missing.append(key)
    result.unexpected = [key for key in prepared if key not in own]
    return result


def state_hash(module):
    """Fingerprint all parameters and buffers of a module.

    Args:
        module (nn.Module): Any module.

    Returns:
        str: Hexadecimal SHA-256 over names, types, shapes and bytes.
    """
    digest = hashlib.sha256()
    for name, value in module.state_dict().items():
        digest.update(f'{name}|{value.dtype}|{tuple(value.shape)}|'.encode())
        flat = value.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy())
    return digest.hexdigest()


def file_sha256(path):
    """Hexadecimal SHA-256 of a file, read in blocks of 1 MiB."""
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _run_load_hooks(module, state):
    """Apply the hooks that loading would apply, to a copy."""
    state = dict(state)
    for name, layer in module.named_modules():
        prefix = f'{name}.' if name else ''
        for hook in layer._load_state_dict_pre_hooks.values():
            hook(state, prefix, {}, True, [], [], [])
    return state


def _fitting_prefixes(state, names):
    """Prefixes under which the file holds most of the wanted names."""
    names = list(names)
    probes = {names[0], names[len(names) // 2], names[-1]} if names else set()
    scores = {}
    for key in state:
        for probe in probes:
            if key.endswith('.' + probe):
                prefix = key[: -len(probe)]
                scores[prefix] = sum(prefix + n in state for n in names)
    best = max(scores.values(), default=0)
    # Below a tenth it is chance: 'layer1.0.' holds a 'conv1.weight' too.
    return [
        prefix
        for prefix, score in scores.items()
        if score == best and 10 * score > len(names)
    ]


def _first(names, joint=', '):
    shown = joint.join(str(n) for n in names[:_NAMES_SHOWN])
    return shown + (', ...' if len(names) > _NAMES_SHOWN else '')


def _report(module, checkpoint, prefix, stored, taken):
    """Say what was taken from which file, and what of it was left out."""
    path = os.path.expanduser(checkpoint)
    if os.path.isfile(path):
        identity = f'sha256 {file_sha256(path)}'
    else:  # somewhere else: what came of it is known alone
        identity = f'sha256 of the loaded weights {state_hash(module)}'
    where = ''
    if prefix:
        prefix = prefix.removesuffix('.') + '.'
        where = f" under prefix '{prefix}'"
    used = {prefix + key for key in taken}
    unused = [key for key in stored if key not in used]
    rest = f'{len(unused)} of its {len(stored)} keys were left out'
    if unused:
        rest += f' ({_first(unused)})'
    return (
        f'{len(taken)} of {len(module.state_dict())} tensors from '
        f'{checkpoint}{where} ({identity}). {rest}.'
    )


def _sources(role):
    return _TEACHER_SOURCES if role.startswith('teacher') else ''


def _one_line(error):
    return ' '.join(str(error).split())[:200]
