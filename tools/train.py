"""Train a distillation, classification or segmentation config."""

import argparse
import os

from mmcmcd.apis import (
    add_cfg_options_flag,
    add_trust_flag,
    run_tool,
    train_from_config,
)


def parse_args():
    """Read the command line."""
    parser = argparse.ArgumentParser(description='Train a model')
    parser.add_argument(
        'config', help='config file, or mmcmcd::NAME for a packaged one'
    )
    parser.add_argument('--work-dir', help='the dir to save logs and models')
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        help='checkpoint to resume from; without a value, the latest one in '
        'the work directory',
    )
    parser.add_argument(
        '--amp',
        action='store_true',
        help='mixed-precision training (bfloat16 on a CPU)',
    )
    parser.add_argument(
        '--no-validate',
        action='store_true',
        help='do not validate during training',
    )
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help='scale the learning rate to the actual batch size',
    )
    parser.add_argument(
        '--no-pin-memory',
        action='store_true',
        help='disable pin_memory in the data loaders',
    )
    parser.add_argument(
        '--no-persistent-workers',
        action='store_true',
        help='disable persistent_workers in the data loaders',
    )
    add_cfg_options_flag(parser)
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='job launcher',
    )
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)
    add_trust_flag(parser)
    return parser.parse_args()


def main():
    """Train."""
    args = parse_args()
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    train_from_config(
        args.config,
        work_dir=args.work_dir,
        resume=args.resume,
        amp=args.amp,
        no_validate=args.no_validate,
        auto_scale_lr=args.auto_scale_lr,
        pin_memory=not args.no_pin_memory,
        persistent_workers=not args.no_persistent_workers,
        cfg_options=args.cfg_options,
        launcher=args.launcher,
    )


if __name__ == '__main__':
    run_tool(main)
