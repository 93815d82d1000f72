"""A distillation that draws random numbers wherever a run can draw them.

Shared by the tests of stopping and resuming. Networks, pairs and steps are
few: a run takes a second.
"""

import os
import signal

import torch
from conftest import TinyRun

from mmcmcd.apis.train import build_runner, prepare_train_config
from mmcmcd.engine import TrainingStopped

NUM_PAIRS, BATCH_SIZE = 10, 2
EPOCH = NUM_PAIRS // BATCH_SIZE
TOTAL = 3 * EPOCH

PARTS = """
import json
import os
import random
import signal

import numpy as np
import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from torch import nn

from mmcmcd.registry import MODELS


@MODELS.register_module(force=True)
class NoisyNeck(nn.Module):
    # Draws from all libraries while it trains.
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(64, 64)
        self.norm = nn.BatchNorm1d(64)
        self.drop = nn.Dropout(0.5)

    def forward(self, feats):
        rows = self.norm(self.linear(feats[-1].flatten(1)))
        if not self.training:
            return rows,
        noise = 1 + 0.1 * (random.random() + np.random.rand())
        return self.drop(rows) * noise,


@HOOKS.register_module(force=True)
class DiaryHook(Hook):
    # Notes what every step saw, and stops where it is told to.
    def __init__(self, path, stop_at=None, signum=None, rank=None):
        self.path, self.stop_at, self.signum = path, stop_at, signum
        self.rank = rank

    def after_train_iter(self, runner, batch_idx, data_batch, outputs):
        ids = [s.pair_id for s in data_batch['data_samples']]
        pixels = {k: float(v.double().sum())
                  for k, v in data_batch['inputs'].items()}
        line = json.dumps([runner.epoch, batch_idx, runner.iter, ids, pixels])
        with open(f'{self.path}.{get_rank()}', 'a') as file:
            file.write(line + chr(10))
        if runner.iter + 1 == self.stop_at and self.rank in (None, get_rank()):
            os.kill(os.getpid(), self.signum)

    def after_train(self, runner):
        torch.save(
            dict(python=str(random.getstate()),
                 numpy=str(np.random.get_state()[1].tolist()),
                 torch=torch.get_rng_state()),
            f'{self.path}.{get_rank()}.rng')
"""

CONFIG = """
_base_ = './tiny.py'
custom_imports = dict(imports=['mmcmcd', 'noisy_parts'])
_load = _base_.train_dataloader.dataset.pipeline[:2]
train_dataloader = dict(
    batch_size={batch_size},
    dataset=dict(pipeline=[
        *_load,
        dict(type='mmcmcd.OnSide', sides='source', transforms=[
            dict(type='ColorJitter', brightness=0.4)]),
        dict(type='mmcmcd.SharedGeometry', transforms=[
            dict(type='RandomResizedCrop', scale=32,
                 crop_ratio_range=(0.3, 1.0)),
            dict(type='RandomFlip', prob=0.5)]),
        dict(type='mmcmcd.PackPairedInputs'),
    ]))
train_cfg = dict(max_epochs=3, val_interval=1)
optim_wrapper = dict(
    _delete_=True, type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-3))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=4),
    dict(type='CosineAnnealingLR', T_max=3, by_epoch=True,
         convert_to_iter_based=True)]
model = dict(
    student_projector=dict(type='mmcmcd.NoisyNeck'),
    momentum_student=dict(type='ExponentialMovingAverage', momentum=0.1),
    queue=dict(type='mmcmcd.FeatureQueue', size=7, teacher_dim=64,
               student_dim=64))
custom_hooks = [
    *_base_.custom_hooks,
    dict(type='EMAHook', momentum=0.1),
    dict(type='mmcmcd.SyncStatisticsHook'),
    dict(type='DiaryHook', path='{root}/diary')]
"""

BY_ITERATION = """
_base_ = './noisy.py'
train_cfg = dict(_delete_=True, type='IterBasedTrainLoop', max_iters={total})
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=100))
"""


class NoisyRun(TinyRun):
    """A :class:`TinyRun` with the config above, for this process or others.

    Args:
        root (Path): Where everything goes.
    """

    def __init__(self, root):
        super().__init__(root, num_pairs=NUM_PAIRS)
        (root / 'noisy_parts.py').write_text(PARTS)
        self.config = root / 'noisy.py'
        text = CONFIG.replace('{root}', str(root))
        self.config.write_text(text.replace('{batch_size}', str(BATCH_SIZE)))
        self.iter_config = root / 'noisy_iter.py'
        self.iter_config.write_text(
            BY_ITERATION.replace('{total}', str(TOTAL))
        )

    def run(
        self, name, resume=None, stop_at=None, by_iteration=False, **options
    ):
        """Train in this process, up to the end or to a stop.

        Args:
            name (str): Of the work directory and the diary.
            resume (str, optional): As of ``tools/train.py``.
            stop_at (int, optional): Send SIGTERM to this process after so
                many iterations.
            by_iteration (bool): Whether the loop knows no epochs.
            **options: Dotted keys of the config.

        Returns:
            TrainingStopped | None: The stop.
        """
        from mmcmcd.apis import load_config

        work_dir = self.root / name
        options = {
            f'custom_hooks.{self.diary_index}.path': str(work_dir) + '_diary',
            f'custom_hooks.{self.diary_index}.stop_at': stop_at,
            f'custom_hooks.{self.diary_index}.signum': int(signal.SIGTERM),
            **options,
        }
        config = str(self.iter_config if by_iteration else self.config)
        cfg = prepare_train_config(
            load_config(config),
            config,
            work_dir=str(work_dir),
            resume=resume,
            cfg_options=options,
        )
        cfg.experiment_name = f'{name}_{resume}_{os.urandom(4).hex()}'
        cfg.log_level = 'WARNING'
        try:
            build_runner(cfg).train()
        except TrainingStopped as stop:
            return stop
        return None

    diary_index = 6

    def diary(self, name, rank=0):
        """What each step saw, one line a step, of all runs of that name."""
        path = self.root / f'{name}_diary.{rank}'
        return path.read_text().splitlines()

    def generators(self, name, rank=0):
        """The states of all random generators after the last step."""
        return torch.load(self.root / f'{name}_diary.{rank}.rng')

    def last(self, name):
        """What the last checkpoint holds."""
        path = (self.root / name / 'last_checkpoint').read_text()
        return torch.load(path, weights_only=False)


def differences(first, second, where=''):
    """Name all places where two checkpoints differ, bit for bit.

    Args:
        first, second: Nested containers of tensors and values.
        where (str): Their place, for the names.

    Returns:
        list[str]: The places; empty if all is equal.
    """
    if torch.is_tensor(first):
        same = (
            torch.is_tensor(second)
            and first.dtype == second.dtype
            and torch.equal(first, second)
        )
        return [] if same else [where]
    if isinstance(first, dict):
        keys = sorted({*map(str, first)} ^ {*map(str, second)})
        found = [f'{where}.{key} missing' for key in keys]
        for key in first.keys() & second.keys():
            found += differences(first[key], second[key], f'{where}.{key}')
        return found
    if isinstance(first, (list, tuple)):
        if len(first) != len(second):
            return [where]
        pairs = zip(first, second, strict=True)
        return [
            line
            for i, (a, b) in enumerate(pairs)
            for line in differences(a, b, f'{where}.{i}')
        ]
    return [] if first == second else [where]
