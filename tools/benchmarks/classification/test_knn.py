"""Classify by the nearest labelled neighbours of a student's features.

The options are those of mmselfsup's tool of this name, as far as they have a
meaning here.
"""

import argparse
import os

from mmengine.dist import is_main_process

from mmcmcd.apis import (
    add_cfg_options_flag,
    add_trust_flag,
    run_tool,
)
from mmcmcd.apis.knn import knn_from_config


def parse_args():
    """Read the command line."""
    parser = argparse.ArgumentParser(description='KNN evaluation')
    parser.add_argument(
        'config', help="a classifier's config, or mmcmcd::NAME"
    )
    parser.add_argument(
        '--checkpoint',
        help='exported student, or a classifier (default: what '
        'model.backbone.init_cfg names)',
    )
    parser.add_argument(
        '--dataset-config',
        help='config of the data (default: the config itself)',
    )
    parser.add_argument('--work-dir', help='the dir to save the log')
    parser.add_argument(
        '--num-knn',
        type=int,
        nargs='+',
        default=[10, 20, 100, 200],
        help='numbers of neighbours (default 10 20 100 200)',
    )
    parser.add_argument(
        '--temperature',
        type=float,
        default=0.07,
        help='of the votes, exp(cosine / temperature) (default 0.07)',
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
    """Classify."""
    args = parse_args()
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    figures = knn_from_config(
        args.config,
        args.checkpoint,
        num_knn=args.num_knn,
        temperature=args.temperature,
        dataset_config=args.dataset_config,
        work_dir=args.work_dir,
        cfg_options=args.cfg_options,
        launcher=args.launcher,
    )
    if is_main_process():
        for k in args.num_knn:
            print(
                f'{k}-NN classifier result: '
                f'Top1: {figures[f"knn/top1_{k}"]:.2f}, '
                f'Top5: {figures[f"knn/top5_{k}"]:.2f}'
            )


if __name__ == '__main__':
    run_tool(main)
