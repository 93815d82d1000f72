"""What the framework costs on top of its parts, as ratios of one run.

* step: one distillation step of the Runner (hooks, logging, preprocessing)
  against the same modules in a bare PyTorch loop on the same batches;
* loading: pairs of 640x480 JPEG and 16-bit PNG with shared geometry against
  the sum of two stock pipelines of single images on the same files.

Both sides are interleaved and the median is taken, so that other load on the
machine falls on both.
"""

import argparse
import copy
import statistics
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from mmengine.runner import Runner

import mmcmcd  # noqa: F401
from mmcmcd.apis import run_tool
from mmcmcd.registry import DATASETS, MODELS

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


def measure_step(root, work_dir, batch_size, steps):
    """Return median seconds per step: of the Runner, of the bare loop."""
    cfg = Config.fromfile(
        Path(__file__).resolve().parents[2] / 'configs/cmcd/depth_nyu_tiny.py'
    )
    teacher = MODELS.build(dict(type='ResNet', depth=18))
    checkpoint = work_dir.parent / 'teacher.pth'
    torch.save(
        {f'backbone.{k}': v for k, v in teacher.state_dict().items()},
        checkpoint,
    )
    cfg.model.teacher.init_cfg.checkpoint = str(checkpoint)
    cfg.model.data_preprocessor.target.update(mean=[2.8], std=[1.5])
    dataset = paired_dataset(root)
    bare = MODELS.build(copy.deepcopy(cfg.model))
    bare.init_weights()
    bare.train()
    start = _StartHook()
    hook = _BareLoopHook(start, bare, 1e-3)
    runner = Runner(
        model=cfg.model,
        work_dir=str(work_dir),
        train_dataloader=dict(
            batch_size=batch_size,
            num_workers=0,
            sampler=dict(type='InfiniteSampler', shuffle=True),
            collate_fn=dict(type='default_collate'),
            dataset=dataset,
        ),
        train_cfg=dict(type='IterBasedTrainLoop', max_iters=steps + 3),
        optim_wrapper=dict(optimizer=dict(type='AdamW', lr=1e-3)),
        default_hooks=dict(checkpoint=None),
        custom_hooks=[start, hook],
        default_scope='mmpretrain',
        experiment_name='overhead',
        log_level='WARNING',
    )
    runner.train()
    return (
        statistics.median(hook.runner_times[3:]),
        statistics.median(hook.bare_times[3:]),
    )


def report(name, unit, ours, theirs, limit):
    """Print one line of the table."""
    print(
        f'{name:32s} {ours * 1e3:9.2f} {theirs * 1e3:9.2f} '
        f'{ours / theirs:7.3f} {limit:7.2f}   ms per {unit}'
    )


def main():
    """Measure and print both ratios."""
    args = parse_args()
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(0)
    init_default_scope('mmpretrain')
    MMLogger.get_instance('mmengine', log_level='WARNING')
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_pairs(root / 'data', args.pairs)
        loading = measure_loading(root / 'data', args.pairs)
        step = measure_step(
            root / 'data', root / 'run', args.batch_size, args.steps
        )
    print(f'{"":32s} {"ours":>9s} {"parts":>9s} {"ratio":>7s} {"limit":>7s}')
    report('step: Runner / bare loop', 'step', *step, 1.10)
    report('loading: pair / two singles', 'pair', *loading, 1.10)


if __name__ == '__main__':
    run_tool(main)
