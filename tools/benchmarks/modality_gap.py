"""Does the distance of two modalities explain the error?

The inertial target of UTD-MHAD is degraded step by step, in training and in
test alike: noise, coarse values, a hidden part, another clip mixed in. For
every degradation and seed a student is distilled from the same skeleton
teacher, its distance from the teacher measured on held-out pairs before and
after, and its accuracy with few labels compared with training from scratch on
the equally degraded target. What is finished is kept. Writes cells.json,
table.md and gap.png into the work directory.
"""

import argparse
import hashlib
import json
from functools import lru_cache
from pathlib import Path

import numpy as np

from mmcmcd.analysis import spearman_interval
from mmcmcd.analysis.generalization_picture import save_gap_picture
from mmcmcd.analysis.modality_distance import Settings, measure_distance
from mmcmcd.apis import (
    Draw,
    FewLabelStudy,
    load_config,
    run_tool,
    train_cached,
)
from mmcmcd.apis.modality_distance import embed_stages
from mmcmcd.atomic_files import write_text
from mmcmcd.errors import ConfigError

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
TEACHER = 'pretrain/simclr_tcn_utdmhad_skeleton.py'
STUDENT = 'cmcd/inertial_utdmhad.py'
FINE_TUNING = 'downstream/inertial_utdmhad_ft.py'
METRIC = 'accuracy/top1'
GAPS = ('tv_lower', 'tv_lower_rbf', 'mmd', 'alignment', 'cka_debiased')
# In units of the standard deviation of each channel of a clip: noise, and the
# step of values. In shares: of the time, and of the other clip.
LEVELS = dict(
    noise=(0.5, 1.0, 2.0),
    quantise=(1.0, 2.0, 4.0),
    occlude=(0.25, 0.5, 0.75),
    mix=(0.25, 0.5, 0.75),
)
CLEAN = ('clean', 0.0)


def degrade(series, kind, level, rng, other=None):
    """Make a series worse.

    Args:
        series (np.ndarray): (T, C).
        kind (str): Key of LEVELS, or 'clean'.
        level (float): How much, see LEVELS.
        rng (np.random.Generator): Of the noise and of the hidden place.
        other (np.ndarray): (T', C), what is mixed in, stretched to T.

    Returns:
        np.ndarray: (T, C) float32.
    """
    mean, std = series.mean(axis=0), series.std(axis=0)
    if kind == 'noise':
        changed = series + level * std * rng.normal(size=series.shape)
    elif kind == 'quantise':
        step = np.where(std > 0, level * std, 1)
        changed = mean + step * np.round((series - mean) / step)
    elif kind == 'occlude':
        length = round(level * len(series))
        start = rng.integers(0, len(series) - length + 1)
        changed = series.copy()
        changed[start : start + length] = mean
    elif kind == 'mix':
        places = np.linspace(0, len(other) - 1, len(series))
        stretched = [
            np.interp(places, np.arange(len(other)), column)
            for column in other.T
        ]
        changed = (1 - level) * series + level * np.stack(stretched, axis=1)
    else:
        changed = series
    return changed.astype(np.float32)


def write_degraded(source, folder, kind, level):
    """Write a degraded copy of UTD-MHAD, unless it is there.

    Every clip is degraded in one way for good, by its name, and mixed with a
    clip of the same person, so that a person of the test stays unseen.

    Args:
        source (Path): The folder of UTD-MHAD.
        folder (Path): Where the copy goes; what does not change is linked.
        kind (str): See :func:`degrade`.
        level (float): As there.
    """
    if (folder / 'index.csv').exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    with np.load(source / 'inertial.npz') as archive:
        clips = {name: archive[name] for name in archive.files}
    degraded = {}
    for name, series in clips.items():
        digest = hashlib.sha256(f'{kind} {name}'.encode()).digest()
        rng = np.random.default_rng(int.from_bytes(digest[:8], 'big'))
        # Names are a01_s1_t1: action, subject, trial.
        person = name.split('_')[1]
        others = [
            other
            for other in sorted(clips)
            if other.split('_')[1] == person and other != name
        ]
        other = clips[others[rng.integers(len(others))]]
        degraded[name] = degrade(series, kind, level, rng, other)
    np.savez(folder / 'inertial.npz', **degraded)
    link = folder / 'skeleton.npz'
    link.unlink(missing_ok=True)
    link.symlink_to((source / 'skeleton.npz').resolve())
    # Last: its presence says that the folder is complete.
    write_text(folder / 'index.csv', (source / 'index.csv').read_text())


class GapStudy:
    """All runs of one teacher and its degraded targets.

    Args:
        data (Path): The folder of UTD-MHAD.
        work_dir (Path): Where everything goes.
        budgets (Sequence[int]): Labels a class.
    """

    def __init__(self, data, work_dir, budgets):
        self.data = data
        self.work_dir = work_dir
        self.budgets = budgets

    def load(self, name, root, seed=0):
        """Read a config for a data folder, without validation on the way."""
        cfg = load_config(str(CONFIGS / name))
        cfg.randomness = dict(seed=seed)
        for phase in ('train', 'val', 'test'):
            if f'{phase}_dataloader' in cfg:
                cfg[f'{phase}_dataloader'].dataset.data_root = f'{root}/'
        loop = cfg.train_cfg
        loop.val_interval = 1 + (loop.get('max_epochs') or loop.max_iters)
        return cfg

    @lru_cache  # noqa: B019  (one study lives as long as the tool)
    def teacher(self, seed):
        """Train a teacher; return its checkpoint."""
        work_dir = self.work_dir / f'teacher-seed{seed}'
        cfg = self.load(TEACHER, self.data, seed)
        train_cached(cfg, work_dir, f'teacher, seed {seed}')
        return (work_dir / 'last_checkpoint').read_text().strip()

    def cell(self, kind, level, seeds):
        """Distil, measure and fine-tune on one degraded target.

        Returns:
            list[dict]: By seed and budget: ``kind``, ``level``, ``seed``,
            ``labels``, ``error`` and ``gain`` over scratch in points, and the
            gaps ``before.<name>`` and ``after.<name>``.
        """
        folder = self.work_dir / f'{kind}-{level:g}'
        root = folder / 'data'
        write_degraded(self.data, root, kind, level)
        gaps = {}
        for seed in seeds:
            work_dir = folder / f'student-seed{seed}'
            teacher = self.teacher(seed)
            cfg = self.load(STUDENT, root, seed)
            cfg.model.teacher.init_cfg.checkpoint = teacher
            title = f'student of {kind} {level:g}, seed {seed}'
            train_cached(cfg, work_dir, title, [teacher])
            gaps[seed] = self._gaps(cfg, work_dir, seed)
            student = (work_dir / 'last_student').read_text().strip()
            link = work_dir / 'student.pth'
            link.unlink(missing_ok=True)
            link.symlink_to(Path(student).resolve())
        results = self._fine_tune(folder, root, seeds)
        accuracy = {
            (r['student'], r['labels'], r['seed']): r[METRIC] for r in results
        }
        return [
            dict(
                kind=kind,
                level=level,
                seed=seed,
                labels=count,
                error=100 - accuracy['student', str(count), seed],
                gain=accuracy['student', str(count), seed]
                - accuracy['scratch', str(count), seed],
                **gaps[seed],
            )
            for count in self.budgets
            for seed in seeds
        ]

    @staticmethod
    def _gaps(cfg, work_dir, seed):
        """Gaps of one run on held-out pairs, kept once measured."""
        kept = work_dir / 'gaps.json'
        checkpoint = (work_dir / 'last_checkpoint').read_text().strip()
        # A run that was trained anew wrote its record later.
        record = work_dir / 'finished.json'
        if kept.exists() and kept.stat().st_mtime >= record.stat().st_mtime:
            return json.loads(kept.read_text())
        config = work_dir / 'config_of_gaps.py'
        cfg.dump(config)
        embedded = embed_stages(str(config), checkpoint, seed=seed)
        found = {}
        for stage, rows in embedded.stages.items():
            measured = measure_distance(
                *rows,
                embedded.groups,
                Settings(permutations=0, seed=seed),
                names=GAPS,
            )
            found |= {
                f'{stage}.{name}': measured[name]['value'] for name in GAPS
            }
        write_text(kept, json.dumps(found))
        return found

    def _fine_tune(self, folder, root, seeds):
        students = dict(
            scratch=None,
            student=str(folder / 'student-seed{seed}/student.pth'),
        )
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
            for count in self.budgets
            for seed in seeds
        ]
        config = self.load(FINE_TUNING, root)
        return FewLabelStudy(
            config, students, draws, folder / 'few_labels', [METRIC]
        ).run()


def mean_cells(rows):
    """Means over seeds, one a degradation and number of labels."""
    groups = {}
    for row in rows:
        key = row['kind'], row['level'], row['labels']
        groups.setdefault(key, []).append(row)
    cells = []
    for (kind, level, labels), own in groups.items():
        names = [n for n in own[0] if '.' in n] + ['error', 'gain']
        means = {n: float(np.mean([row[n] for row in own])) for n in names}
        cells.append(
            dict(
                kind=kind, level=level, labels=labels, seeds=len(own), **means
            )
        )
    return cells


def tables(cells):
    """Format the cells, and how gaps go with error and gain."""
    names = [f'{stage}.{gap}' for gap in GAPS for stage in ('before', 'after')]
    lines = [
        f'| degradation | labels | seeds | error % | gain | '
        f'{" | ".join(names)} |',
        '| --- ' * (5 + len(names)) + '|',
    ]
    for c in cells:
        gaps = ' | '.join(f'{c[name]:.3f}' for name in names)
        lines.append(
            f'| {c["kind"]} {c["level"]:g} | {c["labels"]} | {c["seeds"]} '
            f'| {c["error"]:.1f} | {c["gain"]:+.1f} | {gaps} |'
        )
    lines += [
        '',
        '| gap | labels | rho with error | rho with gain |',
        '| --- | --- | --- | --- |',
    ]
    for name in names:
        # Other numbers of labels have other errors at the same gap.
        for labels in dict.fromkeys(c['labels'] for c in cells):
            own = [c for c in cells if c['labels'] == labels]
            gap = [c[name] for c in own]
            rhos = ' | '.join(
                '{:.2f} [{:.2f}, {:.2f}]'.format(
                    *spearman_interval(gap, [c[what] for c in own])
                )
                for what in ('error', 'gain')
            )
            lines.append(f'| {name} | {labels} | {rhos} |')
    return '\n'.join(lines)


def parse_args():
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--data', required=True, help='folder of UTD-MHAD')
    parser.add_argument('--work-dir', required=True)
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1])
    parser.add_argument('--labels-per-class', type=int, nargs='+', default=[2])
    parser.add_argument(
        '--kinds', nargs='+', choices=LEVELS, default=[*LEVELS]
    )
    parser.add_argument(
        '--gap',
        choices=[f'{s}.{g}' for g in GAPS for s in ('before', 'after')],
        default='after.alignment',
        help='which one the picture shows, with the first number of labels '
        '(the table has all)',
    )
    return parser.parse_args()


def main():
    """Train what is missing, print and write."""
    args = parse_args()
    data, work_dir = Path(args.data), Path(args.work_dir)
    if not (data / 'inertial.npz').is_file():
        raise ConfigError(
            f"--data '{data}' has no inertial.npz; expected the folder that "
            'tools/dataset_converters/utd_mhad.py writes.'
        )
    study = GapStudy(data, work_dir, args.labels_per_class)
    wanted = [(kind, x) for kind in args.kinds for x in LEVELS[kind]]
    rows = []
    for kind, level in [CLEAN, *wanted]:
        rows += study.cell(kind, level, args.seeds)
        write_text(work_dir / 'cells.json', json.dumps(rows, indent=1))
    cells = mean_cells(rows)
    text = tables(cells)
    write_text(work_dir / 'table.md', text + '\n')
    shown = [c for c in cells if c['labels'] == args.labels_per_class[0]]
    save_gap_picture(
        work_dir / 'gap.png',
        [c[args.gap] for c in shown],
        {
            'error with few labels / %': [c['error'] for c in shown],
            'gain over scratch / points': [c['gain'] for c in shown],
        },
        [c['kind'] for c in shown],
        args.gap,
    )
    print(text)


if __name__ == '__main__':
    run_tool(main)
