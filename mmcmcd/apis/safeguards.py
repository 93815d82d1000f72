"""What every training by our tools has, whatever its configuration says."""

import os
import os.path as osp
import re

from mmengine.config import ConfigDict

_CHECKPOINT = 'mmcmcd.AtomicCheckpointHook'
_EPOCH_LOOP = 'mmcmcd.ResumableEpochLoop'
_HOOKS = (
    'mmcmcd.ExactResumeHook',
    'mmcmcd.NonFiniteGuardHook',
    'mmcmcd.StopOnSignalHook',
)
_STEPS = re.compile(r'^(epoch|iter)_(\d+)\.pth$')


def add_safeguards(cfg):
    """Let a run be stopped, resumed and trusted, in place.

    mmengine's ``CheckpointHook`` and ``EpochBasedTrainLoop`` become ours,
    which take the same arguments; those hooks of ``_HOOKS`` that the
    configuration does not have come to its ``custom_hooks``. A configuration
    with a runner of its own (``runner_type``) is left as it is.

    Args:
        cfg (Config): The configuration; changed in place.
    """
    if 'runner_type' in cfg:
        return
    hooks = cfg.get('default_hooks') or {}
    checkpoint = hooks.get('checkpoint', dict(type='CheckpointHook'))
    if checkpoint is not None and _is(checkpoint, 'CheckpointHook'):
        # Those of mmengine, where there is none in the configuration.
        checkpoint = dict(dict(interval=1), **checkpoint)
        cfg.default_hooks = {**hooks, 'checkpoint': checkpoint}
        cfg.default_hooks.checkpoint.type = _CHECKPOINT
    loop = cfg.get('train_cfg')
    if loop and (loop.get('by_epoch') or _is(loop, 'EpochBasedTrainLoop')):
        loop.pop('by_epoch', None)
        loop.type = _EPOCH_LOOP
    present = list(cfg.get('custom_hooks') or ())
    needed = [
        name
        for name in _HOOKS
        if not any(_is(hook, name.split('.')[-1]) for hook in present)
    ]
    if 'optimizer' not in (cfg.get('optim_wrapper') or {}):
        # Several optimizers: not for this one.
        needed = [n for n in needed if not n.endswith('NonFiniteGuardHook')]
    cfg.custom_hooks = present + [ConfigDict(type=name) for name in needed]


def find_checkpoint(work_dir):
    """Find the checkpoint from which a run goes on.

    Args:
        work_dir (str): Of the run.

    Returns:
        str | None: What ``last_checkpoint`` names, also if the directory was
        moved, copied or is seen from elsewhere; where there is no such file,
        the checkpoint of the latest step. None if there is none.
    """
    try:
        with open(osp.join(work_dir, 'last_checkpoint')) as file:
            named = file.read().strip()
    except (OSError, UnicodeDecodeError):
        named = ''
    # Its own first: where it was copied from another run may have gone on.
    for path in (osp.join(work_dir, osp.basename(named)), named):
        if named and osp.isfile(path):
            return path
    steps = {}
    for name in os.listdir(work_dir) if osp.isdir(work_dir) else ():
        if match := _STEPS.match(name):
            steps[int(match[2])] = name
    return osp.join(work_dir, steps[max(steps)]) if steps else None


def _is(cfg, name):
    """Whether a config is of mmengine's class of this name, or of ours."""
    kind = cfg.get('type') if isinstance(cfg, dict) else type(cfg)
    if isinstance(kind, str):
        scope, _, kind = kind.rpartition('.')
        return kind == name and scope in ('', 'mmengine', 'mmcmcd')
    return getattr(kind, '__name__', None) == name
