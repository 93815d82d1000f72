"""Classify by nearest neighbours of a student's features."""

import copy

from torch import Tensor

from ..engine.hooks import KNNHook
from ..errors import CheckpointError, ConfigError
from ..evaluation.functional import knn_votes
from ..models.utils import load_backbone_strict, pretrained_cfgs
from .cli import load_config
from .train import build_runner, merge_common, set_dataloader_defaults


class _KNNCurveHook(KNNHook):
    """Several numbers of neighbours, from features that are computed once."""

    def __init__(self, num_knn: list[int], **kwargs) -> None:
        # The largest one is what the bank must allow.
        super().__init__(k=max(num_knn), on='test', **kwargs)
        self.num_knn = num_knn

    def _limit_k(self, bank_size: int) -> None:
        """Each number was asked for: a bank too small for it is an error."""

    def score(
        self, bank: tuple[Tensor, Tensor], queries: tuple[Tensor, Tensor]
    ) -> dict[str, float]:
        """Return ``knn/top1_<k>`` and ``knn/top5_<k>`` for every k."""
        features, labels = queries
        figures = {}
        for k in self.num_knn:
            votes = knn_votes(*bank, features, **dict(self.settings, k=k))
            best = votes.topk(min(5, votes.shape[1]), dim=1).indices
            right = (best == labels[:, None]).double()
            figures[f'knn/top1_{k}'] = 100 * float(right[:, 0].mean())
            figures[f'knn/top5_{k}'] = 100 * float(right.sum(dim=1).mean())
        return figures


def knn_from_config(
    config,
    checkpoint=None,
    *,
    num_knn=(10, 20, 100, 200),
    temperature=0.07,
    dataset_config=None,
    work_dir=None,
    cfg_options=None,
    launcher='none',
):
    """Classify the test set by its neighbours in the training set.

    The neighbours vote with ``exp(cosine / temperature)``, see
    :func:`mmcmcd.evaluation.functional.knn_votes`.

    Args:
        config (str): Of a classifier, see :func:`mmcmcd.apis.load_config`.
        checkpoint (str, optional): An exported student, or a checkpoint of a
            classifier; its keys ``backbone.*`` are taken. Defaults to None:
            what ``model.backbone.init_cfg`` names.
        num_knn (Sequence[int]): Numbers of neighbours.
        temperature (float): Of the votes.
        dataset_config (str, optional): Config whose data are used. Defaults
            to None: ``config``. Labelled neighbours come from its
            ``default_hooks.knn.bank_dataloader``, or else from the data set
            of its ``train_dataloader`` through the pipeline of the test set.
        work_dir (str, optional): Where the log goes.
        cfg_options (dict, optional): Dotted keys and their values.
        launcher (str): Job launcher.

    Returns:
        dict[str, float]: ``knn/top1_<k>`` and ``knn/top5_<k>``, in percent.

    Raises:
        CheckpointError: There are no weights, or they do not fit.
        ConfigError: The config is none of a classifier, lacks data, or a
            number of neighbours is out of range.
    """
    cfg = load_config(config)
    merge_common(cfg, config, work_dir, cfg_options, launcher)
    data = cfg if dataset_config is None else load_config(dataset_config)
    _require_data(data, dataset_config or config)
    if 'backbone' not in cfg.get('model', {}):
        raise ConfigError(
            f"config '{config}' has no model.backbone; expected one of a "
            'classifier (configs/downstream). Of a distillation config '
            'tools/test.py reports knn/top1.'
        )
    bank = _bank(data)
    cfg.test_dataloader = copy.deepcopy(data.test_dataloader)
    cfg.test_cfg, cfg.test_evaluator = dict(type='TestLoop'), []
    set_dataloader_defaults(cfg, 'test_dataloader', True, True)
    # Those of the config would evaluate in other ways.
    cfg.custom_hooks, cfg.default_hooks = [], {}
    weights = _weights(cfg.model.backbone, checkpoint)
    hook = _KNNCurveHook(
        num_knn=list(num_knn),
        bank_dataloader=bank,
        weights='softmax',
        temperature=temperature,
    )
    runner = build_runner(cfg)
    model = getattr(runner.model, 'module', runner.model)
    load_backbone_strict(model.backbone, role='backbone', **weights)
    runner.register_hook(hook)
    return runner.test()


def _require_data(data, name):
    missing = [
        field
        for field in ('train_dataloader', 'test_dataloader')
        if not data.get(field)
    ]
    if missing:
        raise ConfigError(
            f"config '{name}' has no {' and no '.join(missing)}: the images "
            'of train_dataloader vote, those of test_dataloader are '
            'classified. Or name a --dataset-config that has both.'
        )


def _bank(data):
    """Labelled images, transformed like those that are to be classified."""
    hook = data.get('default_hooks', {}).get('knn')
    if hook:
        return hook.bank_dataloader
    bank = copy.deepcopy(data.test_dataloader)
    bank.dataset = copy.deepcopy(data.train_dataloader.dataset)
    if 'pipeline' in data.test_dataloader.dataset:
        bank.dataset.pipeline = data.test_dataloader.dataset.pipeline
    return bank


def _weights(backbone, checkpoint):
    """Where the weights of the backbone are: file and prefix."""
    if checkpoint is not None:
        return dict(checkpoint=checkpoint, prefix='backbone.')
    init_cfgs = pretrained_cfgs(backbone.get('init_cfg'))
    if not init_cfgs:
        raise CheckpointError(
            'Neighbours by random features mean nothing: give an exported '
            'student, --checkpoint student-*.pth, or set '
            'model.backbone.init_cfg.'
        )
    return dict(
        checkpoint=init_cfgs[0].get('checkpoint'),
        prefix=init_cfgs[0].get('prefix') or '',
    )
