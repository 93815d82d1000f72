"""Is the advice of the generalisation report right? A synthetic check.

Cases have a linear student, which costs milliseconds: the truth is measured by
doing what could be advised, eight times over, and the advice is computed
from what a user would have once. Cases whose two best actions are less than
two standard errors apart have no truth and are left out. Prints every case
and the counts; --out writes the page.
"""

import argparse
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mmcmcd.analysis.transfer_advice import (
    TEACHER,
    TransferFeatures,
    expected_gains,
    fit_head,
    measure_errors,
)
from mmcmcd.apis import run_tool
from mmcmcd.errors import ConfigError

ACTIONS = ('pairs', 'labels', 'source')
CLASSES, LATENT, SHARED, PRIVATE = 4, 8, 4, 48
WIDTH, TARGET = 12, 64
# Ranges of pairs and labels, few and many, and of the informative latent
# coordinates that the source sees.
FEW = dict(pairs=(20, 70), labels=(24, 60))
MANY = dict(pairs=(400, 1000), labels=(300, 800))
SEEN = dict(good=(7, 8), bad=(2, 4))
EVIDENCE = {'seen and unseen pairs': (), 'fewer pairs': (0.25, 0.5)}
_TEST = 1500
_CHECKED = 100


class Case(NamedTuple):
    """One setting: a world, and what there is of it.

    Attributes:
        seed (int): Of the world.
        scarce (str): Which of ACTIONS the draw made scarce; what is truly
            the bottleneck is measured.
        pairs (int): m.
        labels (int): n.
        seen (int): Informative coordinates that the source sees.
    """

    seed: int
    scarce: str
    pairs: int
    labels: int
    seen: int

    def after(self, action):
        """The setting after one action."""
        if action == 'source':
            better = self.seen + (LATENT - self.seen + 1) // 2
            return self._replace(seen=better)
        return self._replace(**{action: 2 * getattr(self, action)})


def draw_case(seed):
    """Draw a case; the kind of scarcity goes by turns."""
    rng = np.random.default_rng(seed)
    scarce = ACTIONS[seed % len(ACTIONS)]
    counts = {}
    for name in ('pairs', 'labels'):
        low, high = (FEW if name == scarce else MANY)[name]
        counts[name] = round(np.exp(rng.uniform(np.log(low), np.log(high))))
    low, high = SEEN['bad' if scarce == 'source' else 'good']
    return Case(seed, scarce, **counts, seen=int(rng.integers(low, high + 1)))


class World:
    """Samples of one case."""

    def __init__(self, case, draw):
        rng = np.random.default_rng([case.seed, 1])
        self.classes = rng.normal(size=(LATENT, CLASSES))
        width = LATENT + SHARED
        self.mixing = rng.normal(size=(width, TARGET)) / width**0.5
        self.private = rng.normal(size=(PRIVATE, TARGET)) * 2 / PRIVATE**0.5
        self.order = rng.permutation(LATENT)[: case.seen]
        self.rotation = np.linalg.qr(rng.normal(size=(WIDTH, WIDTH)))[0]
        self.case = case
        self.rng = np.random.default_rng([case.seed, draw])

    def sample(self, count):
        """Draw teacher features, target signals and classes."""
        rng = self.rng
        latent = rng.normal(size=(count, LATENT))
        shared = rng.normal(size=(count, SHARED))
        noise = rng.normal(size=(count, CLASSES))
        classes = (latent @ self.classes + 0.3 * noise).argmax(axis=1)
        target = np.hstack([latent, shared]) @ self.mixing
        target += rng.normal(size=(count, PRIVATE)) @ self.private
        target += 0.3 * rng.normal(size=target.shape)
        teacher = 0.5 * rng.normal(size=(count, WIDTH))
        seen = np.hstack([latent[:, self.order], shared])
        teacher[:, : seen.shape[1]] = seen
        return teacher @ self.rotation, target, classes


def distil(teacher, target):
    """Fit a linear student by ridge regression; the weight by GCV."""
    means = target.mean(axis=0), teacher.mean(axis=0)
    x, t = target - means[0], teacher - means[1]
    values, vectors = np.linalg.eigh(x.T @ x)
    values = values.clip(0)
    cross = vectors.T @ (x.T @ t)
    power = (cross**2).sum(axis=1)
    best = None
    for weight in values[-1] * np.logspace(-4, 0, 9):
        shrunk = 1 / (values + weight)
        left = (t**2).sum() - 2 * power @ shrunk + (power * values) @ shrunk**2
        free = 1 - (1 + values @ shrunk) / len(x)
        if best is None or left / free**2 < best[0]:
            best = left / free**2, vectors @ (shrunk[:, None] * cross)
    return lambda rows: (rows - means[0]) @ best[1] + means[1]


def real_error(case, draw):
    """Distil, fit a head, count its errors."""
    world = World(case, draw)
    teacher, target, _ = world.sample(case.pairs)
    student = distil(teacher, target)
    _, target, classes = world.sample(case.labels)
    head = fit_head(student(target), classes)
    _, target, classes = world.sample(_TEST)
    return float(np.mean(head.predict(student(target)) != classes))


def real_gains(case, draws=range(100, 108)):
    """Drops of the error, measured by doing what is advised."""
    before = np.array([real_error(case, d) for d in draws])
    return {
        a: before - [real_error(case.after(a), d) for d in draws]
        for a in ACTIONS
    }


def true_action(case):
    """The action that lowers the real error most; None if two are alike."""
    gains = real_gains(case)
    first, second = sorted(ACTIONS, key=lambda a: -gains[a].mean())[:2]
    ahead = gains[first] - gains[second]
    error = ahead.std(ddof=1) / len(ahead) ** 0.5
    return first if ahead.mean() > 2 * error else None


def observe(case, shares=(), draw=50):
    """What a user has: one draw of pairs and of labels.

    Students of ``shares`` of the pairs come in place of what tells of seen
    and unseen pairs.
    """
    world = World(case, draw)
    teacher, target, _ = world.sample(case.pairs)
    held_out = world.sample(_CHECKED)
    of_labelled, labelled, classes = world.sample(case.labels)
    student = distil(teacher, target)
    features = {TEACHER: of_labelled, case.pairs: student(labelled)}
    if not shares:
        return TransferFeatures(
            classes,
            features,
            seen=(teacher, student(target)),
            unseen=(held_out[0], student(held_out[1])),
        )
    for share in shares:
        some = world.rng.permutation(case.pairs)[: round(share * case.pairs)]
        fewer = distil(teacher[some], target[some])
        features[len(some)] = fewer(labelled)
    return TransferFeatures(classes, features)


def advised_actions(case):
    """What the report advises, by what it sees."""
    found = {}
    for name, shares in EVIDENCE.items():
        data = observe(case, shares)
        found[name] = next(iter(expected_gains(data, measure_errors(data))))
    return found


def clear_cases(count, seed):
    """The first cases from a seed on that have a truth, and how many not."""
    cases, unclear = [], 0
    while len(cases) < count:
        case = draw_case(seed + len(cases) + unclear)
        action = true_action(case)
        if action is None:
            unclear += 1
        else:
            cases.append((case, action))
    return cases, unclear


def parse_args():
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--cases', type=int, default=10)
    parser.add_argument('--seed', type=int, default=30000, help='of the first')
    parser.add_argument('--out', help='JSON file to write')
    return parser.parse_args()


def main():
    """Check, count and print."""
    args = parse_args()
    if args.cases < 1:
        raise ConfigError(f'--cases must be positive, got {args.cases}.')
    cases, unclear = clear_cases(args.cases, args.seed)
    rows, right = [], dict.fromkeys(EVIDENCE, 0)
    for case, action in cases:
        advised = advised_actions(case)
        print(f'{case}: {action}; advised: {advised}', flush=True)
        rows.append(dict(case._asdict(), truth=action, advised=advised))
        for name in right:
            right[name] += advised[name] == action
    for name, count in right.items():
        print(f'{name}: right in {count} of {len(cases)} cases')
    print(f'{unclear} more cases had no clear truth and were left out')
    if args.out:
        result = dict(right=right, unclear=unclear, cases=rows)
        Path(args.out).write_text(json.dumps(result, indent=1) + '\n')


if __name__ == '__main__':
    run_tool(main)
