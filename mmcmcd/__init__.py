"""Cross-modality contrastive distillation for OpenMMLab."""

from . import compat
from .version import __version__

compat.require_packages()
compat.hush_missing_ops()
compat.repair_torchvision()
compat.register_config_packages()
compat.keep_default_scope()
compat.read_checkpoints_as_data()

__all__ = ['__version__']
