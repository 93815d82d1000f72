"""Draw the pairs of a config after augmentation, side by side.

Files only: one PNG per pair, and contact_sheet.png. No window is opened.
"""

import argparse
import os.path as osp

from mmengine.registry import DATASETS

from mmcmcd.apis import (
    add_cfg_options_flag,
    load_config,
    run_tool,
)
from mmcmcd.apis.browse import browse_dataset
from mmcmcd.apis.dataset_configs import phase_dataset_cfgs


def parse_args():
    """Read the command line."""
    parser = argparse.ArgumentParser(description='Browse a dataset')
    parser.add_argument(
        'config', help='config file, or mmcmcd::NAME for a packaged one'
    )
    parser.add_argument(
        '--output-dir',
        '-o',
        help='where pictures go (default: work_dirs/browse/CONFIG)',
    )
    parser.add_argument(
        '--not-show',
        action='store_true',
        help='accepted because stock tools have it; windows never open',
    )
    parser.add_argument(
        '--phase',
        '-p',
        default='train',
        choices=['train', 'test', 'val'],
        help='which data loader of the config',
    )
    parser.add_argument(
        '--show-number', '-n', type=int, help='at most so many (default: all)'
    )
    parser.add_argument(
        '--mode',
        '-m',
        default='transformed',
        choices=['original', 'transformed', 'concat', 'pipeline'],
        help='as loaded, as the model gets it, both, or every step',
    )
    parser.add_argument(
        '--rescale-factor',
        '-r',
        type=float,
        default=1.0,
        help='scale of the pictures',
    )
    parser.add_argument(
        '--channel-order',
        '-c',
        default='BGR',
        choices=['BGR', 'RGB'],
        help='channel order of colour images in the pipeline',
    )
    add_cfg_options_flag(parser)
    return parser.parse_args()


def main():
    """Browse."""
    args = parse_args()
    cfg = load_config(args.config)
    if args.cfg_options is not None:
        cfg.merge_from_dict(args.cfg_options)
    stem = osp.splitext(osp.basename(args.config))[0]
    output_dir = args.output_dir or osp.join('work_dirs', 'browse', stem)
    dataset_cfgs = phase_dataset_cfgs(cfg, args.phase)
    for number, dataset_cfg in enumerate(dataset_cfgs):
        files = browse_dataset(
            DATASETS.build(dataset_cfg),
            output_dir,
            show_number=args.show_number,
            mode=args.mode,
            channel_order=args.channel_order,
            rescale_factor=args.rescale_factor,
            prefix=f'{number}_' if len(dataset_cfgs) > 1 else '',
        )
        print(f'\n{len(files) - 1} pictures and {files[-1]}')


if __name__ == '__main__':
    run_tool(main)
