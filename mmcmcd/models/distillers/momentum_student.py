"""A moving average of the student, whose rows a queue keeps."""

from mmengine.model import BaseAveragedModel
from torch import nn

from mmcmcd.errors import ConfigError
from mmcmcd.registry import MODELS


def build_momentum_student(
    cfg: dict, networks: nn.ModuleDict
) -> BaseAveragedModel:
    """Build a moving average that no optimizer changes.

    Its first update, at the first step of training, makes it an equal copy:
    only then are the networks initialised, or loaded from elsewhere.

    Args:
        cfg (dict): Config of an averaged model of mmengine or mmpretrain.
        networks (nn.ModuleDict): What it averages.

    Raises:
        ConfigError: ``cfg`` builds none, or averages buffers.
    """
    if cfg.get('update_buffers'):
        # mmengine averages tensors that .to(device) leaves behind.
        raise ConfigError(
            'model.momentum_student.update_buffers must be False: buffers '
            'are copied from the student, not averaged.'
        )
    try:
        return MODELS.build(cfg, default_args=dict(model=networks))
    except (AssertionError, TypeError) as error:
        raise ConfigError(
            f'model.momentum_student={dict(cfg)}: {error}. Expected an '
            'averaged model of mmengine or mmpretrain, such as '
            "dict(type='ExponentialMovingAverage', momentum=0.001)."
        ) from error
