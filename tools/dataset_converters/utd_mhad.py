"""Convert the .mat files of UTD-MHAD into one archive a modality."""

import argparse

from mmcmcd.apis import run_tool
from mmcmcd.datasets.converters import convert_utd_mhad
from mmcmcd.datasets.converters.utd_mhad import FAULTS, NUM_CLIPS
from mmcmcd.datasets.utd_mhad import ARCHIVES


def parse_args():
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        'raw', help='folder with a1_s1_t1_skeleton.mat and so on'
    )
    parser.add_argument(
        '--out', default='data/utd_mhad', help='folder of the converted set'
    )
    parser.add_argument(
        '--modalities',
        nargs='+',
        choices=list(ARCHIVES),
        default=list(ARCHIVES),
        help='which to convert (default: all)',
    )
    return parser.parse_args()


def main():
    """Run the tool."""
    args = parse_args()
    summary = convert_utd_mhad(args.raw, args.out, args.modalities)
    for number, (key, fault) in enumerate(summary.faults.items()):
        if number == 5:
            print('...')
            break
        print(f'left out: {key}: {fault}')
    print(
        f'{args.out}: {summary.converted} clips converted (the official '
        f'release has {NUM_CLIPS}), {len(summary.faults)} left out, listed in '
        f'{FAULTS}'
    )


if __name__ == '__main__':
    run_tool(main)
