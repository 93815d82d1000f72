"""Compare students by fine-tuning them on few labels per class.

Writes results.jsonl (resumed when run again) and table.md into the work
directory. With a linear-evaluation config it trains heads alone.
"""

import argparse
from pathlib import Path

from mmcmcd.apis import (
    Draw,
    FewLabelStudy,
    add_cfg_options_flag,
    add_trust_flag,
    few_label_table,
    load_config,
    parse_students,
    run_tool,
)
from mmcmcd.errors import ConfigError

METRICS = ('accuracy/top1', 'accuracy/top5')
NEIGHBOURS = 'knn/top1'


def parse_args():
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='a classification config')
    parser.add_argument(
        '--students',
        nargs='+',
        default=[],
        metavar='NAME=FILE',
        help='exported students; "{seed}" in FILE stands for the seed; '
        'training from scratch is always included',
    )
    parser.add_argument(
        '--labels-per-class',
        nargs='+',
        default=['1', '5', 'all'],
        metavar='N',
        help='numbers of labelled images per class, or "all"',
    )
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    parser.add_argument('--work-dir', required=True)
    add_cfg_options_flag(parser)
    add_trust_flag(parser)
    return parser.parse_args()


def has_neighbours(cfg):
    """Whether the config has neighbours vote (see mmcmcd.KNNHook)."""
    return bool(cfg.get('default_hooks', {}).get('knn'))


def label_draws(budgets, seeds, with_neighbours):
    """One draw of labels for every budget and seed.

    With neighbours, the same labels vote in kNN classification.
    """
    loaders = ['train_dataloader']
    if with_neighbours:
        loaders.append('default_hooks.knn.bank_dataloader')
    draws = []
    for budget in budgets:
        if budget != 'all' and not (budget.isdigit() and int(budget)):
            raise ConfigError(
                f'--labels-per-class {budget!r}: expected a positive number '
                "or 'all'."
            )
        count = None if budget == 'all' else int(budget)
        for seed in seeds:
            options = {}
            for loader in loaders:
                options[f'{loader}.dataset.labels_per_class'] = count
                options[f'{loader}.dataset.draw'] = seed
            draws.append(Draw(budget, options, seed))
    return draws


def main():
    """Fine-tune all students on all draws, print and write the tables."""
    args = parse_args()
    cfg = load_config(args.config)
    if args.cfg_options:
        cfg.merge_from_dict(args.cfg_options)
    neighbours = has_neighbours(cfg)
    metrics = (*METRICS, NEIGHBOURS) if neighbours else METRICS
    study = FewLabelStudy(
        cfg,
        parse_students(args.students, args.seeds),
        label_draws(args.labels_per_class, args.seeds, neighbours),
        args.work_dir,
        metrics,
    )
    results = study.run()
    tables = '\n\n'.join(
        few_label_table(results, baseline='scratch', metric=metric)
        for metric in metrics
    )
    (Path(args.work_dir) / 'table.md').write_text(tables + '\n')
    print(tables)


if __name__ == '__main__':
    run_tool(main)
