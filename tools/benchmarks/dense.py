"""What a dense comparison adds to a training step, in time and memory.

* A step: forward, backward and optimizer of configs/cmcd/depth_nyu_tiny.py
  with a dense comparison, or of depth_nyu_dense_tiny.py, against the first
  without any, on random images. Both models take turns in one process, and in
  coming first; shown is the median of the turns' ratios with its interval.
* Many locations: one dense comparison of 32 x 15 x 20 cells, all against all,
  forward and backward, against the same in plain torch; loss and gradient must
  agree, or the tool stops. Each runs in a process of its own: time is the
  median of the turns, memory the peak above what the process held with its
  inputs, after a tiny problem has loaded what is loaded once.
"""

import argparse
import copy
import datetime
import os
import platform
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.model import BaseModel
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from mmengine.utils import ProgressBar
from mmpretrain.structures import DataSample
from scipy import stats
from torch import Tensor

from mmcmcd.apis import run_tool
from mmcmcd.apis.measuring import (
    check_args,
    in_new_process,
    judged,
    machine_name,
    peak_memory,
    require_peak_memory,
    reset_peak_memory,
    select_rows,
    tables,
)
from mmcmcd.errors import ConfigError
from mmcmcd.models.distillers import DenseComparison
from mmcmcd.registry import MODELS

TOOL = 'tools/benchmarks/dense.py'
CONFIGS = Path(__file__).resolve().parents[2] / 'configs/cmcd'
CONFIG = CONFIGS / 'depth_nyu_tiny.py'
# A variant of a step: this config as it is.
SHIPPED = 'depth_nyu_dense_tiny.py'
HEIGHT, WIDTH = 96, 128
# Width of the last map of that config.
STEP_DIM = 256
# Images of the tiny problem before memory is measured.
WARM_UP = 2
# Relative difference, by norm, up to which losses and gradients agree.
TOLERANCE = 1e-4
TEMPERATURE = 0.1
CMC = dict(type='mmcmcd.CMCLoss', temperature=TEMPERATURE)


def variants(dim: int) -> dict[str, dict]:
    """Dense comparisons of rows of a width, by name."""
    center = dict(type='mmcmcd.Center', num_features=dim)
    cmc = dict(
        loss=CMC,
        projector=dict(
            type='Conv2d', in_channels=dim, out_channels=dim, kernel_size=1
        ),
        source_norm=center,
    )
    prototypes = dict(type='mmcmcd.PrototypeLoss', num_features=dim)
    return {
        'CMC': cmc,
        'CMC, exclusion radius 1': dict(cmc, exclusion_radius=1),
        'CMC, same image': dict(cmc, candidates='image'),
        'CMC, other images': dict(cmc, candidates='others'),
        'CMD within': dict(cmc, loss=dict(type='mmcmcd.CMDLoss')),
        'prototypes': dict(cmc, loss=prototypes),
        'CMC, whitened': dict(
            cmc, source_norm=dict(type='mmcmcd.Whiten', num_features=dim)
        ),
    }


class Step(NamedTuple):
    """A training step with a dense comparison, against that without.

    Attributes:
        variant (str): Key of :func:`variants`, or ``SHIPPED``.
        batch (int): Pairs.
        limit (float, optional): Of the ratio.
    """

    variant: str
    batch: int = 64
    limit: float | None = None

    @property
    def label(self) -> str:
        """What --only is searched in."""
        return f'step: {self.variant}'

    def shrunk(self, by: int) -> 'Step':
        """Return a smaller step, without a limit."""
        return self._replace(batch=max(4, self.batch // by), limit=None)


class Locations(NamedTuple):
    """A dense comparison of many locations.

    Attributes:
        variant (str): Key of :func:`variants`.
        dim (int): D.
        images (int): Of 15 x 20 cells.
        limit (float, optional): Of its memory, in MB.
        against_naive (bool): Whether plain torch is measured, too.
    """

    variant: str
    dim: int = 512
    images: int = 32
    limit: float | None = None
    against_naive: bool = False

    @property
    def label(self) -> str:
        """What --only is searched in."""
        return f'locations: {self.variant}, D={self.dim}'

    def shrunk(self, by: int) -> 'Locations':
        """Return a smaller problem, without a limit."""
        return self._replace(images=max(2, self.images // by), limit=None)


def all_rows() -> list[Step | Locations]:
    """Everything that can be measured."""
    steps = [Step(name) for name in variants(STEP_DIM)]
    large = [Locations(name) for name in variants(512)]
    whole = Locations('CMC', limit=300, against_naive=True)
    return [
        Step(SHIPPED, limit=1.15),
        steps[0]._replace(limit=1.15),
        *steps[1:],
        whole,
        whole._replace(dim=256),
        *large[1:],
    ]


def parse_args():
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        '--only',
        default='',
        metavar='PATTERN',
        help='regular expression that is searched in "step: VARIANT" and '
        '"locations: VARIANT, D=...", for example "^step"',
    )
    parser.add_argument('--repeats', type=int, default=15, help='turns')
    parser.add_argument('--threads', type=int, default=2)
    parser.add_argument(
        '--shrink',
        type=int,
        default=1,
        metavar='N',
        help='divide the numbers of images by N, to try the tool; nothing is '
        'judged then',
    )
    parser.add_argument('--out', metavar='FILE.md', help='page to write')
    return parser.parse_args()


def make_step(variant: str | None, batch: int) -> Callable[[], None]:
    """Make a training step of a tiny config on random images."""
    cfg = Config.fromfile(CONFIGS / SHIPPED if variant == SHIPPED else CONFIG)
    # Else every weight tells how it was initialised.
    MMLogger.get_current_instance().setLevel('WARNING')
    init_default_scope(cfg.default_scope)
    torch.manual_seed(0)
    model_cfg = cfg.model
    if variant in variants(STEP_DIM):
        model_cfg.dense = dict(x=variants(STEP_DIM)[variant])
    with tempfile.TemporaryDirectory() as folder:
        # Any teacher costs the same.
        teacher = copy.deepcopy(model_cfg.teacher)
        del teacher.init_cfg
        model_cfg.teacher.init_cfg.checkpoint = f'{folder}/teacher.pth'
        state = MODELS.build(teacher).state_dict()
        torch.save(
            {f'backbone.{name}': value for name, value in state.items()},
            f'{folder}/teacher.pth',
        )
        model = MODELS.build(model_cfg)
        model.init_weights()
    optim_wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    pairs = random_pairs(model, batch)
    return lambda: model.train_step(pairs, optim_wrapper)


def random_pairs(model: BaseModel, number: int) -> dict:
    """Draw a batch as a data loader gives it."""
    samples = [
        DataSample(metainfo=dict(pair_id=str(i), group_index=i))
        for i in range(number)
    ]
    mask = torch.ones(1, HEIGHT, WIDTH, dtype=torch.bool)
    for sample in samples:
        sample.set_field(PixelData(data=mask), 'target_valid')
    sides = dict(
        source=torch.randint(256, (number, 3, HEIGHT, WIDTH)).byte(),
        target=torch.rand(number, 1, HEIGHT, WIDTH),
    )
    return dict(
        inputs={name: [*images] for name, images in sides.items()},
        data_samples=samples,
    )


def seconds(step: Callable[[], None]) -> float:
    """Time one call."""
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def measure_step(
    row: Step, repeats: int, threads: int
) -> list[tuple[float, float]]:
    """Seconds of a step with and without the dense comparison, by turns."""
    torch.set_num_threads(threads)
    steps = [make_step(variant, row.batch) for variant in (row.variant, None)]
    turns = []
    for turn in range(repeats + 1):
        # Who comes second may gain or lose by it: every other time, each.
        order = slice(None, None, -1 if turn % 2 else 1)
        turns.append(tuple([seconds(step) for step in steps[order]][order]))
    return turns[1:]  # the first one warms up


class Maps(NamedTuple):
    """Inputs of a dense comparison.

    Attributes:
        student (Tensor): (B, D, 15, 20); takes a gradient.
        teacher (Tensor): (B, D, 15, 20).
        groups (Tensor): Integers (B, ).
    """

    student: Tensor
    teacher: Tensor
    groups: Tensor


def make_maps(row: Locations) -> Maps:
    """Draw the inputs; the teacher's as after a ReLU."""
    gen = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(
        2, row.images, row.dim, 15, 20, generator=gen
    )
    # Parts of one tensor would hold on to each other.
    student, teacher = student.clone(), teacher.relu_().clone()
    return Maps(student.requires_grad_(), teacher, torch.arange(row.images))


def make_comparison(row: Locations) -> DenseComparison:
    """Build it; the same weights for all of one width."""
    init_default_scope('mmpretrain')
    torch.manual_seed(0)
    return DenseComparison('x', **variants(row.dim)[row.variant])


def ours(comparison: DenseComparison, maps: Maps) -> Tensor:
    """Compute the loss by the package."""
    (loss,) = comparison(*maps).values()
    return loss


def naive(comparison: DenseComparison, maps: Maps) -> Tensor:
    """Compute the dense CMC in plain torch."""
    student = comparison.projector(maps.student)
    student, teacher = (
        side.movedim(1, -1).flatten(0, 2) for side in (student, maps.teacher)
    )
    teacher = F.normalize(teacher - teacher.mean(dim=0), dim=1)
    logits = F.normalize(student, dim=1) @ teacher.T / TEMPERATURE
    labels = torch.arange(len(logits))
    return (
        F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)
    ) / 2


WAYS = dict(ours=ours, naive=naive)


def run(way: str, comparison: DenseComparison, maps: Maps) -> Tensor:
    """Compute loss and gradients once."""
    maps.student.grad = None
    comparison.zero_grad()
    loss = WAYS[way](comparison, maps)
    loss.backward()
    return loss.detach()


def measure_locations(
    row: Locations, way: str, repeats: int, threads: int
) -> tuple[float, float]:
    """Seconds and peak bytes of one comparison."""
    torch.set_num_threads(threads)
    comparison = make_comparison(row)
    run(way, comparison, make_maps(row._replace(images=WARM_UP)))
    maps = make_maps(row)
    held = reset_peak_memory()
    run(way, comparison, maps)
    # Not less than a page, which is what can be told.
    peak = max(peak_memory() - held, 4096)
    times = [
        seconds(lambda: run(way, comparison, maps)) for _ in range(repeats)
    ]
    return statistics.median(times), peak


def difference(row: Locations, threads: int) -> float:
    """Relative difference of loss and gradient, the larger by norm.

    Raises:
        ConfigError: It is larger than rounding explains.
    """
    torch.set_num_threads(threads)
    maps, results = make_maps(row), []
    for way in WAYS:
        loss = run(way, make_comparison(row), maps)
        results.append((loss, maps.student.grad))
    found = max(
        float((mine - theirs).norm() / theirs.norm())
        for mine, theirs in zip(*results, strict=True)
    )
    if not found <= TOLERANCE:
        raise ConfigError(
            f'{row.label}: loss or gradient differs from that of plain torch '
            f'by {found:.1e}, more than {TOLERANCE}.'
        )
    return found


def measure(rows: list, args) -> dict:
    """Measure every row in processes of its own."""
    results = {}
    bar = ProgressBar(len(rows), 30, file=sys.stderr)
    for row in rows:
        rest = args.repeats, args.threads
        if isinstance(row, Step):
            results[row] = in_new_process(measure_step, row, *rest)
        else:
            ways = WAYS if row.against_naive else ('ours',)
            results[row] = {
                way: in_new_process(measure_locations, row, way, *rest)
                for way in ways
            }
            if row.against_naive:
                results['difference', row] = in_new_process(
                    difference, row, args.threads
                )
        bar.update()
    print(file=sys.stderr)
    return results


def median_interval(values: list[float]) -> tuple[float, float, float]:
    """Median, and the bounds of its interval by order statistics.

    That of 95 % takes six values or more; of fewer it is their range.
    """
    ordered, number = sorted(values), len(values)
    rank = max(int(stats.binom.ppf(0.025, number, 0.5)), 1)
    return statistics.median(values), ordered[rank - 1], ordered[-rank]


def step_cells(row: Step, results: dict) -> list[str]:
    """Format the row of a step."""
    turns = results[row]
    medians = (statistics.median(times) for times in zip(*turns, strict=True))
    ratio, low, high = median_interval([mine / other for mine, other in turns])
    return [
        f'{row.variant}, B={row.batch}',
        *(f'{1e3 * value:.0f}' for value in medians),
        judged(ratio, row.limit),
        f'{low:.3f} to {high:.3f}',
    ]


def location_cells(row: Locations, results: dict) -> list[str]:
    """Format the row of a comparison of many locations."""
    (time_, peak), *others = results[row].values()
    cells = [
        f'{row.variant}, D={row.dim}, {row.images} x 15 x 20',
        judged(peak / 1e6, row.limit),
        f'{1e3 * time_:.0f}',
    ]
    if not others:
        return [*cells, '', '', '']
    ((other_time, other_peak),) = others
    return [
        *cells,
        f'{other_peak / 1e6:.0f}',
        f'{1e3 * other_time:.0f}',
        f'{results["difference", row]:.0e}',
    ]


# Of every kind of row: how to format it, and the heads of its columns.
TABLES = {
    Step: (
        step_cells,
        'step with a dense comparison | ms | without, ms | ratio | 95 % '
        'interval',
    ),
    Locations: (
        location_cells,
        'comparison of all locations | MB | ms | plain torch, MB | ms | '
        'values differ by',
    ),
}


PAGE = """# What a dense comparison costs

```bash
{command}
```

{tables}

## How to read it

Written by the command above; threads: {threads}. Behind a figure stands the
aim; what misses it is bold, and a row without an aim is for information.

* **Steps**: `configs/cmcd/depth_nyu_tiny.py` (half-width ResNet-18 teacher and
  student, 96x128, its optimizer and precision) on random images, with a dense
  comparison of the last maps, 3 x 4 cells of 256 features, and without any;
  in the first row `depth_nyu_dense_tiny.py`, which compares cells of the last
  two maps and no whole images, in place of the former:
  {repeats} turns after a warm-up. In a turn both run one after the other in
  one process, so that other load falls on both; which comes first alternates.
  The ratio is the median of the turns' ratios, its interval that of their
  order statistics; the milliseconds are medians of their own.
* **All locations**: projector, norm, rows and loss of one dense comparison,
  forward and backward, in float32. Memory is the peak resident memory above
  what a new process held with its inputs; time is the median of {repeats}. In
  *plain torch*: one matrix of all similarities, two `cross_entropy`.
* *CMC*: centred teacher, temperature {temperature}, all locations of the batch
  as candidates. *CMD within* and *prototypes* with their defaults.

{date}, {machine}, load {load:.1f} before it began; Python {python}, torch
{torch}.
"""


def write_page(path: Path, rows: list, results: dict, args, load: float):
    """Write the page."""
    path.write_text(
        PAGE.format(
            command=shlex.join(['python', TOOL, *sys.argv[1:]]),
            tables=tables(TABLES, rows, results),
            threads=args.threads,
            repeats=args.repeats,
            temperature=TEMPERATURE,
            date=datetime.date.today(),
            machine=machine_name(),
            load=load,
            python=platform.python_version(),
            torch=torch.__version__,
        )
    )


def main():
    """Measure, print and write."""
    args = parse_args()
    check_args(args)
    rows = select_rows(all_rows(), args.only, args.shrink)
    require_peak_memory()
    load = os.getloadavg()[0]
    results = measure(rows, args)
    print(tables(TABLES, rows, results))
    if args.out:
        write_page(Path(args.out), rows, results, args, load)


if __name__ == '__main__':
    run_tool(main)
