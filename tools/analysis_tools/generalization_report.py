"""Report what a student's error may come from, and what would help most.

Writes generalization.md and generalization.json: the terms of a template of
a bound, which is not the theorem of the paper; errors of linear heads on
held-out samples; and which of more pairs, more labels and another source
promises most.
docs/generalization.md says how, and how often that was right.
"""

import argparse

from mmcmcd.apis import (
    add_cfg_options_flag,
    add_trust_flag,
    at_least,
    run_tool,
)
from mmcmcd.apis.generalization import generalization_report
from mmcmcd.apis.transfer_features import (
    embed_transfer,
    parse_fewer_pairs,
    read_transfer_features,
)
from mmcmcd.errors import ConfigError


def parse_args():
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        'config',
        nargs='?',
        help='distillation config whose pairs have classes, or mmcmcd::NAME',
    )
    parser.add_argument(
        'checkpoint', nargs='?', help='epoch_*.pth of a run of it'
    )
    parser.add_argument(
        '--features',
        metavar='FILE.npz',
        help='in place of a config, with --num-pairs: arrays labels (n,), '
        'labelled (n, D) and more, see docs/generalization.md',
    )
    parser.add_argument(
        '--num-pairs',
        type=at_least(1),
        help='m, pairs of the distillation, for --features',
    )
    parser.add_argument(
        '--num-source',
        type=at_least(1),
        help='M, samples that the teacher was trained on',
    )
    parser.add_argument(
        '--labels-per-class',
        type=at_least(1),
        help='of a config: labels to draw from the training pairs (default: '
        'all of them)',
    )
    parser.add_argument(
        '--fewer-pairs',
        nargs='+',
        default=[],
        metavar='COUNT=FILE',
        help='checkpoints (with --features: npz) of students of fewer pairs',
    )
    parser.add_argument(
        '--split',
        choices=['test', 'val'],
        default='test',
        help='of a config: where held-out pairs are',
    )
    parser.add_argument(
        '--tv',
        type=float,
        help='lower bound on the total variation, where it is known',
    )
    parser.add_argument(
        '--delta', type=float, default=0.05, help='of the confidence term'
    )
    parser.add_argument(
        '--splits',
        type=at_least(1),
        default=20,
        help='of the learning curves (default 20)',
    )
    parser.add_argument('--seed', type=int, default=0, help='of all draws')
    parser.add_argument(
        '--out-dir',
        default='work_dirs/generalization',
        help='where files go (default work_dirs/generalization)',
    )
    add_cfg_options_flag(parser)
    add_trust_flag(parser)
    return parser.parse_args()


def main():
    """Report."""
    args = parse_args()
    fewer = parse_fewer_pairs(args.fewer_pairs)
    from_config = None not in (args.config, args.checkpoint)
    if from_config == (args.features is not None):
        raise ConfigError(
            'Give either a config and its checkpoint, or --features FILE.npz.'
        )
    if args.features is not None and args.num_pairs is None:
        raise ConfigError('--features needs --num-pairs, m of its student.')
    if from_config:
        data = embed_transfer(
            args.config,
            args.checkpoint,
            labels_per_class=args.labels_per_class,
            fewer=fewer,
            split=args.split,
            work_dir=f'{args.out_dir}/log',
            seed=args.seed,
            cfg_options=args.cfg_options,
        )
    else:
        data = read_transfer_features(args.features, args.num_pairs, fewer)
    print(
        generalization_report(
            data,
            args.out_dir,
            splits=args.splits,
            seed=args.seed,
            num_source=args.num_source,
            delta=args.delta,
            tv=args.tv,
        )
    )


if __name__ == '__main__':
    run_tool(main)
