"""Whether a long training leaks memory or open files.

A small distiller with a queue and a momentum student learns from rendered
rooms on the way that ``tools/train.py`` goes: all hooks that it adds, loader
workers, checkpoints and validations. Now and then the resident memory of the
main process, that of all its workers and the number of their open files are
read from /proc. After a warm-up a line is fitted to each. The exit status is 1
if memory grows by the limit or more, if files stay open, or if a loss is not
finite.
"""

import argparse
import json
import math
import os
import sys
from pathlib import Path

import numpy as np
import torch
from mmengine.hooks import Hook
from mmengine.registry import init_default_scope

import mmcmcd
from mmcmcd.apis import load_config, run_tool
from mmcmcd.apis.measuring import machine_name, package_version
from mmcmcd.apis.train import build_runner, prepare_train_config
from mmcmcd.datasets.synthetic_rooms import write_rooms
from mmcmcd.engine import ProgressHook
from mmcmcd.errors import ConfigError
from mmcmcd.registry import MODELS

CONFIG = Path(__file__).resolve().parents[2] / 'configs/cmcd/depth_nyu.py'
HEIGHT, WIDTH = 32, 40
FRAMES, BATCH_SIZE, QUEUE_SIZE = 120, 4, 256
# Of a ResNet-18 whose first stage is of so many channels.
CHANNELS = 4
WIDTH_OF_ROWS = 8 * CHANNELS
MEGABYTE = 2**20
# Lines are fitted to these.
MEMORY = dict(main='the main process', workers='all workers')


def parse_args(argv=None):
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('--steps', type=int, default=20_000)
    parser.add_argument('--work-dir', default='work_dirs/soak')
    parser.add_argument(
        '--checkpoint-interval', type=int, default=1000, help='in steps'
    )
    parser.add_argument(
        '--val-interval', type=int, default=25, help='in epochs of 21 steps'
    )
    parser.add_argument(
        '--sample-interval', type=int, default=50, help='in steps'
    )
    parser.add_argument(
        '--warm-up',
        type=float,
        default=0.2,
        help='share of the steps before the fit',
    )
    parser.add_argument(
        '--limit', type=float, default=1.0, help='MB per 1,000 steps'
    )
    parser.add_argument('--threads', type=int, default=1)
    parser.add_argument('--plot', help='FILE.png of memory over steps')
    args = parser.parse_args(argv)
    for name in ('steps', 'checkpoint_interval', 'sample_interval'):
        if getattr(args, name) < 1:
            flag = name.replace('_', '-')
            raise ConfigError(f'--{flag} must be positive.')
    if not Path('/proc/self/statm').exists():
        raise ConfigError('memory is read from /proc: run it on Linux.')
    return args


class WatchHook(Hook):
    """Note what the processes hold, and whether losses are finite.

    Args:
        interval (int): Steps between two notes.
    """

    priority = 'LOWEST'

    def __init__(self, interval):
        self.interval = interval
        self.samples = []
        self.not_finite = []

    def after_train_iter(
        self, runner, batch_idx, data_batch=None, outputs=None
    ):
        """Look at the losses, and every ``interval`` steps at /proc.

        Args:
            runner (Runner): The runner.
            batch_idx (int): Of the epoch.
            data_batch (dict, optional): Of the step.
            outputs (dict[str, Tensor]): The losses of the step.
        """
        step = runner.iter + 1
        losses = torch.stack([value.detach() for value in outputs.values()])
        if not losses.isfinite().all():
            self.not_finite.append(step)
        if step % self.interval == 0:
            self.samples.append(dict(step=step, **observe()))


def observe():
    """What this process and its children hold now.

    Returns:
        dict[str, float]: Resident memory in MB of this process (``main``) and
        of its children together (``workers``), their number (``processes``),
        and the open files of all (``files``).
    """
    children = _children(os.getpid())
    return dict(
        main=_resident(os.getpid()),
        workers=sum(_resident(pid) for pid in children),
        processes=len(children),
        files=sum(_open_files(pid) for pid in (os.getpid(), *children)),
    )


def _children(parent):
    """Process ids; those of threads that end meanwhile are left out."""
    found = []
    for path in Path(f'/proc/{parent}/task').glob('*/children'):
        try:
            found += map(int, path.read_text().split())
        except OSError:
            continue
    return sorted(found)


def _resident(pid):
    try:
        pages = Path(f'/proc/{pid}/statm').read_text().split()[1]
    except (OSError, IndexError):  # it just ended
        return 0.0
    return int(pages) * os.sysconf('SC_PAGE_SIZE') / MEGABYTE


def _open_files(pid):
    try:
        return len(os.listdir(f'/proc/{pid}/fd'))
    except OSError:
        return 0


def slope(steps, values):
    """Fit a line by least squares.

    Args:
        steps (Sequence[float]): Three or more.
        values (Sequence[float]): As many.

    Returns:
        tuple[float, float]: Change per 1,000 steps, and its standard error as
        if the residuals were independent.
    """
    steps = np.asarray(steps, float) / 1000
    values = np.asarray(values, float)
    centred = steps - steps.mean()
    spread = (centred**2).sum()
    slope = (centred * values).sum() / spread
    residuals = values - values.mean() - slope * centred
    error = math.sqrt((residuals**2).sum() / (len(steps) - 2) / spread)
    return float(slope), error


def judge(samples, not_finite, warm_up, limit):
    """Say what the notes of a run tell, and what is wrong.

    Args:
        samples (list[dict]): Of :class:`WatchHook`.
        not_finite (list[int]): Steps with such a loss.
        warm_up (int): Steps before the fit.
        limit (float): MB per 1,000 steps that are too many.

    Returns:
        tuple[dict, list[str]]: Figures, and faults.

    Raises:
        ConfigError: There are fewer than three samples to fit to.
    """
    fitted = [sample for sample in samples if sample['step'] > warm_up]
    if len(fitted) < 3:
        raise ConfigError(
            f'{len(fitted)} samples after {warm_up} steps are too few for a '
            'line: raise --steps or lower --sample-interval.'
        )
    steps = [sample['step'] for sample in fitted]
    figures, faults = {}, []
    for key, name in MEMORY.items():
        rise, error = slope(steps, [sample[key] for sample in fitted])
        figures[key] = dict(
            first=fitted[0][key],
            last=fitted[-1][key],
            slope=rise,
            standard_error=error,
        )
        if not rise < limit:
            faults.append(
                f'memory of {name} grows by {rise:.3f} MB per 1,000 '
                f'steps, the limit is {limit}'
            )
    half = len(fitted) // 2
    most = [
        max(sample['files'] for sample in part)
        for part in (fitted[:half], fitted[half:])
    ]
    figures['files'] = dict(first_half=most[0], second_half=most[1])
    if most[1] > most[0]:
        faults.append(f'open files grow from {most[0]} to {most[1]}')
    if not_finite:
        faults.append(
            f'{len(not_finite)} losses are not finite, the first in step '
            f'{not_finite[0]}'
        )
    return figures, faults


def make_config(args):
    """The shipped configuration, in small.

    Args:
        args (Namespace): Of :func:`parse_args`.

    Returns:
        Config: For :func:`mmcmcd.apis.train.build_runner`.
    """
    work_dir = Path(args.work_dir)
    data = write_rooms(
        work_dir / 'rooms', FRAMES, height=HEIGHT, width=WIDTH, few_labels=()
    )
    cfg = load_config(str(CONFIG))
    net = dict(depth=18, stem_channels=CHANNELS, base_channels=CHANNELS)
    for name in ('teacher', 'student'):
        cfg.model[name].update(net)
    teacher = work_dir / 'teacher.pth'
    cfg.model.teacher.init_cfg.checkpoint = str(teacher)
    cfg.model.source_norm.num_features = WIDTH_OF_ROWS
    for name in ('in_channels', 'hid_channels', 'out_channels'):
        cfg.model.student_projector[name] = WIDTH_OF_ROWS
    cfg.model.queue = dict(
        type='mmcmcd.FeatureQueue',
        size=QUEUE_SIZE,
        teacher_dim=WIDTH_OF_ROWS,
        student_dim=WIDTH_OF_ROWS,
    )
    cfg.model.momentum_student = dict(
        type='ExponentialMovingAverage', momentum=0.01
    )
    init_default_scope(cfg.default_scope)
    torch.manual_seed(0)
    weights = MODELS.build(dict(type='ResNet', **net)).state_dict()
    torch.save({f'backbone.{k}': v for k, v in weights.items()}, teacher)

    train, val = cfg.train_dataloader, cfg.val_dataloader
    train.dataset.pipeline[2].transforms[0].scale = (HEIGHT, WIDTH)
    val.dataset.pipeline[2].transforms[0].scale = (WIDTH, HEIGHT)
    for loader in (train, val):
        loader.update(batch_size=BATCH_SIZE, num_workers=2)
        loader.dataset.data_root = f'{data}/'
    epochs = math.ceil(args.steps / math.floor(0.7 * FRAMES / BATCH_SIZE))
    cfg.train_cfg.update(max_epochs=epochs, val_interval=args.val_interval)
    warm, cosine = cfg.param_scheduler
    warm.end = cosine.begin = max(1, epochs // 20)
    cosine.end, cosine.T_max = epochs, max(1, epochs - warm.end)
    cfg.default_hooks.checkpoint.update(
        by_epoch=False, interval=args.checkpoint_interval, max_keep_ckpts=2
    )
    # One line of progress in place of a long log.
    cfg.log_level = 'WARNING'
    return prepare_train_config(
        cfg, str(CONFIG), work_dir=str(work_dir / 'run')
    )


def plot(samples, warm_up, path):
    """Draw memory over steps.

    Args:
        samples (list[dict]): Of :class:`WatchHook`.
        warm_up (int): Steps before the fit.
        path (str): The picture.
    """
    import matplotlib

    matplotlib.use('Agg')
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(
        len(MEMORY), 1, figsize=(7, 4.5), sharex=True, layout='constrained'
    )
    steps = [sample['step'] for sample in samples]
    for axis, (key, name) in zip(axes, MEMORY.items(), strict=True):
        axis.plot(steps, [sample[key] for sample in samples], linewidth=1)
        axis.axvspan(0, warm_up, color='0.92')
        axis.set_ylabel(f'{name}, MB')
        most = max(sample[key] for sample in samples)
        axis.set_ylim(0, 1.1 * most)
    axes[-1].set_xlabel('training steps (grey: warm-up, not fitted)')
    axes[0].set_title('Resident memory')
    figure.savefig(path, dpi=100)
    plt.close(figure)


def main():
    """Train, watch and judge."""
    args = parse_args()
    torch.set_num_threads(args.threads)
    runner = build_runner(make_config(args))
    watch = WatchHook(args.sample_interval)
    runner.register_hook(watch)
    runner.register_hook(
        ProgressHook(f'{runner.max_iters} steps in {args.work_dir}')
    )
    runner.train()
    warm_up = int(args.warm_up * runner.max_iters)
    figures, faults = judge(
        watch.samples, watch.not_finite, warm_up, args.limit
    )
    record = dict(
        machine=machine_name(),
        versions=[
            f'mmcmcd {mmcmcd.__version__}',
            *map(package_version, ('torch', 'onedl-mmengine', 'onedl-mmcv')),
        ],
        steps=runner.max_iters,
        warm_up=warm_up,
        figures=figures,
        faults=faults,
        samples=watch.samples,
    )
    path = Path(args.work_dir) / 'soak.json'
    path.write_text(json.dumps(record, indent=1))
    if args.plot:
        plot(watch.samples, warm_up, args.plot)
    for key, name in MEMORY.items():
        fit = figures[key]
        print(
            f'{name}: {fit["first"]:.1f} MB after the warm-up, '
            f'{fit["last"]:.1f} MB at the end, slope {fit["slope"]:+.4f} '
            f'± {fit["standard_error"]:.4f} MB per 1,000 steps '
            f'(limit {args.limit})'
        )
    print(
        'open files, at most: {first_half} in the first half, {second_half} '
        'in the second'.format(**figures['files'])
    )
    for fault in faults:
        print(f'FAULT: {fault}', file=sys.stderr)
    print(f'{runner.max_iters} steps, all samples: {path}')
    if faults:
        sys.exit(1)


if __name__ == '__main__':
    run_tool(main)
