"""Registries of mmcmcd, children of mmengine's.

Each knows its ``locations``, so ``type='mmcmcd.X'`` in a config of any
default scope is found without ``custom_imports``.
"""

from mmengine.registry import DATA_SAMPLERS as MMENGINE_DATA_SAMPLERS
from mmengine.registry import DATASETS as MMENGINE_DATASETS
from mmengine.registry import HOOKS as MMENGINE_HOOKS
from mmengine.registry import LOOPS as MMENGINE_LOOPS
from mmengine.registry import METRICS as MMENGINE_METRICS
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import OPTIM_WRAPPERS as MMENGINE_OPTIM_WRAPPERS
from mmengine.registry import TRANSFORMS as MMENGINE_TRANSFORMS
from mmengine.registry import Registry

DATASETS = Registry(
    'dataset',
    parent=MMENGINE_DATASETS,
    scope='mmcmcd',
    locations=['mmcmcd.datasets'],
)
DATA_SAMPLERS = Registry(
    'data sampler',
    parent=MMENGINE_DATA_SAMPLERS,
    scope='mmcmcd',
    locations=['mmcmcd.datasets.samplers'],
)
TRANSFORMS = Registry(
    'transform',
    parent=MMENGINE_TRANSFORMS,
    scope='mmcmcd',
    locations=['mmcmcd.datasets.transforms'],
)
MODELS = Registry(
    'model',
    parent=MMENGINE_MODELS,
    scope='mmcmcd',
    locations=['mmcmcd.models'],
)
HOOKS = Registry(
    'hook', parent=MMENGINE_HOOKS, scope='mmcmcd', locations=['mmcmcd.engine']
)
LOOPS = Registry(
    'loop', parent=MMENGINE_LOOPS, scope='mmcmcd', locations=['mmcmcd.engine']
)
OPTIM_WRAPPERS = Registry(
    'optim_wrapper',
    parent=MMENGINE_OPTIM_WRAPPERS,
    scope='mmcmcd',
    locations=['mmcmcd.engine'],
)
METRICS = Registry(
    'metric',
    parent=MMENGINE_METRICS,
    scope='mmcmcd',
    locations=['mmcmcd.evaluation'],
)
