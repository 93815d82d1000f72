"""Test a distillation, classification or segmentation model."""

import argparse
import os

from mmcmcd.apis import (
    add_cfg_options_flag,
    add_trust_flag,
    run_tool,
    test_from_config,
)


def parse_args():
    """Read the command line."""
    parser = argparse.ArgumentParser(description='Test (and eval) a model')
    parser.add_argument(
        'config', help='config file, or mmcmcd::NAME for a packaged one'
    )
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('--work-dir', help='the dir to save logs and metrics')
    parser.add_argument(
        '--out',
        help='file for predictions or metrics; for a segmentation config, '
        'the directory for predicted label maps',
    )
    parser.add_argument(
        '--out-item',
        choices=['metrics', 'pred'],
        help='what --out gets; by default predictions',
    )
    add_cfg_options_flag(parser)
    parser.add_argument(
        '--amp', action='store_true', help='mixed-precision test'
    )
    parser.add_argument('--show-dir', help='directory for painted predictions')
    parser.add_argument(
        '--show', action='store_true', help='show predictions in a window'
    )
    parser.add_argument(
        '--interval', type=int, default=1, help='show every n-th sample'
    )
    parser.add_argument(
        '--wait-time', type=float, default=2, help='seconds of every window'
    )
    parser.add_argument(
        '--no-pin-memory',
        action='store_true',
        help='disable pin_memory in the data loader',
    )
    parser.add_argument(
        '--tta',
        action='store_true',
        help="test-time augmentation: the config's tta_model, tta_pipeline",
    )
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
    """Test."""
    args = parse_args()
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    test_from_config(
        args.config,
        args.checkpoint,
        out=args.out,
        out_item=args.out_item,
        work_dir=args.work_dir,
        amp=args.amp,
        show=args.show,
        show_dir=args.show_dir,
        interval=args.interval,
        wait_time=args.wait_time,
        tta=args.tta,
        pin_memory=not args.no_pin_memory,
        cfg_options=args.cfg_options,
        launcher=args.launcher,
    )


if __name__ == '__main__':
    run_tool(main)
