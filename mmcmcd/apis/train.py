"""Train from a configuration: what ``tools/train.py`` does."""

import logging
import os

import torch
from mmengine.logging import print_log
from mmengine.registry import RUNNERS
from mmengine.runner import EpochBasedTrainLoop, Runner

from ..compat import prepare_cpu_distributed
from ..datasets import require_data_root
from ..engine.unwrapped import unwrapped_model
from ..errors import CheckpointError, ConfigError, DatasetError
from ..models.utils import pretrained_cfgs, require_pretrained
from ..registry import DATASETS
from .cli import load_config
from .collate import NamedCollate
from .dataset_configs import phase_dataset_cfgs
from .safeguards import add_safeguards, find_checkpoint

DATALOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')


def train_from_config(config, **options):
    """Train any configuration: distillation, mmpretrain's or mmseg's.

    Args:
        config (str): See :func:`mmcmcd.apis.load_config`.
        **options: See :func:`prepare_train_config`.

    Returns:
        Runner: The runner, after training.
    """
    cfg = prepare_train_config(load_config(config), config, **options)
    require_data_roots(cfg)
    require_pretrained_files(cfg)
    runner = build_runner(cfg)
    if options.get('resume') and not cfg.resume:
        runner.logger.warning(
            f'There is no checkpoint in {cfg.work_dir} to resume from: '
            'training starts from the beginning.'
        )
    _require_a_batch(runner)
    _require_outputs(runner)
    _name_unequal_inputs(runner)
    runner.train()
    return runner


def _require_a_batch(runner):
    """An epoch without any batch would end at once, without a word."""
    # Built here, so that it can be looked at before any step.
    loop = runner.train_loop
    # Other loops draw without end, and fill a batch from any set.
    if not isinstance(loop, EpochBasedTrainLoop):
        return
    loader = loop.dataloader
    if not len(loader):
        raise DatasetError(
            f'The training set has {len(loader.dataset)} samples, too few '
            f'for one batch of {loader.batch_size} per process with '
            'drop_last. Lower train_dataloader.batch_size.'
        )


def _require_outputs(runner):
    """A label beyond the head's outputs would end in an index error."""
    head = getattr(unwrapped_model(runner), 'head', None)
    outputs = getattr(head, 'num_classes', None)
    if outputs is None:
        return
    counts = {'training': _num_classes(runner.train_loop)}
    if runner.val_loop is not None:
        counts['validation'] = _num_classes(runner.val_loop)
    known = {name: count for name, count in counts.items() if count}
    for name, count in known.items():
        if count > outputs:
            raise ConfigError(
                f'The {name} set has {count} classes, but the head has '
                f'{outputs} outputs: set model.head.num_classes={count} '
                f'and model.data_preprocessor.num_classes={count}.'
            )
    few = [name for name, count in known.items() if count < outputs]
    if few:
        print_log(
            f'The {few[0]} set has {known[few[0]]} classes, fewer than the '
            f'{outputs} outputs of the head: the others stay idle. Meant? '
            'If not, correct model.head.num_classes and '
            'model.data_preprocessor.num_classes.',
            logger='current',
            level=logging.WARNING,
        )


def _name_unequal_inputs(runner):
    """Torch would tell shapes that cannot be stacked, but not of what."""
    for loop in (runner.train_loop, runner.val_loop):
        if loop is not None:
            loader = loop.dataloader
            loader.collate_fn = NamedCollate(loader.collate_fn)


def _num_classes(loop):
    """How many classes the data of a loop have; 0: they do not say."""
    metainfo = getattr(loop.dataloader.dataset, 'metainfo', {})
    return len(metainfo.get('classes') or ())


def require_data_roots(cfg):
    """Stop at once where a data set of ours is not there.

    Args:
        cfg (Config): The configuration.

    Raises:
        DatasetError: A data root is missing; says how to get the data.
    """
    for phase in ('train', 'val'):
        if not cfg.get(f'{phase}_dataloader'):
            continue
        for dataset in phase_dataset_cfgs(cfg, phase):
            cls = dataset.get('type')
            if isinstance(cls, str):
                cls = DATASETS.get(cls)
            if hasattr(cls, 'HOWTO'):
                require_data_root(
                    dataset.get('data_root', ''),
                    cls.__name__,
                    cls.HOWTO,
                    dataset.get('backend_args'),
                )


def require_pretrained_files(cfg):
    """Stop at once where a file of pretrained weights is not there.

    Args:
        cfg (Config): The configuration.

    Raises:
        CheckpointError: A local file named by an ``init_cfg`` of type
            ``Pretrained`` does not exist; says what to give instead.
    """
    _require_pretrained_files(cfg.get('model'), 'model')


def _require_pretrained_files(node, name):
    if isinstance(node, (list, tuple)):
        for index, item in enumerate(node):
            _require_pretrained_files(item, f'{name}.{index}')
    if not isinstance(node, dict):
        return
    for init_cfg in pretrained_cfgs(node.get('init_cfg')):
        require_pretrained(init_cfg.get('checkpoint'), name)
    for key, value in node.items():
        _require_pretrained_files(value, f'{name}.{key}')


def prepare_train_config(
    cfg,
    name,
    *,
    work_dir=None,
    resume=None,
    amp=False,
    no_validate=False,
    auto_scale_lr=False,
    pin_memory=True,
    persistent_workers=True,
    cfg_options=None,
    launcher='none',
):
    """Merge what was asked for on the command line into a configuration.

    Args:
        cfg (Config): The configuration; changed in place.
        name (str): Its name or path, which names the default work directory
            ``work_dirs/<stem>``.
        work_dir (str, optional): Where logs and checkpoints go.
        resume (str, optional): ``'auto'`` for the newest checkpoint of the
            work directory, or a file. Without one there, training starts as
            if this had not been asked for, so that a job may always ask.
        amp (bool): Mixed precision: float16 or bfloat16 on CUDA, as the
            config says, bfloat16 on CPU.
        no_validate (bool): Do not validate while training.
        auto_scale_lr (bool): Scale the learning rate to the batch size.
        pin_memory (bool): False switches it off in all data loaders.
        persistent_workers (bool): False switches them off likewise.
        cfg_options (dict, optional): Dotted keys and their values.
        launcher (str): ``'none'``, ``'pytorch'``, ``'slurm'`` or ``'mpi'``.

    Returns:
        Config: ``cfg``.

    Raises:
        CheckpointError: The checkpoint to resume from does not exist.
        ConfigError: ``auto_scale_lr`` without a base batch size.
    """
    merge_common(cfg, name, work_dir, cfg_options, launcher)
    if no_validate:
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    if amp:
        _use_amp(cfg.optim_wrapper)
    if resume is not None:
        found = resume
        if resume == 'auto':
            found = find_checkpoint(cfg.work_dir)
        cfg.resume = bool(found)
        if found:
            require_checkpoint(found)
            cfg.load_from = found
    if auto_scale_lr:
        if 'base_batch_size' not in (cfg.get('auto_scale_lr') or {}):
            raise ConfigError(
                '--auto-scale-lr needs the batch size that the learning rate '
                'was chosen for: set auto_scale_lr=dict(base_batch_size=...) '
                'in the config.'
            )
        cfg.auto_scale_lr.enable = True
    for field in DATALOADERS:
        set_dataloader_defaults(cfg, field, pin_memory, persistent_workers)
    add_safeguards(cfg)
    return cfg


def build_runner(cfg):
    """Build the runner that a configuration asks for.

    Args:
        cfg (Config): The configuration.

    Returns:
        Runner: mmengine's, or the one named by ``runner_type``.
    """
    prepare_cpu_distributed(cfg)
    if 'runner_type' in cfg:
        return RUNNERS.build(cfg)
    return Runner.from_cfg(cfg)


def merge_common(cfg, name, work_dir, cfg_options, launcher):
    """Merge the options that training and testing share, in place.

    Args:
        cfg (Config): The configuration.
        name (str): See :func:`prepare_train_config`, like the rest.
        work_dir (str, optional): Where logs and results go.
        cfg_options (dict, optional): Dotted keys and their values.
        launcher (str): Job launcher.
    """
    if cfg_options:
        cfg.merge_from_dict(cfg_options)
    cfg.launcher = launcher
    if work_dir is not None:
        cfg.work_dir = work_dir
    elif cfg.get('work_dir') is None:
        stem = os.path.splitext(os.path.basename(name))[0]
        cfg.work_dir = os.path.join('work_dirs', stem)


def set_dataloader_defaults(cfg, field, pin_memory, persistent_workers):
    """Fill in a data loader's speed options where the config has none.

    Args:
        cfg (Config): The configuration; changed in place.
        field (str): Name of the data loader.
        pin_memory (bool): False switches it off.
        persistent_workers (bool): False switches them off.
    """
    loader = cfg.get(field)
    if loader is None:
        return
    loader.setdefault('pin_memory', torch.cuda.is_available())
    if not pin_memory:
        loader.pin_memory = False
    # Torch refuses persistent workers where there are none.
    has_workers = loader.get('num_workers', 0) > 0
    loader.setdefault('persistent_workers', True)
    if not (persistent_workers and has_workers):
        loader.persistent_workers = False
    # mmpretrain's preprocessors want stacked tensors, mmseg's want lists.
    if cfg.get('default_scope') == 'mmpretrain':
        loader.setdefault('collate_fn', dict(type='default_collate'))


def require_checkpoint(path):
    """Stop early if a local checkpoint does not exist.

    Args:
        path (str): File or URL; URLs are not looked up.

    Raises:
        CheckpointError: There is no such file.
    """
    if '://' not in path and not os.path.isfile(path):
        raise CheckpointError(f"checkpoint '{path}' does not exist.")


def _use_amp(optim_wrapper):
    if torch.cuda.is_available():
        optim_wrapper.type = 'AmpOptimWrapper'
        optim_wrapper.setdefault('loss_scale', 'dynamic')
    else:
        optim_wrapper.type = 'mmcmcd.CPUAmpOptimWrapper'
        for key in ('loss_scale', 'dtype', 'use_fp64'):
            optim_wrapper.pop(key, None)
