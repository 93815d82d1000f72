"""What the framework costs on top of its parts, as ratios of one run.

* step: one distillation step of the Runner (hooks, logging, preprocessing)
  against the same modules in a bare PyTorch loop on the same batches;
* loading: pairs of 640x480 JPEG and 16-bit PNG with shared geometry against
  the sum of two stock pipelines of single images on the same files;
* safeguards: a training iteration of the Runner, loading included, with
  seeded samples and steps (ExactResumeHook), NonFiniteGuardHook and
  StopOnSignalHook against the same Runner without them; once more with
  max_skipped=1, which keeps a copy of all statistics.

Both sides are interleaved and the median is taken, so that other load on the
machine falls on both. Of the safeguards the CPU time is compared, too, which
leaves other load out, and the quartiles of single pairs are given.
"""

import argparse
import copy
import statistics
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.logging import MessageHub, MMLogger
from mmengine.optim import OptimWrapper
from mmengine.registry import init_default_scope
from mmengine.runner import Runner

import mmcmcd  # noqa: F401
from mmcmcd.apis import run_tool
from mmcmcd.datasets.seeded import derive_seed, seed_generators
from mmcmcd.engine import (
    ExactResumeHook,
    NonFiniteGuardHook,
    StopOnSignalHook,
)
from mmcmcd.registry import DATASETS, MODELS

ROWS = ('step', 'loading', 'safeguards', 'skipping')
HEIGHT, WIDTH = 480, 640
GEOMETRY = [
    dict(
        type='RandomResizedCrop',
        scale=(96, 128),
        crop_ratio_range=(0.3, 1.0),
        interpolation='bilinear',
    ),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
]


def parse_args():
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--pairs', type=int, default=64)
    parser.add_argument('--steps', type=int, default=30)
    parser.add_argument('--batch-size', type=int, default=32)
    parser.add_argument('--threads', type=int, default=2)
    parser.add_argument(
        '--only', nargs='+', choices=ROWS, default=ROWS, help='rows to measure'
    )
    return parser.parse_args()


def write_pairs(root, num):
    """Write smooth random JPEGs and 16-bit depth maps, as cameras give."""
    rng = np.random.default_rng(0)
    for name in ('rgb', 'depth'):
        (root / name).mkdir(parents=True)
    for index in range(num):
        coarse = rng.uniform(0, 255, (24, 32, 3)).astype(np.float32)
        rgb = cv2.resize(coarse, (WIDTH, HEIGHT))
        rgb += rng.normal(0, 4, rgb.shape)
        cv2.imwrite(
            str(root / f'rgb/{index:04d}.jpg'),
            rgb.clip(0, 255).astype(np.uint8),
        )
        coarse = rng.uniform(700, 9000, (12, 16)).astype(np.float32)
        depth = cv2.resize(coarse, (WIDTH, HEIGHT)).astype(np.uint16)
        cv2.imwrite(str(root / f'depth/{index:04d}.png'), depth)


def paired_dataset(root):
    """Make the data set under test."""
    return DATASETS.build(
        dict(
            type='mmcmcd.PairedModalityDataset',
            data_root=str(root),
            pipeline=[
                dict(
                    type='mmcmcd.OnSide',
                    sides='source',
                    transforms=[dict(type='mmcmcd.LoadImageStrict')],
                ),
                dict(
                    type='mmcmcd.OnSide',
                    sides='target',
                    transforms=[
                        dict(
                            type='mmcmcd.LoadDepthFromFile', depth_scale=1000.0
                        )
                    ],
                ),
                dict(
                    type='mmcmcd.SharedGeometry',
                    transforms=copy.deepcopy(GEOMETRY),
                ),
                dict(type='mmcmcd.PackPairedInputs'),
            ],
        )
    )


def stock_dataset(root, folder):
    """Make a single-modality data set of mmpretrain alone."""
    geometry = copy.deepcopy(GEOMETRY)
    load = dict(type='LoadImageFromFile')
    if folder == 'depth':
        load.update(color_type='unchanged')
        geometry[0].update(interpolation='nearest')
    return DATASETS.build(
        dict(
            type='CustomDataset',
            data_root=str(root),
            data_prefix=folder,
            with_label=False,
            pipeline=[load, *geometry, dict(type='PackInputs')],
        )
    )


def measure_loading(root, num):
    """Return median seconds per pair: ours, sum of the stock pipelines."""
    paired = paired_dataset(root)
    stock = [stock_dataset(root, folder) for folder in ('rgb', 'depth')]
    ours, theirs = [], []
    for index in [*range(4), *range(num)]:
        start = time.perf_counter()
        paired[index]
        middle = time.perf_counter()
        for dataset in stock:
            dataset[index]
        ours.append(middle - start)
        theirs.append(time.perf_counter() - middle)
    return statistics.median(ours[4:]), statistics.median(theirs[4:])


class _StartHook(Hook):
    priority = 'HIGHEST'

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.start = time.perf_counter()


class _BareLoopHook(Hook):
    """Time the Runner's step, then the bare loop on the same batch."""

    priority = 'LOWEST'

    def __init__(self, start, model, learning_rate):
        self.start, self.model = start, model
        self.optimizer = torch.optim.AdamW(
            model.parameters(), lr=learning_rate
        )
        self.runner_times, self.bare_times = [], []

    def after_train_iter(self, runner, batch_idx, data_batch=None, **_):
        now = time.perf_counter()
        self.runner_times.append(now - self.start.start)
        self._bare_step(data_batch)
        self.bare_times.append(time.perf_counter() - now)

    def _bare_step(self, batch):
        model = self.model
        pre = model.data_preprocessor
        source = batch['inputs']['source'].flip(1).float()
        source = (source - pre.source.mean) / pre.source.std
        target = batch['inputs']['target'].float()
        target = (target - pre.target.mean) / pre.target.std
        teacher = model.embed_source(source)
        student = model.embed_target(target)
        loss = sum(model.losses['cmcd'](student, teacher).values())
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()


class _SwitchHook(Hook):
    """Time iterations with and without the safeguards in turns.

    Args:
        guard (NonFiniteGuardHook): One of the safeguards.
        others (list[Hook]): The others.
    """

    priority = 'LOWEST'

    def __init__(self, guard, others):
        self.guard, self.safeguards = guard, [guard, *others]
        self.times = {True: [], False: []}

    def before_run(self, runner):
        # Before ExactResumeHook puts its own loader there.
        self.loader = runner.train_loop.dataloader

    def before_train(self, runner):
        loop = runner.train_loop
        iterator = type(loop.dataloader_iterator)
        self.iterators = {
            True: loop.dataloader_iterator,
            False: iterator(self.loader),
        }
        self.hooks = {
            True: runner._hooks,
            False: [h for h in runner._hooks if h not in self.safeguards],
        }
        self.is_on = True
        self.start = time.perf_counter(), time.process_time()

    def after_train_iter(self, runner, batch_idx, data_batch=None, **_):
        now = time.perf_counter(), time.process_time()
        self.times[self.is_on].append(
            [end - start for start, end in zip(self.start, now, strict=True)]
        )
        # On, off, off, on: whatever drifts falls on both.
        self.is_on = (runner.iter + 1) % 4 in (0, 3)
        self.guard.after_train(runner)
        if self.is_on:
            self.guard.before_train(runner)
        runner._hooks = self.hooks[self.is_on]
        runner.train_loop.dataloader_iterator = self.iterators[self.is_on]
        self.start = time.perf_counter(), time.process_time()


def tiny_config(folder):
    """The shipped tiny configuration with a teacher of random weights."""
    cfg = Config.fromfile(
        Path(__file__).resolve().parents[2] / 'configs/cmcd/depth_nyu_tiny.py'
    )
    net = {k: v for k, v in cfg.model.teacher.items() if k != 'init_cfg'}
    teacher = MODELS.build(net)
    checkpoint = folder / 'teacher.pth'
    torch.save(
        {f'backbone.{k}': v for k, v in teacher.state_dict().items()},
        checkpoint,
    )
    cfg.model.teacher.init_cfg.checkpoint = str(checkpoint)
    cfg.model.data_preprocessor.target.update(mean=[2.8], std=[1.5])
    return cfg


def run(cfg, dataset, work_dir, batch_size, iterations, hooks):
    """Train for some iterations with hooks."""
    Runner(
        model=cfg.model,
        work_dir=str(work_dir),
        train_dataloader=dict(
            batch_size=batch_size,
            num_workers=0,
            sampler=dict(type='InfiniteSampler', shuffle=True),
            collate_fn=dict(type='default_collate'),
            dataset=dataset,
        ),
        train_cfg=dict(type='IterBasedTrainLoop', max_iters=iterations),
        optim_wrapper=dict(optimizer=dict(type='AdamW', lr=1e-3)),
        default_hooks=dict(checkpoint=None),
        custom_hooks=hooks,
        default_scope='mmpretrain',
        experiment_name=work_dir.name,
        log_level='WARNING',
    ).train()


def measure_step(root, work_dir, batch_size, steps):
    """Return median seconds per step: of the Runner, of the bare loop."""
    cfg = tiny_config(work_dir.parent)
    bare = MODELS.build(copy.deepcopy(cfg.model))
    bare.init_weights()
    bare.train()
    start = _StartHook()
    hook = _BareLoopHook(start, bare, 1e-3)
    dataset = paired_dataset(root)
    run(cfg, dataset, work_dir, batch_size, steps + 3, [start, hook])
    return (
        statistics.median(hook.runner_times[3:]),
        statistics.median(hook.bare_times[3:]),
    )


def measure_safeguards(root, work_dir, batch_size, steps, max_skipped):
    """Return seconds of iterations with and without the safeguards.

    Returns:
        tuple[list, list]: Wall-clock and CPU seconds of each, as many.
    """
    guard = NonFiniteGuardHook(max_skipped=max_skipped)
    others = [ExactResumeHook(), StopOnSignalHook()]
    switch = _SwitchHook(guard, others)
    run(
        tiny_config(work_dir.parent),
        paired_dataset(root),
        work_dir,
        batch_size,
        2 * steps + 4,
        [guard, *others, switch],
    )
    return switch.times[True][2:], switch.times[False][2:]


def measure_alone(folder, batch_size, repeats=50):
    """Return median CPU seconds of what the safeguards do in an iteration."""
    model = MODELS.build(tiny_config(folder).model)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    wrapper = OptimWrapper(torch.optim.AdamW(model.parameters()))
    wrapper.step = lambda: None
    runner = SimpleNamespace(
        model=model, optim_wrapper=wrapper, message_hub=MessageHub('alone')
    )
    guard = NonFiniteGuardHook()
    guard.before_train(runner)
    times = []
    for place in range(repeats):
        start = time.process_time()
        for sample in range(batch_size):
            seed_generators(derive_seed(0, 0, 0, place, sample))
        seed_generators(derive_seed(0, 1, place), devices=True)
        wrapper.step()
        times.append(time.process_time() - start)
    return statistics.median(times)


def report(name, unit, ours, theirs, limit):
    """Print one line of the table."""
    print(
        f'{name:32s} {ours * 1e3:9.2f} {theirs * 1e3:9.2f} '
        f'{ours / theirs:7.3f} {limit:7.2f}   ms per {unit}'
    )


def report_safeguards(name, ours, theirs):
    """Print one line of the table, and below it how sure it is."""
    wall, cpu = (
        [[times[kind] for times in side] for side in (ours, theirs)]
        for kind in (0, 1)
    )
    report(name, 'iteration', *map(statistics.median, wall), 1.01)
    for kind, (mine, other) in dict(wall=wall, cpu=cpu).items():
        ratios = [a / b for a, b in zip(mine, other, strict=True)]
        quartiles = statistics.quantiles(ratios, n=4)
        ratio = statistics.median(mine) / statistics.median(other)
        print(
            f'    {kind}: ratio of medians {ratio:.4f}, of {len(ratios)} '
            'pairs: quartiles '
            + ', '.join(f'{quartile:.4f}' for quartile in quartiles)
        )


def main():
    """Measure and print the ratios."""
    args = parse_args()
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(0)
    init_default_scope('mmpretrain')
    MMLogger.get_instance('mmengine', log_level='WARNING')
    print(f'{"":32s} {"ours":>9s} {"parts":>9s} {"ratio":>7s} {"limit":>7s}')
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        data = root / 'data'
        write_pairs(data, args.pairs)
        amount = args.batch_size, args.steps
        if 'step' in args.only:
            step = measure_step(data, root / 'run', *amount)
            report('step: Runner / bare loop', 'step', *step, 1.10)
        if 'loading' in args.only:
            loading = measure_loading(data, args.pairs)
            report('loading: pair / two singles', 'pair', *loading, 1.10)
        if 'safeguards' in args.only:
            times = measure_safeguards(data, root / 'stop', *amount, 0)
            report_safeguards('safeguards / without', *times)
            alone = measure_alone(root, args.batch_size)
            cpu = statistics.median(cpu for _, cpu in times[1])
            print(
                f'    alone: {alone * 1e3:.2f} ms of CPU time, '
                f'{alone / cpu:.2%} of an iteration without'
            )
        if 'skipping' in args.only:
            times = measure_safeguards(data, root / 'skip', *amount, 1)
            report_safeguards('the same with max_skipped=1', *times)


if __name__ == '__main__':
    run_tool(main)
