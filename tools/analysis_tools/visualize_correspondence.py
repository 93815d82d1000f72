"""Show where locations of the target are found in the source of their pair.

For points of the target (a depth map, say), each pair a row: the similarity
of the student's location there to all locations of the teacher's map, as
colours over the source (the photo). Needs a config with dense comparisons.
"""

import argparse

from mmcmcd.apis import (
    add_cfg_options_flag,
    add_trust_flag,
    at_least,
    run_tool,
)
from mmcmcd.apis.correspondence import visualize_correspondence


def parse_args():
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        'config',
        help='distillation config, or mmcmcd::NAME for a packaged one',
    )
    parser.add_argument('checkpoint', help='epoch_*.pth of a run of it')
    parser.add_argument('--out', required=True, help='picture to write, .png')
    parser.add_argument(
        '--dense', help='name of the dense comparison, if there are several'
    )
    parser.add_argument(
        '--split',
        choices=['test', 'val'],
        default='test',
        help='which data loader of the config',
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        '--pairs',
        type=at_least(1),
        default=4,
        help='so many pairs, spread evenly over the split (default 4)',
    )
    which.add_argument('--pair-ids', nargs='+', help='these pairs')
    parser.add_argument(
        '--points',
        type=_point,
        nargs='+',
        default=[5],
        metavar='K | x,y',
        help='so many points, spread over the valid locations (default 5), '
        'or these, as shares of width and height: 0.5,0.5 is the middle',
    )
    add_cfg_options_flag(parser)
    add_trust_flag(parser)
    args = parser.parse_args()
    if len(args.points) == 1 and isinstance(args.points[0], int):
        (args.points,) = args.points
    elif any(isinstance(point, int) for point in args.points):
        parser.error('--points takes one number, or points x,y alone')
    return args


def _point(text):
    """A number of points, or the shares (x, y) of one."""
    if ',' not in text:
        return at_least(1)(text)
    x, y = map(float, text.split(','))
    if not (0 <= x <= 1 and 0 <= y <= 1):
        raise argparse.ArgumentTypeError(f'{text} are not shares from 0 to 1')
    return x, y


def main():
    """Draw."""
    args = parse_args()
    print(
        visualize_correspondence(
            args.config,
            args.checkpoint,
            args.out,
            dense=args.dense,
            split=args.split,
            pairs=args.pairs,
            pair_ids=args.pair_ids,
            points=args.points,
            cfg_options=args.cfg_options,
        )
    )


if __name__ == '__main__':
    run_tool(main)
