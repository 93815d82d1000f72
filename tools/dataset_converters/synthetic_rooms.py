"""Make a small data set of synthetic rooms; needs no download."""

import argparse

from mmcmcd.apis import run_tool
from mmcmcd.datasets.synthetic_rooms import write_rooms


def parse_args():
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--out', default='data/synthetic_rooms',
                        help='folder of the set')  # fmt: skip
    parser.add_argument('--num-frames', type=int, default=450)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--size', type=int, nargs=2, default=(160, 120),
                        metavar=('WIDTH', 'HEIGHT'))  # fmt: skip
    parser.add_argument('--holes', action='store_true',
                        help='depth without values here and there, as from '
                        'a raw sensor')  # fmt: skip
    parser.add_argument('--few-labels', type=int, nargs='*',
                        default=(10, 20, 50),
                        help='sizes of the few-label lists')  # fmt: skip
    parser.add_argument('--num-draws', type=int, default=5,
                        help='number of few-label draws')  # fmt: skip
    parser.add_argument('--nproc', type=int, default=2,
                        help='number of processes')  # fmt: skip
    return parser.parse_args()


def main():
    """Run the tool."""
    args = parse_args()
    width, height = args.size
    write_rooms(
        args.out,
        args.num_frames,
        args.seed,
        height,
        width,
        args.holes,
        few_labels=args.few_labels,
        num_draws=args.num_draws,
        nproc=args.nproc,
    )


if __name__ == '__main__':
    run_tool(main)
