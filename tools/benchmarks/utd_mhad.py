"""Ways to a student of UTD-MHAD, compared with few labels.

For every seed: a teacher of skeletons, trained by contrast and one trained by
labels; a control without a teacher; five distillations by each teacher; then
fine-tuning on few labels per class. What is finished is kept. Writes
results.jsonl, table.md and distillation.json into the work directory.

With --tune, every method runs with each setting of GRID on subjects 1 and 3
and is judged on subject 5; chosen.json gets the best setting of each method.
Without, the chosen settings run on subjects 1, 3 and 5 and are judged on 7.
"""

import argparse
import json
import shutil
from collections import defaultdict
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mmcmcd.apis import (
    Draw,
    FewLabelStudy,
    few_label_table,
    load_config,
    run_tool,
    train_cached,
)
from mmcmcd.errors import ConfigError

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
TARGETS = dict(
    inertial=dict(
        cmcd='cmcd/inertial_utdmhad.py',
        control='pretrain/simclr_tcn_utdmhad_inertial.py',
        fine_tuning='downstream/inertial_utdmhad_ft.py',
    ),
    depth=dict(
        cmcd='cmcd/depthvideo_utdmhad.py',
        control='pretrain/simclr_c3d_utdmhad_depth.py',
        fine_tuning='downstream/depthvideo_utdmhad_ft.py',
    ),
)
TEACHERS = dict(
    simclr='pretrain/simclr_tcn_utdmhad_skeleton.py',
    supervised='pretrain/supervised_tcn_utdmhad_skeleton.py',
)
CONTROL = 'target-only SSL'
# Subjects to learn from and to be judged on.
SPLITS = dict(tune=((1, 3), (5,)), test=((1, 3, 5), (7,)))
METRIC = 'accuracy/top1'
RATE = 'optim_wrapper.optimizer.lr'


def losses(**terms):
    """Options that replace the losses of a distillation config."""
    return {'model.losses': dict(_delete_=True, **terms)}


def l2(normalize):
    """Regression of the teacher's embedding."""
    return losses(l2=dict(type='mmcmcd.FeatureL2Loss', normalize=normalize))


def cmcd(cmd=None, cmc=None):
    """CMD by (form, teacher's, student's temperature), CMC by its own."""
    loss = dict(type='mmcmcd.CMCDLoss')
    if cmd is not None:
        names = ('form', 'teacher_temperature', 'student_temperature')
        loss['cmd'] = dict(zip(names, cmd, strict=True))
    if cmc is not None:
        loss['cmc'] = dict(temperature=cmc)
    return losses(cmcd=loss)


# Four settings for every method.
CMD_TEMPERATURES = ((0.1, 0.1), (0.1, 0.2), (0.2, 0.2), (0.4, 0.4))
GRID = {
    CONTROL: [
        {'model.head.temperature': t, RATE: rate}
        for t in (0.1, 0.3)
        for rate in (1e-3, 3e-3)
    ],
    'feature L2': [
        {**l2(normalize), RATE: rate}
        for normalize in (False, True)
        for rate in (1e-3, 3e-3)
    ],
    'CMD within': [cmcd(cmd=('within', *t)) for t in CMD_TEMPERATURES],
    'CMD cross': [cmcd(cmd=('cross', *t)) for t in CMD_TEMPERATURES],
    'CMC': [cmcd(cmc=t) for t in (0.1, 0.2, 0.4, 0.8)],
    'CMD + CMC': [
        cmcd(cmd=('within', *t), cmc=cmc)
        for t in ((0.1, 0.2), (0.2, 0.2))
        for cmc in (0.2, 0.4)
    ],
}


class Arm(NamedTuple):
    """One way to a student.

    Attributes:
        method (str): Key of GRID.
        teacher (str): Key of TEACHERS; '' for the control.
        setting (int): Index into the settings of the method.
    """

    method: str
    teacher: str
    setting: int

    @property
    def name(self):
        """Of the rows in the tables."""
        return f'{self.method} ({self.teacher})' if self.teacher else CONTROL

    @property
    def folder(self):
        """Of its runs."""
        return f'{self.name} {self.setting}'.translate(
            str.maketrans(' ()', '_--')
        )


def parse_args():
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--target', choices=TARGETS, default='inertial')
    parser.add_argument('--seeds', type=int, nargs='+', default=[*range(10)])
    parser.add_argument(
        '--labels-per-class', type=int, nargs='+', default=[1, 2, 5]
    )
    parser.add_argument(
        '--tune', action='store_true', help='choose settings on subject 5'
    )
    parser.add_argument(
        '--settings',
        help='chosen.json of a run with --tune; default: the first of GRID',
    )
    parser.add_argument(
        '--teachers', nargs='+', choices=TEACHERS, default=[*TEACHERS]
    )
    parser.add_argument(
        '--methods',
        nargs='+',
        choices=GRID,
        default=[*GRID],
        metavar='NAME',
        help=f'out of {", ".join(map(repr, GRID))} (default: all)',
    )
    parser.add_argument('--work-dir', required=True)
    return parser.parse_args()


def all_arms(teachers, methods=None):
    """Every method, by every teacher, with every setting."""
    return [
        Arm(method, teacher, setting)
        for method in methods or GRID
        for teacher in (teachers if method != CONTROL else ('',))
        for setting in range(len(GRID[method]))
    ]


def read_settings(path, methods):
    """The setting of each method, 0 where there is no file."""
    if path is None:
        return dict.fromkeys(GRID, 0)
    if not Path(path).is_file():
        raise ConfigError(
            f"--settings '{path}' does not exist; run with --tune to get it."
        )
    settings = json.loads(Path(path).read_text())
    missing = sorted(set(methods) - settings.keys())
    if missing:
        raise ConfigError(
            f"--settings '{path}' has none of {missing}, only of "
            f'{sorted(settings)}. Run with --tune to get them.'
        )
    return settings


class Comparison:
    """All runs for one target.

    Args:
        target (str): Key of TARGETS.
        split (str): Key of SPLITS.
        work_dir (Path): Where everything goes.
    """

    def __init__(self, target, split, work_dir):
        self.configs = TARGETS[target]
        self.subjects, self.judged_on = SPLITS[split]
        self.work_dir = work_dir

    def load(self, name, seed=0):
        """Read a config, for this split and seed, without validation."""
        cfg = load_config(str(CONFIGS / name))
        cfg.randomness = dict(seed=seed)
        cfg.train_dataloader.dataset.subjects = self.subjects
        for loader in ('val_dataloader', 'test_dataloader'):
            if loader in cfg:
                cfg[loader].dataset.subjects = self.judged_on
        loop = cfg.train_cfg
        loop.val_interval = 1 + (loop.get('max_epochs') or loop.max_iters)
        return cfg

    @lru_cache  # noqa: B019  (one comparison lives as long as the tool)
    def teacher(self, kind, seed):
        """Train a teacher; return its checkpoint."""
        # One teacher serves all targets.
        work_dir = self.work_dir.parent / f'teacher_{kind}-seed{seed}'
        cfg = self.load(TEACHERS[kind], seed)
        train_cached(cfg, work_dir, f'{kind} teacher, seed {seed}')
        return (work_dir / 'last_checkpoint').read_text().strip()

    def student(self, arm, seed):
        """Train a student; return the figures of the run."""
        work_dir = self.work_dir / f'{arm.folder}-seed{seed}'
        title = f'{arm.name}, setting {arm.setting}, seed {seed}'
        options = GRID[arm.method][arm.setting]
        if not arm.teacher:
            cfg = self.load(self.configs['control'], seed)
            cfg.merge_from_dict(options)
            figures = train_cached(cfg, work_dir, title)
            found = (work_dir / 'last_checkpoint').read_text()
        else:
            teacher = self.teacher(arm.teacher, seed)
            cfg = self.load(self.configs['cmcd'], seed)
            cfg.merge_from_dict(options)
            cfg.model.teacher.init_cfg.checkpoint = teacher
            figures = train_cached(cfg, work_dir, title, [teacher])
            found = (work_dir / 'last_student').read_text()
        shutil.copyfile(found.strip(), work_dir / 'student.pth')
        return dict(arm._asdict(), seed=seed, **figures)

    def fine_tune(self, arms, seeds, budgets):
        """Fine-tune every student with every budget of labels."""
        students = {'scratch': None}
        for arm in arms:
            path = self.work_dir / f'{arm.folder}-seed{{seed}}/student.pth'
            students[self.row(arm, arms)] = str(path)
        dataset = 'train_dataloader.dataset'
        draws = [
            Draw(
                str(count),
                {
                    f'{dataset}.labels_per_class': count,
                    f'{dataset}.draw': seed,
                },
                seed,
            )
            for count in budgets
            for seed in seeds
        ]
        config = self.load(self.configs['fine_tuning'])
        return FewLabelStudy(
            config, students, draws, self.work_dir / 'few_labels', [METRIC]
        ).run()

    @staticmethod
    def row(arm, arms):
        """Name of an arm, with its setting where it has several."""
        several = sum(a.name == arm.name for a in arms) > 1
        return f'{arm.name} {arm.setting}' if several else arm.name


def best_settings(arms, results):
    """The setting of each method that is best, over its teachers."""
    scores = defaultdict(list)
    for result in results:
        scores[result['student']].append(result[METRIC])
    best = {}
    for arm in arms:
        score = np.mean(scores[Comparison.row(arm, arms)])
        best.setdefault(arm.method, defaultdict(list))[arm.setting] += [score]
    return {
        method: max(found, key=lambda setting: np.mean(found[setting]))
        for method, found in best.items()
    }


def main():
    """Train, fine-tune, print and write the tables."""
    args = parse_args()
    work_dir = Path(args.work_dir) / args.target
    arms = all_arms(args.teachers, args.methods)
    if not args.tune:
        settings = read_settings(args.settings, args.methods)
        arms = [arm for arm in arms if arm.setting == settings[arm.method]]
    comparison = Comparison(
        args.target, 'tune' if args.tune else 'test', work_dir
    )
    figures = [
        comparison.student(arm, seed) for seed in args.seeds for arm in arms
    ]
    results = comparison.fine_tune(arms, args.seeds, args.labels_per_class)
    (work_dir / 'distillation.json').write_text(json.dumps(figures, indent=1))
    tables = '\n\n'.join(
        few_label_table(results, baseline, METRIC)
        for baseline in ('scratch', Comparison.row(arms[0], arms))
    )
    (work_dir / 'table.md').write_text(tables + '\n')
    print(tables)
    if args.tune:
        chosen = best_settings(arms, results)
        (work_dir / 'chosen.json').write_text(json.dumps(chosen, indent=1))
        print(f'Chosen settings: {work_dir / "chosen.json"}')


if __name__ == '__main__':
    run_tool(main)
