"""A distillation that draws random numbers wherever a run can draw them.

Shared by the tests of stopping and resuming. Networks, pairs and steps are
few: a run takes a second.
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import torch
from conftest import REPO, TinyRun, process_env

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
import time

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
    def __init__(self, path, stop_at=None, signum=None, rank=None,
                 group=False, times=1, pause=0):
        self.path, self.stop_at, self.signum = path, stop_at, signum
        self.rank, self.group = rank, group
        self.times, self.pause = times, pause

    def after_train_iter(self, runner, batch_idx, data_batch, outputs):
        ids = [s.pair_id for s in data_batch['data_samples']]
        pixels = {k: float(v.double().sum())
                  for k, v in data_batch['inputs'].items()}
        line = json.dumps([runner.epoch, batch_idx, runner.iter, ids, pixels])
        with open(f'{self.path}.{get_rank()}', 'a') as file:
            file.write(line + chr(10))
        if runner.iter + 1 == self.stop_at and self.rank in (None, get_rank()):
            for _ in range(self.times):
                if self.group:
                    os.killpg(os.getpgrp(), self.signum)
                else:
                    os.kill(os.getpid(), self.signum)
                time.sleep(self.pause)

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

SERVER = """
import json
import os
import runpy
import sys

# Packages print when they are imported.
answers = os.fdopen(os.dup(1), 'w')
os.dup2(2, 1)

import mmcmcd.apis.train
import mmcmcd.engine
import mmcmcd.evaluation
import mmcmcd.models
import mmpretrain.engine
import mmpretrain.models


def become(argv, log, env):
    os.setsid()  # a group of its own, as a shell gives it
    os.environ.update(env)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for handle in (1, 2):
        os.dup2(output, handle)
    sys.argv = argv
    runpy.run_path(argv[0], run_name='__main__')


while line := sys.stdin.readline():
    request = json.loads(line)
    if 'argv' in request:
        answer = os.fork()
        if not answer:
            become(**request)
            sys.exit()
    else:
        answer = os.waitstatus_to_exitcode(os.waitpid(request['pid'], 0)[1])
    print(answer, file=answers, flush=True)
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
        options = {**self.diary_options(name, stop_at=stop_at), **options}
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

    def diary_options(self, name, signum=signal.SIGTERM, **options):
        """Options of the config for a run's diary, and for its stop."""
        options = dict(path=f'{self.root}/{name}_diary', **options)
        options['signum'] = int(signum)
        index = self.diary_index
        return {f'custom_hooks.{index}.{k}': v for k, v in options.items()}

    def arguments(self, name, *args, stop=None, **options):
        """Arguments of ``tools/train.py`` for a run in another process.

        Args:
            name (str): Of the work directory and the diary.
            *args (str): More arguments, in front of the options.
            stop (dict, optional): Arguments of the diary hook: ``stop_at``,
                ``signum``, ``rank``, ``group``, ``times`` and ``pause``.
            **options: Dotted keys of the config.

        Returns:
            list[str]: Without the name of the config.
        """
        options = {**self.diary_options(name, **(stop or {})), **options}
        return [
            f'--work-dir={self.root / name}',
            *args,
            '--cfg-options',
            *(f'{key}={value}' for key, value in options.items()),
        ]

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


class FinishedTool(NamedTuple):
    """How a tool's process ended, and what it said."""

    status: int
    log: str


class ToolServer:
    """Starts tools in processes of their own, whose imports are paid once.

    Args:
        root (Path): For logs; modules there can be imported.
    """

    def __init__(self, root):
        self._root, self._logs = root, {}
        self._server = subprocess.Popen(
            [sys.executable, '-c', SERVER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=process_env(PYTHONPATH=f'{REPO}:{root}'),
        )

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._server.communicate(timeout=30)

    def start(self, name, *args, **env):
        """Start a tool in a group and session of its own.

        Args:
            name (str): Of the tool.
            *args (str | Path): Its arguments.
            **env (str): Of its environment.

        Returns:
            int: Number of the process.
        """
        log = str(self._root / f'tool_{len(self._logs)}.log')
        argv = [str(part) for part in (REPO / 'tools' / name, *args)]
        pid = self._ask(argv=argv, log=log, env=env)
        self._logs[pid] = log
        return pid

    def finish(self, pid):
        """Wait for the end of a process that was started here."""
        status = self._ask(pid=pid)
        return FinishedTool(status, Path(self._logs[pid]).read_text())

    def _ask(self, **request):
        self._server.stdin.write(json.dumps(request) + '\n')
        self._server.stdin.flush()
        return int(self._server.stdout.readline())
