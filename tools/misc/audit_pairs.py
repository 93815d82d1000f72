"""Check every pair of a config's data set; report all faults at once.

Exit status: 0 without faults, 1 with faults, 2 when nothing could be
checked.
"""

import argparse

import mmengine

from mmcmcd.apis import (
    add_cfg_options_flag,
    load_config,
    run_tool,
)
from mmcmcd.apis.dataset_configs import phase_dataset_cfgs
from mmcmcd.datasets.pair_audit import audit_pairs


def parse_args():
    """Read the command line."""
    parser = argparse.ArgumentParser(description='Audit the pairs of a config')
    parser.add_argument(
        'config', help='config file, or mmcmcd::NAME for a packaged one'
    )
    parser.add_argument(
        '--split',
        choices=['train', 'val', 'test'],
        default='train',
        help='which data loader of the config',
    )
    parser.add_argument('--out', help='write the full report as JSON')
    parser.add_argument(
        '--max-files',
        type=int,
        help='decode at most so many pairs, spread evenly (default: all)',
    )
    parser.add_argument(
        '--num-workers', type=int, default=2, help='processes that decode'
    )
    add_cfg_options_flag(parser)
    return parser.parse_args()


def main():
    """Audit."""
    args = parse_args()
    cfg = load_config(args.config)
    if args.cfg_options is not None:
        cfg.merge_from_dict(args.cfg_options)
    reports = []
    for dataset_cfg in phase_dataset_cfgs(cfg, args.split):
        report = audit_pairs(
            dataset_cfg, args.max_files, args.num_workers, progress=True
        )
        print(report.format())
        reports.append(report)
    if args.out:
        mmengine.dump([r.to_dict() for r in reports], args.out)
    return int(not all(report.clean for report in reports))


if __name__ == '__main__':
    run_tool(main)
