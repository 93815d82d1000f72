"""What retrieval figures and kNN cost, against the usual ways.

* pairs: one relevant row per query (R@k and mAP, both directions);
* classes: all rows of the query's class are relevant, likewise;
* knn: class votes of the 20 nearest neighbours.

The other routes hold the whole similarity matrix, once for both directions:
``sort`` ranks it, ``count`` (pairs only) compares it with the score of the
partner; ``scikit-learn`` is its KNeighborsClassifier. All follow one rule for
ties, and must agree. Each measurement is a process of its own; the routes
take turns, so that other load on the machine falls on all of them; CPU seconds
leave it out. Memory is the peak above what the process held when it had its
data.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time

import torch
from mmengine.utils import ProgressBar
from torch import Tensor
from torch.nn.functional import normalize

import mmcmcd  # noqa: F401
from mmcmcd.apis import run_tool
from mmcmcd.apis.measuring import (
    peak_memory,
    require_peak_memory,
    reset_peak_memory,
)
from mmcmcd.errors import ConfigError
from mmcmcd.evaluation.functional import knn_votes, retrieval_figures

KS = (1, 5, 10)
TIE = 1e-6
CLASSES = 125
NEIGHBOURS = 20
TASKS = dict(
    pairs=('ours', 'sort', 'count'),
    classes=('ours', 'sort'),
    knn=('ours', 'scikit-learn'),
)


def parse_args():
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('--size', type=int, default=10_000)
    parser.add_argument('--dim', type=int, default=128)
    parser.add_argument('--repeats', type=int, default=5)
    parser.add_argument('--threads', type=int, default=1)
    parser.add_argument(
        '--tasks', nargs='+', choices=TASKS, default=list(TASKS)
    )
    parser.add_argument(
        '--only-ours',
        action='store_true',
        help='measure sizes whose matrix does not fit into memory',
    )
    parser.add_argument('--measure', nargs=2, help=argparse.SUPPRESS)
    return parser.parse_args()


def make_rows(size: int, dim: int) -> tuple[Tensor, Tensor, Tensor]:
    """Draw noisy partners of one another, in classes.

    Returns:
        tuple[Tensor, Tensor, Tensor]: Target and source rows (size, dim), and
        their classes (size, ).
    """
    rng = torch.Generator().manual_seed(0)
    labels = torch.arange(size) % CLASSES
    centres = torch.randn(CLASSES, dim, generator=rng)
    source = torch.randn(size, dim, generator=rng)
    source += 0.5 * centres[labels]
    target = source + torch.randn(size, dim, generator=rng)
    return target, source, labels


def by_ours(target: Tensor, source: Tensor, ids: Tensor) -> list[float]:
    """Figures of both directions, in blocks."""
    return [
        *retrieval_figures(target, source, ids, ids, KS).values(),
        *retrieval_figures(source, target, ids, ids, KS).values(),
    ]


def by_sorting(target: Tensor, source: Tensor, ids: Tensor) -> list[float]:
    """Figures of both directions, by ranking the whole matrix."""
    similarity = normalize(target) @ normalize(source).T
    similarity[ids[:, None] == ids] -= TIE
    return [
        figure
        for matrix in (similarity, similarity.T.contiguous())
        for figure in ranked_figures(matrix, ids)
    ]


def ranked_figures(similarity: Tensor, ids: Tensor) -> list[float]:
    """R@k and mAP from a ranking of all columns."""
    order = similarity.argsort(dim=1, descending=True)
    relevant = ids[order] == ids[:, None]
    del order
    recalls = [relevant[:, :k].any(dim=1).double().mean() for k in KS]
    rows, ranks = relevant.nonzero().unbind(dim=1)
    number = relevant.sum(dim=1)
    begin = number.cumsum(dim=0) - number
    found = torch.arange(1, len(rows) + 1) - begin[rows]
    precision = found / (ranks + 1).double() / number[rows]
    figures = [*recalls, precision.sum() / len(ids)]
    return [100 * float(figure) for figure in figures]


def by_counting(target: Tensor, source: Tensor, ids: Tensor) -> list[float]:
    """Figures of pairs, by comparing the matrix with its diagonal."""
    similarity = normalize(target) @ normalize(source).T
    own = similarity.diagonal() - TIE
    figures = []
    for dim, limit in ((1, own[:, None]), (0, own)):
        before = (similarity >= limit).sum(dim=dim) - 1
        figures += [100 * float((before < k).double().mean()) for k in KS]
        figures.append(100 * float((1 / (1 + before.double())).mean()))
    return figures


def by_sklearn(bank: Tensor, labels: Tensor, queries: Tensor) -> Tensor:
    """Votes of scikit-learn."""
    from sklearn.neighbors import KNeighborsClassifier

    model = KNeighborsClassifier(
        NEIGHBOURS, metric='cosine', algorithm='brute'
    )
    model.fit(bank.double().numpy(), labels.numpy())
    return torch.from_numpy(model.predict_proba(queries.double().numpy()))


def prepare(task: str, route: str, size: int, dim: int):
    """Return the call to measure, with its data at hand."""
    target, source, labels = make_rows(size, dim)
    if task == 'knn':
        if route == 'ours':
            return lambda: knn_votes(source, labels, target, NEIGHBOURS)
        return lambda: by_sklearn(source, labels, target)
    ids = labels if task == 'classes' else torch.arange(size)
    function = dict(ours=by_ours, sort=by_sorting, count=by_counting)[route]
    return lambda: function(target, source, ids)


def measure(task: str, route: str, size: int, dim: int) -> dict:
    """Run one route and return its times, peak memory and results."""
    prepare(task, route, 4 * CLASSES, dim)()  # imports, thread pools
    call = prepare(task, route, size, dim)
    held = reset_peak_memory()
    start, cpu_start = time.perf_counter(), time.process_time()
    result = call()
    seconds = time.perf_counter() - start
    cpu = time.process_time() - cpu_start
    memory = peak_memory() - held
    if task == 'knn':
        votes = (result * NEIGHBOURS).round()
        top = result.argmax(dim=1)
        result = [float(top.sum()), *(votes.T @ top.double()).tolist()]
    return dict(seconds=seconds, cpu=cpu, memory=memory, result=result)


def measure_apart(task: str, route: str, args) -> dict:
    """Call :func:`measure` in a new process."""
    command = [sys.executable, __file__, '--measure', task, route]
    for name in ('size', 'dim', 'threads'):
        command += [f'--{name}', str(getattr(args, name))]
    result = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    return json.loads(result.stdout.splitlines()[-1])


def compare(task: str, routes: tuple, args, bar: ProgressBar) -> list[str]:
    """Measure all routes in turn; return the lines of the table."""
    runs = {route: [] for route in routes}
    for _ in range(args.repeats):
        for route in routes:
            runs[route].append(measure_apart(task, route, args))
            bar.update()
    lines = []
    for route in routes:
        require_agreement(runs['ours'][0], runs[route][0], f'{task}: {route}')
        lines.append(
            f'{task:8s} {route:13s} '
            f'{median(r["seconds"] for r in runs[route]):8.2f} '
            f'{median(r["cpu"] for r in runs[route]):8.2f} '
            f'{median(r["memory"] for r in runs[route]) / 2**20:9.1f} '
            f'{ratio("seconds", runs["ours"], runs[route]):8.2f} '
            f'{ratio("cpu", runs["ours"], runs[route]):8.2f} '
            f'{ratio("memory", runs["ours"], runs[route]):8.3f}'
        )
    return lines


def require_agreement(ours: dict, other: dict, name: str) -> None:
    """Stop where two routes found different numbers."""
    pairs = zip(ours['result'], other['result'], strict=True)
    difference = max(abs(a - b) for a, b in pairs)
    # Products of other block sizes are rounded otherwise: with thousands of
    # queries one of them may change by one rank.
    if difference > (0 if name.startswith('knn') else 0.011):
        raise ConfigError(f'{name} differs from ours by {difference}.')


def median(values) -> float:
    """Middle one of some values."""
    return statistics.median(list(values))


def ratio(key: str, ours: list[dict], others: list[dict]) -> float:
    """Median over the repeats of ours / other."""
    return median(a[key] / b[key] for a, b in zip(ours, others, strict=True))


def main():
    """Measure, compare and print."""
    args = parse_args()
    require_peak_memory()
    torch.set_num_threads(args.threads)
    if args.measure:
        print(json.dumps(measure(*args.measure, args.size, args.dim)))
        return
    tasks = {
        task: ('ours',) if args.only_ours else TASKS[task]
        for task in args.tasks
    }
    total = args.repeats * sum(map(len, tasks.values()))
    bar = ProgressBar(total, 30, file=sys.stderr)
    lines = []
    for task, routes in tasks.items():
        lines += compare(task, routes, args, bar)
    print(
        f'\n{args.size} x {args.size}, D={args.dim}, {args.threads} '
        f'thread(s), median of {args.repeats}\n'
        f'{"":8s} {"":13s} {"s":>8s} {"CPU s":>8s} {"peak MiB":>9s} '
        f'{"s":>8s} {"CPU s":>8s} {"memory":>8s}   ours / route'
    )
    print('\n'.join(lines))


if __name__ == '__main__':
    run_tool(main)
