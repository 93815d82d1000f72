"""Show the method on embedded data: `make demo`."""

import argparse
from pathlib import Path

from mmcmcd.apis import run_tool
from mmcmcd.apis.demo import run_demo

CONFIGS = Path(__file__).resolve().parent.parent / 'configs' / 'demo'


def parse_args():
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--data-dir', default='data/demo_rooms')
    parser.add_argument('--work-dir', default='work_dirs/demo')
    parser.add_argument(
        '--draws', type=int, default=3, help='draws of labels (default 3)'
    )
    return parser.parse_args()


def main():
    """Run the demo."""
    args = parse_args()
    run_demo(CONFIGS, args.data_dir, args.work_dir, args.draws)


if __name__ == '__main__':
    run_tool(main)
