"""Compare students by fine-tuning them on few labels, several seeds each.

Writes results.jsonl (resumed when run again), table.md and, of the last
draw, picture.png into the work directory.
"""

import argparse
from pathlib import Path

from mmcmcd.apis import (
    Draw,
    FewLabelStudy,
    add_cfg_options_flag,
    add_trust_flag,
    draw_predictions,
    few_label_table,
    label_list,
    load_config,
    parse_students,
    run_tool,
)
from mmcmcd.errors import ConfigError


def parse_args():
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='a segmentation config')
    parser.add_argument(
        '--students',
        nargs='+',
        default=[],
        metavar='NAME=FILE',
        help='exported students; "{seed}" in FILE stands for the seed; '
        'training from scratch is always included',
    )
    parser.add_argument(
        '--label-lists',
        nargs='+',
        required=True,
        help='lists of labelled frames, relative to the data root',
    )
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    parser.add_argument('--work-dir', required=True)
    add_cfg_options_flag(parser)
    add_trust_flag(parser)
    return parser.parse_args()


def main():
    """Fine-tune all students on all draws, print and write the table."""
    args = parse_args()
    cfg = load_config(args.config)
    if args.cfg_options:
        cfg.merge_from_dict(args.cfg_options)
    root = Path(cfg.train_dataloader.dataset.data_root)
    draws = []
    for ann_file in args.label_lists:
        if not (root / ann_file).is_file():
            raise ConfigError(f"--label-lists: '{root / ann_file}' is no file")
        count = len((root / ann_file).read_text().split())
        draws += [
            Draw(str(count), label_list(ann_file), seed) for seed in args.seeds
        ]
    study = FewLabelStudy(
        cfg,
        parse_students(args.students, args.seeds),
        draws,
        args.work_dir,
        keep_weights=True,
    )
    table = few_label_table(study.run(), baseline='scratch')
    work_dir = Path(args.work_dir)
    (work_dir / 'table.md').write_text(table + '\n')
    draw_predictions(study, draws[-1], work_dir / 'picture.png')
    print(table)


if __name__ == '__main__':
    run_tool(main)
