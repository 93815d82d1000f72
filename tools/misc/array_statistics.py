"""Compute mean and std by channel for NormalizeArray(statistics=...)."""

import argparse

from mmcmcd.apis import (
    add_cfg_options_flag,
    load_config,
    run_tool,
)
from mmcmcd.apis.array_statistics import array_statistics


def parse_args():
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        'config', help='config file, or mmcmcd::NAME for a packaged one'
    )
    parser.add_argument(
        '--force', action='store_true', help='replace what is there'
    )
    parser.add_argument(
        '--num-workers', type=int, default=0, help='processes that load'
    )
    add_cfg_options_flag(parser)
    return parser.parse_args()


def main():
    """Compute and print."""
    args = parse_args()
    cfg = load_config(args.config)
    if args.cfg_options is not None:
        cfg.merge_from_dict(args.cfg_options)
    for result in array_statistics(cfg, args.force, args.num_workers):
        state = 'written' if result.computed else 'up to date'
        entry = result.entry
        print(
            f'{result.file}: {result.side}: {state}, {entry["items"]} arrays, '
            f'{entry["values"]} values per channel, {entry["skipped"]} '
            'unreadable'
        )
        print('  after:', *(step['type'] for step in entry['transforms']))
        for name in ('mean', 'std'):
            print(f'  {name}:', *(f'{value:.4g}' for value in entry[name]))


if __name__ == '__main__':
    run_tool(main)
