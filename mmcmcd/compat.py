"""Repairs of the environment, each with its reason and its end.

Everything here is idempotent and a no-op where nothing is broken.  It is
imported by ``mmcmcd/__init__.py`` before any OpenMMLab package is.
"""

import importlib.util
import sys
import warnings

_INSTALL = (
    "pip install '.[onedl]' in a clone of mmcmcd (maintained forks, the "
    "tested set) or pip install '.[openmmlab]'; never both, they install "
    'the same top-level packages'
)
# Library handles must outlive this module's functions, or torch drops the
# operators that were defined through them.
_KEEP_ALIVE = []


def require_packages(names=('torch', 'mmengine', 'mmcv', 'mmpretrain')):
    """Name every missing package, with the command that brings it.

    mmcmcd depends on neither OpenMMLab stack by itself, so that installing
    it never puts one stack over the other.

    Raises:
        ImportError: One or more packages are not installed.
    """
    missing = [n for n in names if importlib.util.find_spec(n) is None]
    if missing:
        raise ImportError(
            f'mmcmcd needs {", ".join(missing)}, which '
            f'{"is" if len(missing) == 1 else "are"} not '
            f'installed. Run: {_INSTALL}.'
        )


def hush_missing_ops():
    """Do not have mmcv warn of operators that were not asked for.

    Without its compiled operators mmcv.cnn warns at every start, above the
    one line of an error. Whoever builds a layer that needs them is told so
    then. Can go when mmcv warns there alone.
    """
    warnings.filterwarnings(
        'ignore', 'Fail to import ``MultiScaleDeformableAttention``'
    )


def repair_torchvision():
    """Let a CUDA build of torchvision import beside a CPU build of torch.

    Its extension cannot load there, and registering fake kernels for
    ``torchvision::nms`` then fails.  mmpretrain imports torchvision
    unconditionally.  Can go when torchvision guards its fake kernels.
    """
    if (
        'torchvision' in sys.modules
        or importlib.util.find_spec('torchvision') is None
    ):
        return
    try:
        import torchvision

        return
    except RuntimeError as error:
        if 'torchvision::' not in str(error):
            raise
    import torch

    for name in [m for m in sys.modules if m.split('.')[0] == 'torchvision']:
        del sys.modules[name]
    library = torch.library.Library('torchvision', 'FRAGMENT')
    _KEEP_ALIVE.append(library)
    for name in ('nms', 'qnms'):
        library.define(
            f'{name}(Tensor dets, Tensor scores, '
            'float iou_threshold) -> Tensor'
        )
    import torchvision  # noqa: F401


def register_config_packages():
    """Enable ``_base_ = 'mmcmcd::...'`` and ``'mmseg::...'``.

    mmengine resolves such names through a fixed table, which lacks third
    parties and, in the OneDL forks, holds mmsegmentation's former
    distribution name.  Can go when mmengine resolves installed modules.
    """
    from mmengine.config.utils import MODULE2PACKAGE

    MODULE2PACKAGE.setdefault('mmcmcd', 'mmcmcd')
    MODULE2PACKAGE['mmseg'] = 'mmseg'


def keep_default_scope():
    """Let configs that come from ``mmcmcd::`` keep their default scope.

    mmengine marks what is inherited from another package with that package's
    scope, so ``type='ResNet'`` would be looked for in mmcmcd, which has
    none.  Our configs are written for the scopes of mmpretrain and mmseg, and
    their ``default_scope`` is inherited with the rest.  Can go when mmengine
    takes the scope from the inherited ``default_scope``.
    """
    from mmengine.config import Config

    convert = Config._dict_to_config_dict
    if getattr(convert, 'keeps_default_scope', False):
        return

    def convert_without_our_scope(cfg, scope=None, has_scope=True):
        return convert(cfg, None if scope == 'mmcmcd' else scope, has_scope)

    convert_without_our_scope.keeps_default_scope = True
    Config._dict_to_config_dict = staticmethod(convert_without_our_scope)


def read_checkpoints_as_data():
    """Let no checkpoint run code when mmengine reads it.

    mmengine executes the pickles that ``weights_only`` refuses, or all of
    them, and configs that are stored in a checkpoint.  Whatever goes through
    its ``CheckpointLoader`` is read by :func:`mmcmcd.checkpoints.read_file`
    instead.  Can go when mmengine has no such fallback and parses stored
    configs as data.
    """
    from .checkpoints import register_schemes

    register_schemes()


def prepare_cpu_distributed(cfg):
    """Make ``launcher='pytorch'`` work on a machine without CUDA.

    ``mmengine.dist.init_dist`` calls ``torch.cuda.set_device`` and
    ``Runner.wrap_model`` passes ``device_ids`` to DDP; both fail on CPU.
    The process group is therefore opened here (the Runner then keeps it) and
    the wrapper is told to use no device ids.  torch has no SyncBatchNorm for
    CPUs, so that ``sync_bn`` is left out.  Can go when mmengine does so.

    Args:
        cfg (Config): The configuration; changed in place.
    """
    import torch

    if cfg.get('launcher', 'none') != 'pytorch' or torch.cuda.is_available():
        return
    import torch.distributed as dist

    if not dist.is_initialized():
        dist.init_process_group('gloo')
    wrapper = dict(cfg.get('model_wrapper_cfg') or {})
    wrapper.setdefault('type', 'MMDistributedDataParallel')
    wrapper['device_ids'] = None
    wrapper.setdefault(
        'find_unused_parameters', cfg.get('find_unused_parameters', False)
    )
    # As mmengine does without model_wrapper_cfg.
    wrapper.setdefault('broadcast_buffers', False)
    cfg.model_wrapper_cfg = wrapper
    cfg.pop('sync_bn', None)
