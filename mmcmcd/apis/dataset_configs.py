"""Reach the data sets of a configuration, through any wrappers."""

from mmengine.registry import init_default_scope

from ..errors import ConfigError


def phase_dataset_cfgs(cfg, phase):
    """The unwrapped data set configs of one phase.

    Also makes the config's ``default_scope`` the current one, so that they
    can be built.

    Args:
        cfg (Config): The whole configuration.
        phase (str): 'train', 'val' or 'test'.

    Returns:
        list[dict]: One per data set; several below a ``ConcatDataset``.

    Raises:
        ConfigError: The configuration has no such data loader.
    """
    loader = cfg.get(f'{phase}_dataloader')
    if not loader:
        there = [k for k in cfg if k.endswith('_dataloader') and cfg[k]]
        raise ConfigError(
            f'The config has no {phase}_dataloader; it has '
            f'{", ".join(there) or "none at all"}. Choose another phase.'
        )
    init_default_scope(cfg.get('default_scope', 'mmpretrain'))
    return _leaves(loader['dataset'])


def _leaves(dataset_cfg):
    if 'datasets' in dataset_cfg:
        return [x for d in dataset_cfg['datasets'] for x in _leaves(d)]
    if 'dataset' in dataset_cfg:
        return _leaves(dataset_cfg['dataset'])
    return [dataset_cfg]
