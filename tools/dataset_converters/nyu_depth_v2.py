"""Convert nyu_depth_v2_labeled.mat; run again to go on after a stop."""

import argparse

from mmcmcd.apis import run_tool
from mmcmcd.datasets.converters import convert_nyu_depth_v2


def parse_args():
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--mat', required=True,
                        help='the official file, about 2.8 GB')  # fmt: skip
    parser.add_argument('--out', default='data/nyu_depth_v2',
                        help='folder of the converted set')  # fmt: skip
    parser.add_argument('--rgb-format', choices=('jpg', 'png'), default='jpg',
                        help='png is lossless and larger')  # fmt: skip
    return parser.parse_args()


def main():
    """Run the tool."""
    args = parse_args()
    done = convert_nyu_depth_v2(args.mat, args.out, args.rgb_format)
    print(
        f'{args.out}: {done["converted"]} frames converted, '
        f'{done["skipped"]} were there'
    )


if __name__ == '__main__':
    run_tool(main)
