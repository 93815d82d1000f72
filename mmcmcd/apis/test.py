"""Test from a configuration: what ``tools/test.py`` does."""

import mmengine
from mmengine.config import ConfigDict
from mmengine.evaluator import DumpResults
from mmengine.model import BaseTTAModel, is_model_wrapper

from ..errors import CheckpointError, ConfigError
from ..models.utils import compare_state, read_state_dict
from .cli import load_config
from .train import (
    build_runner,
    merge_common,
    require_checkpoint,
    set_dataloader_defaults,
)


def test_from_config(
    config, checkpoint, *, out=None, out_item=None, **options
):
    """Test any configuration: distillation, mmpretrain's or mmseg's.

    Args:
        config (str): See :func:`mmcmcd.apis.load_config`.
        checkpoint (str): The weights to test.
        out (str, optional): Where results go: a file (.pkl, .json, .yml), or,
            for a segmentation config, a directory of label maps.
        out_item (str, optional): ``'pred'`` or ``'metrics'``. Defaults to
            None: predictions.
        **options: See :func:`prepare_test_config`.

    Returns:
        dict[str, float]: The metrics.

    Raises:
        CheckpointError: The checkpoint is not of this config's model.
        ConfigError: ``out_item`` without ``out``.
    """
    if out is None and out_item is not None:
        raise ConfigError('--out-item needs --out, the file to write to.')
    cfg = load_config(config)
    prepare_test_config(cfg, config, checkpoint, **options)
    label_maps = out_item is None and cfg.get('default_scope') == 'mmseg'
    if out and label_maps:
        _write_label_maps(cfg, out)
    runner = build_test_runner(cfg, checkpoint)
    _require_classes(runner)
    if out and not label_maps and out_item != 'metrics':
        runner.test_evaluator.metrics.append(DumpResults(out_file_path=out))
    metrics = runner.test()
    if out_item == 'metrics':
        mmengine.dump(metrics, out)
    return metrics


# It is no test, whatever its name.
test_from_config.__test__ = False


def prepare_test_config(
    cfg,
    name,
    checkpoint,
    *,
    work_dir=None,
    amp=False,
    show=False,
    show_dir=None,
    interval=1,
    wait_time=2,
    tta=False,
    pin_memory=True,
    cfg_options=None,
    launcher='none',
):
    """Merge what was asked for on the command line into a configuration.

    Args:
        cfg (Config): The configuration; changed in place.
        name (str): Its name or path.
        checkpoint (str): The weights to test.
        work_dir (str, optional): Where logs go.
        amp (bool): Test in mixed precision.
        show (bool): Show predictions in a window.
        show_dir (str, optional): Write painted predictions to this directory.
        interval (int): Show every n-th sample.
        wait_time (float): Seconds that a window stays.
        tta (bool): Test-time augmentation.
        pin_memory (bool): False switches it off in the data loader.
        cfg_options (dict, optional): Dotted keys and their values.
        launcher (str): ``'none'``, ``'pytorch'``, ``'slurm'`` or ``'mpi'``.

    Returns:
        Config: ``cfg``.

    Raises:
        CheckpointError: The checkpoint does not exist.
        ConfigError: The config has no test set, or lacks what ``show`` or
            ``tta`` needs.
    """
    merge_common(cfg, name, work_dir, cfg_options, launcher)
    if cfg.get('test_dataloader') is None:
        raise ConfigError(
            f"config '{name}' has no test_dataloader: set test_dataloader, "
            'test_evaluator and test_cfg.'
        )
    require_checkpoint(checkpoint)
    cfg.load_from = checkpoint
    if amp:
        cfg.test_cfg.fp16 = True
    if show or show_dir:
        _show(cfg, show, show_dir, interval, wait_time)
    if tta:
        _use_tta(cfg)
    set_dataloader_defaults(cfg, 'test_dataloader', pin_memory, True)
    return cfg


def build_test_runner(cfg, checkpoint):
    """Build the runner of a test, and make sure that the weights fit.

    Args:
        cfg (Config): Of :func:`prepare_test_config`.
        checkpoint (str): The weights that it is to load.

    Returns:
        Runner: Ready for ``runner.test()``.

    Raises:
        CheckpointError: The checkpoint is not of this config's model.
    """
    runner = build_runner(cfg)
    require_fit(runner.model, checkpoint)
    return runner


def _require_classes(runner):
    """A head from elsewhere must name the classes as the test set does."""
    check = getattr(runner.model, 'require_classes', None)
    if check is not None:
        check(runner.test_dataloader.dataset.metainfo.get('classes'))


def require_fit(model, checkpoint, use='tested'):
    """Stop where mmengine would load what fits, and test a random rest.

    Args:
        model (nn.Module): Of a config.
        checkpoint (str): The weights that it is to get.
        use (str): What happens to them, for the message.

    Returns:
        dict[str, Tensor]: The weights.

    Raises:
        CheckpointError: They are not of this model.
    """
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    # mmengine looks for the weights under no other key.
    state = read_state_dict(checkpoint, use, nested=('state_dict',))
    mismatch = compare_state(model, state).without(
        # Statistics of images: whether they are saved depends on the version.
        lambda key: key.startswith('data_preprocessor.')
    )
    if not mismatch:
        return state
    raise CheckpointError(
        f"{use} checkpoint '{checkpoint}' does not fit the config's "
        f'{type(model).__name__}: {mismatch.describe()} A test needs a whole '
        "model's checkpoint: epoch_*.pth or iter_*.pth in the work directory "
        'of a run of this config; an exported student is for init_cfg.'
    )


def _show(cfg, show, show_dir, interval, wait_time):
    hook = (cfg.get('default_hooks') or {}).get('visualization')
    if hook is None:
        raise ConfigError(
            '--show and --show-dir need a visualization hook: set '
            "default_hooks.visualization=dict(type='VisualizationHook') "
            "(mmpretrain) or dict(type='SegVisualizationHook') (mmseg)."
        )
    hook.update(show=show, wait_time=wait_time, interval=interval)
    if cfg.get('default_scope') == 'mmseg':
        hook.draw = True
        if show_dir:
            cfg.visualizer.save_dir = show_dir
    else:
        hook.update(enable=True, out_dir=show_dir)


def _use_tta(cfg):
    if 'tta_model' not in cfg or 'tta_pipeline' not in cfg:
        raise ConfigError(
            '--tta needs tta_model and tta_pipeline in the config.'
        )
    cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)
    cfg.test_dataloader.dataset.pipeline = cfg.tta_pipeline


def _write_label_maps(cfg, directory):
    evaluators = cfg.test_evaluator
    if isinstance(evaluators, dict):
        evaluators = [evaluators]
    for evaluator in evaluators:
        if evaluator.type.split('.')[-1] == 'IoUMetric':
            evaluator.update(output_dir=directory, keep_results=True)
