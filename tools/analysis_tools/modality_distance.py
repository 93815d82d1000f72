"""Measure how far apart two modalities lie, before and after training.

Writes modality_distance.json and modality_distance.png, and prints the
figures with 95 % intervals. docs/modality_distance.md says what they mean.
"""

import argparse

from mmcmcd.apis import (
    add_cfg_options_flag,
    add_trust_flag,
    at_least,
    run_tool,
)
from mmcmcd.apis.modality_distance import (
    embed_stages,
    modality_distance,
    read_features,
)
from mmcmcd.apis.modality_distance_table import distance_table
from mmcmcd.errors import ConfigError


def parse_args():
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        'config',
        nargs='?',
        help='distillation config, or mmcmcd::NAME for a packaged one',
    )
    parser.add_argument(
        'checkpoint',
        nargs='?',
        help='epoch_*.pth of a run of it; without, before training alone',
    )
    parser.add_argument(
        '--features',
        metavar='FILE.npz',
        help='in place of a config: arrays source (N, D), target (N, D) and, '
        'optionally, groups (N, )',
    )
    parser.add_argument(
        '--out-dir',
        default='work_dirs/modality_distance',
        help='where files go (default work_dirs/modality_distance)',
    )
    parser.add_argument(
        '--split',
        choices=['test', 'val'],
        default='test',
        help='which data loader of the config',
    )
    parser.add_argument(
        '--seed',
        type=int,
        default=0,
        help='of the untrained student and of all draws',
    )
    parser.add_argument(
        '--max-pairs',
        type=at_least(8),
        default=10000,
        help='measure at most so many, drawn at random (default 10000)',
    )
    parser.add_argument(
        '--permutations',
        type=at_least(0),
        default=200,
        help='of the tests (default 200); 0 leaves p-values out',
    )
    for side, default in (('teacher', 0.1), ('student', 0.2)):
        parser.add_argument(
            f'--{side}-temperature',
            type=_temperature,
            help=f"of the {side}'s similarities (default: that of the "
            f"config's CMD, or {default})",
        )
    add_cfg_options_flag(parser)
    add_trust_flag(parser)
    return parser.parse_args()


def _temperature(text):
    if not float(text) > 0:
        raise argparse.ArgumentTypeError(f'{text} is not positive')
    return float(text)


def main():
    """Measure."""
    args = parse_args()
    if (args.config is None) == (args.features is None):
        raise ConfigError(
            'Give either a config, with a checkpoint to compare before and '
            'after training, or --features FILE.npz.'
        )
    if args.features:
        embeddings = read_features(args.features)
    else:
        embeddings = embed_stages(
            args.config,
            args.checkpoint,
            split=args.split,
            seed=args.seed,
            cfg_options=args.cfg_options,
        )
    report = modality_distance(
        embeddings,
        args.out_dir,
        permutations=args.permutations,
        max_pairs=args.max_pairs,
        seed=args.seed,
        teacher_temperature=args.teacher_temperature,
        student_temperature=args.student_temperature,
    )
    print(distance_table(report))
    for kind in ('json', 'png'):
        print(f'{args.out_dir}/modality_distance.{kind}')


if __name__ == '__main__':
    run_tool(main)
