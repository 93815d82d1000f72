"""What the contrastive losses cost, against the usual ways.

Every loss runs forward and backward on random unit rows; students take a
gradient, teachers and memories do not. Where the formula is the same, loss and
gradient must agree, or the tool stops.

* Time: ours and the other way take turns in one process, after a warm-up, and
  in coming first; shown is the turn whose ratio is the median of all.
* Memory: one new process each; the peak above what it held with its inputs,
  after a tiny problem has loaded what is loaded once.

Rows whose package is not installed (extra ``bench``), or that need a GPU where
there is none, are left empty.
"""

import argparse
import datetime
import importlib.util
import math
import os
import platform
import shlex
import sys
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from mmengine.utils import ProgressBar
from torch import Tensor

from mmcmcd.apis import run_tool
from mmcmcd.apis.measuring import (
    check_args,
    in_new_process,
    judged,
    machine_name,
    package_version,
    peak_memory,
    require_peak_memory,
    reset_peak_memory,
    select_rows,
    tables,
)
from mmcmcd.errors import ConfigError
from mmcmcd.models.losses import (
    CMCDLoss,
    CMCLoss,
    CMDLoss,
    CRDLoss,
    Memory,
)
from mmcmcd.models.losses import functional as fn
from mmcmcd.models.losses.candidates import Candidates, Keep

TEMPERATURE = 0.07
# (teacher's, student's): our defaults, and those of the papers.
CMD_TEMPERATURES = (0.1, 0.2)
SEED_TEMPERATURES = (0.01, 0.2)
COMPRESS_TEMPERATURES = (0.04, 0.04)
# Samples in CRD's banks: CIFAR's.
CRD_SAMPLES = 50_000
# Short steps are repeated until a turn lasts so many seconds, and short turns
# until all do, for every one that is asked for.
SHORTEST_TURN = 0.01
LEAST_SECONDS = 0.2
# Relative difference, by norm, up to which losses and gradients agree.
TOLERANCE = 1e-4
CLIP = 'open_clip ClipLoss'
NAIVE = 'naive torch'
COMPILED = 'naive, compiled'
PLOTTED = (('CMC', CLIP), ('CMD within', NAIVE))
TOOL = 'tools/benchmarks/losses.py'
# Rows of the tiny problem before memory is measured.
WARM_UP = 256


class Rows(NamedTuple):
    """The inputs of a loss.

    Attributes:
        student (Tensor): Unit rows (B, D); takes the gradient.
        teacher (Tensor): Unit rows (B, D).
        memory (Memory, optional): Unit rows (K, D) of each side.
        group_ids (Tensor, optional): Integers (B, ).
    """

    student: Tensor
    teacher: Tensor
    memory: Memory | None = None
    group_ids: Tensor | None = None


# A way to compute a loss: takes the rows, prepares what is kept over the
# steps, and returns what is called in each of them.
Step = Callable[[], Tensor]


def stateless(loss: Callable[[Rows], Tensor]) -> Callable[[Rows], Step]:
    """Compute a loss that keeps nothing over the steps."""
    return lambda rows: lambda: loss(rows)


def ours(loss) -> Callable[[Rows], Step]:
    """Compute one of the package's losses."""
    return stateless(lambda rows: loss(*rows))


@stateless
def plain_cmc(rows: Rows) -> Tensor:
    """CMC by the package's plain formula, whatever the size."""
    teacher = Candidates(fn.unit_rows(rows.teacher))
    student = fn.unit_rows(rows.student)
    return fn.plain_info_nce(student, teacher, TEMPERATURE, Keep())


@stateless
def plain_cmd_within(rows: Rows) -> Tensor:
    """CMD within by the package's plain formula, whatever the size."""
    teacher = fn.unit_rows(rows.teacher)
    student = fn.unit_rows(rows.student)
    teacher_temperature, student_temperature = CMD_TEMPERATURES
    return fn.plain_soft_cross_entropy(
        student,
        Candidates(student),
        teacher,
        Candidates(teacher),
        student_temperature,
        teacher_temperature,
        Keep(include_self=False),
    )


@stateless
def naive_cmc(rows: Rows) -> Tensor:
    """CMC by two cross-entropies of one matrix."""
    student = F.normalize(rows.student, dim=1)
    logits = (student / TEMPERATURE) @ rows.teacher.T
    labels = torch.arange(len(logits), device=logits.device)
    return (
        F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)
    ) / 2


@stateless
def naive_one_way(rows: Rows) -> Tensor:
    """Students against teachers of batch and memory, by cross-entropy."""
    student = F.normalize(rows.student, dim=1)
    teachers = rows.teacher
    if rows.memory is not None:
        teachers = torch.cat([teachers, rows.memory.teacher])
    logits = (student / TEMPERATURE) @ teachers.T
    labels = torch.arange(len(logits), device=logits.device)
    return F.cross_entropy(logits, labels)


def naive_cmd(form: str) -> Callable[[Rows], Step]:
    """CMD by a cross-entropy with soft targets."""

    @stateless
    def loss(rows):
        student = F.normalize(rows.student, dim=1)
        others = student if form == 'within' else rows.teacher
        teacher_temperature, student_temperature = CMD_TEMPERATURES
        with torch.no_grad():
            target = rows.teacher / teacher_temperature @ rows.teacher.T
        logits = student / student_temperature @ others.T
        if form == 'within':
            # -inf would give 0 * inf.
            lowest = torch.finfo(logits.dtype).min
            target.fill_diagonal_(lowest)
            logits.fill_diagonal_(lowest)
        return F.cross_entropy(logits, target.softmax(dim=1))

    return loss


@stateless
def seed(rows: Rows) -> Tensor:
    """SEED (ICLR 2021): own teacher and queue as candidates of both."""
    queue, teacher = rows.memory.teacher, rows.teacher
    teacher_temperature, student_temperature = SEED_TEMPERATURES

    def scores(anchors):
        own = (anchors * teacher).sum(dim=1, keepdim=True)
        return torch.cat([own, anchors @ queue.T], dim=1)

    student = F.normalize(rows.student, dim=1)
    with torch.no_grad():
        target = (scores(teacher) / teacher_temperature).softmax(dim=1)
    logits = scores(student) / student_temperature
    return F.cross_entropy(logits, target)


@stateless
def compress(rows: Rows) -> Tensor:
    """CompRess (NeurIPS 2020), each side against its own queue.

    Less the entropy of the targets, which is constant.
    """
    teacher_temperature, student_temperature = COMPRESS_TEMPERATURES
    student = F.normalize(rows.student, dim=1)
    with torch.no_grad():
        target = rows.teacher @ rows.memory.teacher.T
        target = (target / teacher_temperature).softmax(dim=1)
    logits = student @ rows.memory.student.T / student_temperature
    return F.cross_entropy(logits, target)


def mmpretrain_moco(rows: Rows) -> Step:
    """MoCo as in mmpretrain: a copy of the queue, its scores, one matrix."""
    queue = rows.memory.teacher.T.contiguous()

    def step():
        student = F.normalize(rows.student, dim=1)
        own = torch.einsum('nc,nc->n', student, rows.teacher)[:, None]
        others = torch.einsum('nc,ck->nk', student, queue.clone())
        logits = torch.cat([own, others], dim=1)
        logits /= TEMPERATURE
        labels = torch.zeros(len(logits), dtype=torch.long)
        return F.cross_entropy(logits, labels.to(logits.device))

    return step


def crd(rows: Rows) -> Step:
    """CRD (ICLR 2020) as in RepDistiller: NCE of rows picked from banks.

    As there, each anchor has its own K + 1 rows gathered, on both sides.  Here
    the K are those of the memory in random order, and neither the drawing of
    indices nor the update of the banks is counted.
    """
    batch, (memory_student, memory_teacher, _) = len(rows.student), rows.memory
    num = len(memory_teacher)
    device = rows.student.device
    teacher_bank = torch.cat([memory_teacher, rows.teacher])
    student_bank = torch.cat([memory_student, rows.student.detach()])
    own = num + torch.arange(batch, device=device)[:, None]
    others = torch.rand(batch, num, device=device).argsort(dim=1)
    index = torch.cat([own, others], dim=1).flatten()
    noise = num / CRD_SAMPLES
    normalisers = {}

    def contrast(side, anchors, bank):
        gathered = bank.index_select(0, index).view(batch, num + 1, -1)
        scores = torch.bmm(gathered, anchors[:, :, None]).squeeze(2)
        odds = torch.exp(scores / TEMPERATURE)
        if side not in normalisers:
            normalisers[side] = odds.mean().item() * CRD_SAMPLES
        odds = odds / normalisers[side]
        total = odds + noise + 1e-7
        positive = torch.log(odds[:, 0] / total[:, 0]).sum()
        negative = torch.log(noise / total[:, 1:]).sum()
        return -(positive + negative) / batch

    def step():
        student = F.normalize(rows.student, dim=1)
        return contrast('student', student, teacher_bank) + contrast(
            'teacher', rows.teacher, student_bank
        )

    return step


def open_clip_loss(rows: Rows) -> Step:
    """ClipLoss, after the normalisation that CLIP's model does."""
    from open_clip.loss import ClipLoss

    loss = ClipLoss()

    def step():
        student = F.normalize(rows.student, dim=1)
        return loss(student, rows.teacher, 1 / TEMPERATURE)

    return step


def lightly_ntxent(rows: Rows) -> Step:
    """NTXentLoss with the memory in its bank; it also stores the batch."""
    from lightly.loss import NTXentLoss

    queue = rows.memory.teacher
    loss = NTXentLoss(TEMPERATURE, memory_bank_size=tuple(queue.shape))
    loss.memory_bank.bank = queue.clone()
    return lambda: loss(rows.student, rows.teacher)


def metric_learning_ntxent(rows: Rows) -> Step:
    """NTXentLoss of students as anchors of teachers."""
    from pytorch_metric_learning.losses import NTXentLoss

    loss = NTXentLoss(TEMPERATURE)
    labels = torch.arange(len(rows.student), device=rows.student.device)
    # One and the same tensor would mean that both sides are the same.
    ref_labels = labels.clone()
    return lambda: loss(
        rows.student, labels, ref_emb=rows.teacher, ref_labels=ref_labels
    )


def compiled(prepare: Callable[[Rows], Step]) -> Callable[[Rows], Step]:
    """Compile the step of another way."""
    return lambda rows: torch.compile(prepare(rows))


class Way(NamedTuple):
    """A way other than ours.

    Attributes:
        prepare (Callable): Makes the step.
        package (str, optional): What it imports.
        compare (str): Whether it is our formula: ``'same'``; ``'own'`` where
            other rows of the batch must be left out; ``''`` if it is another.
    """

    prepare: Callable[[Rows], Step]
    package: str | None = None
    compare: str = 'same'


def cmd(form, temperatures=CMD_TEMPERATURES):
    """Our CMD with (teacher's, student's) temperatures."""
    return ours(CMDLoss(form, *temperatures))


ONE_WAY = ours(CMCLoss(TEMPERATURE, symmetric=False))
OURS = {
    'CMC': ours(CMCLoss(TEMPERATURE)),
    'CMD within': cmd('within'),
    'CMD cross': cmd('cross'),
    'CMC, one way': ONE_WAY,
    'CMD cross, SEED': cmd('cross', SEED_TEMPERATURES),
    'CMD within, CompRess': cmd('within', COMPRESS_TEMPERATURES),
    'CRD': ours(CRDLoss(TEMPERATURE)),
}
WAYS = {
    ('CMC', CLIP): Way(open_clip_loss, 'open_clip'),
    ('CMC', 'plain formula'): Way(plain_cmc),
    ('CMC', NAIVE): Way(naive_cmc),
    ('CMC', COMPILED): Way(compiled(naive_cmc)),
    ('CMD within', 'plain formula'): Way(plain_cmd_within),
    ('CMD within', NAIVE): Way(naive_cmd('within')),
    ('CMD within', COMPILED): Way(compiled(naive_cmd('within'))),
    ('CMD cross', NAIVE): Way(naive_cmd('cross')),
    ('CMD cross', COMPILED): Way(compiled(naive_cmd('cross'))),
    ('CMC, one way', NAIVE): Way(naive_one_way),
    ('CMC, one way', COMPILED): Way(compiled(naive_one_way)),
    ('CMC, one way', 'lightly NTXentLoss'): Way(
        lightly_ntxent, 'lightly', 'own'
    ),
    ('CMC, one way', 'mmpretrain MoCo'): Way(mmpretrain_moco, compare='own'),
    ('CMC, one way', 'pytorch-metric-learning NTXentLoss'): Way(
        metric_learning_ntxent, 'pytorch_metric_learning'
    ),
    ('CMC, one way', 'RepDistiller CRD'): Way(crd, compare=''),
    # The same value but for a 1e-7; there, students in a bank do not learn.
    ('CRD', 'RepDistiller CRD'): Way(crd, compare=''),
    ('CMD cross, SEED', 'SEED'): Way(seed, compare='own'),
    ('CMD within, CompRess', 'CompRess'): Way(compress, compare='own'),
}


class Case(NamedTuple):
    """One row of the table.

    Attributes:
        loss (str): Key of OURS.
        against (str): With it, key of WAYS.
        batch (int): B.
        memory (int): K.
        memory_limit (Fraction | float, optional): Of ours / other.
        time_limit (Fraction | float, optional): Of ours / other.
        with_memory (bool): Whether memory is measured.
        dim (int): D.
        device (str): ``'cpu'`` or ``'cuda'``.
    """

    loss: str
    against: str
    batch: int
    memory: int = 0
    memory_limit: Fraction | float | None = None
    time_limit: Fraction | float | None = None
    with_memory: bool = True
    dim: int = 128
    device: str = 'cpu'

    @property
    def way(self) -> Way:
        """The other way."""
        return WAYS[self.loss, self.against]

    @property
    def title(self) -> str:
        """What is computed."""
        memory = f', K={self.memory}' if self.memory else ''
        dim = '' if self.dim == 128 else f', D={self.dim}'
        return f'{self.loss}, B={self.batch}{memory}{dim}'

    @property
    def label(self) -> str:
        """What is computed, and against what."""
        return f'{self.title} against {self.against}'

    @property
    def problem(self) -> tuple:
        """What our memory depends on."""
        return self.loss, self.batch, self.memory, self.dim, self.device

    @property
    def scores(self) -> int:
        """Size of the matrix that is not to be stored."""
        return self.batch * (self.batch + self.memory)

    def shrunk(self, by: int) -> 'Case':
        """Return a smaller case, without limits."""
        return self._replace(
            batch=max(4, self.batch // by),
            memory=self.memory // by,
            memory_limit=None,
            time_limit=None,
        )

    @property
    def obstacle(self) -> str:
        """Why it cannot be measured here, or ''."""
        if self.device == 'cuda' and not torch.cuda.is_available():
            return 'needs a GPU'
        package = self.way.package
        if package and importlib.util.find_spec(package) is None:
            return 'not installed'
        return ''


class Growth(NamedTuple):
    """How much more memory ours takes in a larger case than in a smaller."""

    large: Case
    small: Case
    limit: float | None

    @property
    def title(self) -> str:
        """What is compared."""
        return f'{self.large.title} / {self.small.title}'

    @property
    def label(self) -> str:
        """What is compared."""
        return f'memory of {self.title}'

    @property
    def obstacle(self) -> str:
        """Why it cannot be measured here, or ''."""
        return self.large.obstacle

    def shrunk(self, by: int) -> 'Growth':
        """Return smaller cases, without a limit."""
        return Growth(self.large.shrunk(by), self.small.shrunk(by), None)


class DistillationStep(NamedTuple):
    """A training step, of which the loss is a part."""

    batch: int = 256
    height: int = 96
    width: int = 128
    limit: float | None = 0.03

    @property
    def title(self) -> str:
        """What is computed."""
        size = f'{self.height}x{self.width}'
        return f'ResNet-18 from ResNet-18, B={self.batch}, {size}'

    @property
    def label(self) -> str:
        """What is computed."""
        return f'distillation step: {self.title}'

    def shrunk(self, by: int) -> 'DistillationStep':
        """Return a smaller step, without a limit."""
        return self._replace(batch=max(4, self.batch // by), limit=None)


def cpu_cases() -> list[Case]:
    """What is measured on every machine."""
    quarter, twelfth = Fraction(1, 4), Fraction(1, 12)
    cases = [
        Case('CMC', CLIP, 1024),
        Case('CMC', CLIP, 2048),
        Case('CMC', CLIP, 4096, 0, quarter, 0.8),
        Case('CMC', CLIP, 8192, 0, twelfth, 0.6),
        Case('CMC', CLIP, 16384, 0, Fraction(1, 30), 0.6),
        Case('CMD within', NAIVE, 1024),
        Case('CMD within', NAIVE, 2048),
        Case('CMD within', NAIVE, 4096, 0, quarter, 0.7),
        Case('CMD within', NAIVE, 8192, 0, twelfth, 0.7),
        Case('CMD cross', NAIVE, 4096, 0, quarter, 0.7),
        Case('CMD cross', NAIVE, 8192, 0, twelfth, 0.7),
    ]
    for way in ('lightly NTXentLoss', 'mmpretrain MoCo'):
        cases += [
            Case('CMC, one way', way, 256, 65536, quarter, 0.8),
            Case('CMC, one way', way, 1024, 65536, twelfth, 0.7),
        ]
    third = Fraction(1, 3)
    crd_limits = Fraction(1, 50), Fraction(1, 30)
    cases += [
        Case('CMD cross, SEED', 'SEED', 256, 65536, third, 0.8),
        Case('CMD within, CompRess', 'CompRess', 256, 65536, third, 0.8),
        Case('CMC, one way', 'RepDistiller CRD', 64, 16384, *crd_limits),
        Case('CRD', 'RepDistiller CRD', 64, 16384, *crd_limits),
        Case('CMC, one way', NAIVE, 256, 1_000_000, None, 1.1),
    ]
    for loss in ('CMC', 'CMD within'):
        for batch in (64, 128, 256, 512):
            for way, limit in (('plain formula', 1.05), (NAIVE, None)):
                cases.append(Case(loss, way, batch, 0, None, limit, False))
    metric_learning = 'pytorch-metric-learning NTXentLoss'
    return cases + [
        Case('CMC, one way', metric_learning, batch) for batch in (256, 512)
    ]


def gpu_cases() -> list[Case]:
    """What is measured where there is a GPU."""
    gpu = dict(time_limit=1.2, dim=256, device='cuda')
    ways = (
        ('CMC', CLIP),
        ('CMC', COMPILED),
        ('CMD within', COMPILED),
        ('CMD cross', COMPILED),
    )
    cases = [
        Case(*way, batch, **gpu) for way in ways for batch in (32768, 131072)
    ]
    return cases + [Case('CMC, one way', COMPILED, 256, 1_000_000, **gpu)]


def growths() -> list[Growth]:
    """Problems of ours whose memory shall not, or hardly, grow."""
    batch = Case('CMC', NAIVE, 16384)
    queue = Case('CMC, one way', NAIVE, 256, 65536)
    pairs = [
        Growth(batch, batch._replace(batch=4096), 1.5),
        Growth(queue._replace(memory=1_000_000), queue, 1.5),
    ]
    for case in gpu_cases():
        if case.batch == 131072 and case.against == COMPILED:
            pairs.append(
                # At most the batch's growth to the power of 1.1.
                Growth(case, case._replace(batch=32768), round(4**1.1, 1))
            )
    return pairs


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
        help='regular expression that is searched in "LOSS, B=... against '
        'WAY", for example "^CMC, B=.* open_clip"',
    )
    parser.add_argument(
        '--repeats',
        type=int,
        default=7,
        help='turns of ours and the other; more where they are short',
    )
    parser.add_argument('--threads', type=int, default=2)
    parser.add_argument(
        '--shrink',
        type=int,
        default=1,
        metavar='N',
        help='divide all sizes by N, to try the tool; nothing is judged then',
    )
    parser.add_argument(
        '--out',
        metavar='FILE.md',
        help='page to write, with a plot of the same name beside it',
    )
    return parser.parse_args()


def unit_rows(size: int, dim: int, rng: torch.Generator) -> Tensor:
    """Draw random unit rows (size, dim)."""
    rows = torch.randn(size, dim, generator=rng)
    return F.normalize(rows, dim=1, out=rows)


def make_rows(case: Case) -> Rows:
    """Draw the inputs of a case."""
    rng = torch.Generator().manual_seed(0)
    student, teacher, memory_student, memory_teacher = (
        unit_rows(size, case.dim, rng).to(case.device)
        for size in (case.batch, case.batch, case.memory, case.memory)
    )
    memory = None
    if case.memory:
        # Those of the batch are zero where there are any.
        groups = torch.arange(1, case.memory + 1, device=case.device)
        memory = Memory(memory_student, memory_teacher, groups)
    return Rows(student.requires_grad_(), teacher, memory)


def run(step: Step, rows: Rows) -> Tensor:
    """Compute loss and gradient once."""
    rows.student.grad = None
    loss = step()
    loss.backward()
    return loss.detach()


def synchronize(device: str) -> None:
    """Wait for the GPU, if it is one."""
    if device == 'cuda':
        torch.cuda.synchronize()


def difference(case: Case, rows: Rows, other: Step) -> float | None:
    """Relative difference of loss and gradient, None if formulas differ.

    Raises:
        ConfigError: It is larger than rounding explains.
    """
    if not case.way.compare:
        return None
    same = rows
    if case.way.compare == 'own':
        # One group: other rows of the batch are not compared with.
        groups = torch.zeros(case.batch, dtype=torch.long, device=case.device)
        same = rows._replace(group_ids=groups)
    results = []
    for step in (OURS[case.loss](same), other):
        results.append((run(step, rows), rows.student.grad))
    found = max(
        float((mine - theirs).norm() / theirs.norm())
        for mine, theirs in zip(*results, strict=True)
    )
    if not found <= TOLERANCE:
        raise ConfigError(
            f'{case.title}: loss or gradient differs from that of '
            f'{case.against} by {found:.1e}, more than {TOLERANCE}.'
        )
    return found


# Seconds of ours and of the other, one after the other. No class: what a new
# process returns must not need this module, which may be run by another.
Turn = tuple[float, float]


def median_turn(turns: list[Turn]) -> Turn:
    """Find the turn with the median of ours / other, the higher one of two."""
    return sorted(turns, key=lambda turn: turn[0] / turn[1])[len(turns) // 2]


def measure_time(
    case: Case, repeats: int, threads: int
) -> tuple[Turn, float | None]:
    """Measure ours and the other in turns, and how much they differ."""
    torch.set_num_threads(threads)
    rows = make_rows(case)
    mine, other = OURS[case.loss](rows), case.way.prepare(rows)
    try:
        # First, because some change their memory in every step.
        differ = difference(case, rows, other)
    except torch.OutOfMemoryError:
        differ = other = None
        torch.cuda.empty_cache()

    def seconds(step, calls):
        if step is None:
            return math.inf
        synchronize(case.device)
        start = time.perf_counter()
        for _ in range(calls):
            run(step, rows)
        synchronize(case.device)
        return (time.perf_counter() - start) / calls

    # Also warms up.
    steps = [
        (step, math.ceil(SHORTEST_TURN / seconds(step, 1)) or 1)
        for step in (mine, other)
    ]
    turns = []
    end = time.perf_counter() + repeats * LEAST_SECONDS
    while len(turns) < repeats or time.perf_counter() < end:
        # Who comes second may gain or lose by it: every other time, ours does.
        order = slice(None, None, -1 if len(turns) % 2 else 1)
        times = [seconds(step, calls) for step, calls in steps[order]]
        turns.append(tuple(times[order]))
    return median_turn(turns), differ


def measure_memory(case: Case, is_ours: bool, threads: int) -> float:
    """Peak bytes of one step above what is held before it."""
    torch.set_num_threads(threads)
    prepare = OURS[case.loss] if is_ours else case.way.prepare
    small = case._replace(batch=WARM_UP, memory=min(case.memory, WARM_UP))
    small_rows = make_rows(small)
    run(prepare(small_rows), small_rows)
    rows = make_rows(case)
    step = prepare(rows)
    if case.device == 'cuda':
        return gpu_peak(step, rows)
    held = reset_peak_memory()
    run(step, rows)
    # Not less than a page, which is what can be told.
    return max(peak_memory() - held, 4096)


def gpu_peak(step: Step, rows: Rows) -> float:
    """Peak bytes of one step above what the GPU holds before it."""
    try:
        run(step, rows)  # compiles
        rows.student.grad = None
        torch.cuda.reset_peak_memory_stats()
        held = torch.cuda.memory_allocated()
        run(step, rows)
    except torch.OutOfMemoryError:
        return math.inf
    return torch.cuda.max_memory_allocated() - held


def measure_step(row: DistillationStep, repeats: int, threads: int) -> Turn:
    """Seconds of the loss, and of the whole step that it is a part of."""
    from mmpretrain.models.backbones import ResNet

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    teacher, student = ResNet(18), ResNet(18)
    teacher.eval()
    optimizer = torch.optim.SGD(student.parameters(), lr=0.01)
    loss = CMCDLoss(cmd=dict(), cmc=dict())
    images = torch.randn(row.batch, 3, row.height, row.width)

    def step():
        with torch.no_grad():
            constant = teacher(images)[-1].mean((2, 3))
        embedding = student(images)[-1].mean((2, 3))
        optimizer.zero_grad()
        sum(loss(embedding, constant).values()).backward()
        optimizer.step()
        return Rows(embedding.detach().requires_grad_(), constant)

    turns = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        rows = step()
        middle = time.perf_counter()
        run(lambda: sum(loss(*rows).values()), rows)  # noqa: B023
        turns.append((time.perf_counter() - middle, middle - start))
    return median_turn(turns[1:])  # the first one warms up


class Task(NamedTuple):
    """A call that is made in a new process, and its rough share of the time.

    The shares are for the progress bar alone.
    """

    weight: int
    function: Callable
    arguments: tuple


def time_task(case: Case, args) -> Task:
    """Measure the time of a case."""
    weight = 2 + 2 * args.repeats * case.scores // 2**27
    return Task(weight, measure_time, (case, args.repeats, args.threads))


def memory_task(case: Case, is_ours: bool, args) -> Task:
    """Measure the memory of a case."""
    weight = 2 + case.scores // 2**27
    return Task(weight, measure_memory, (case, is_ours, args.threads))


def plan(rows: list, args) -> dict[tuple, Task]:
    """What has to be measured for the rows of the tables, each once."""
    tasks = {}
    for row in rows:
        if isinstance(row, DistillationStep):
            arguments = row, args.repeats, args.threads
            tasks[row] = Task(5 * args.repeats, measure_step, arguments)
        elif row.obstacle:
            continue
        elif isinstance(row, Growth):
            for case in (row.large, row.small):
                tasks[case.problem] = memory_task(case, True, args)
        else:
            tasks['time', row] = time_task(row, args)
            if row.with_memory:
                tasks['memory', row] = memory_task(row, False, args)
                tasks[row.problem] = memory_task(row, True, args)
    return tasks


def carry_out(tasks: dict[tuple, Task]) -> dict:
    """Run every task in a process of its own; return the results."""
    total = sum(task.weight for task in tasks.values())
    bar = ProgressBar(total, 30, file=sys.stderr)
    results = {}
    for key, task in tasks.items():
        results[key] = in_new_process(task.function, *task.arguments)
        bar.update(task.weight)
    print(file=sys.stderr)
    return results


def ratios(row, results: dict) -> dict[str, tuple]:
    """What is judged in a row: ratio and limit by name."""
    if isinstance(row, DistillationStep):
        loss, step = results[row]
        return dict(share=(loss / step, row.limit))
    if row.obstacle:
        return {}
    if isinstance(row, Growth):
        large, small = results[row.large.problem], results[row.small.problem]
        return dict(memory=(large / small, row.limit))
    (mine, other), _ = results['time', row]
    found = dict(time=(mine / other, row.time_limit))
    if row.with_memory:
        ratio = results[row.problem] / results['memory', row]
        found['memory'] = ratio, row.memory_limit
    return found


def summary(rows: list, results: dict) -> str:
    """Say how many limits are met, and which are not."""
    missed, total = [], 0
    for row in rows:
        for name, (ratio, limit) in ratios(row, results).items():
            total += limit is not None
            if limit is not None and not ratio <= limit:
                missed.append(f'* {row.label}: {name} {judged(ratio, limit)}')
    if not total:
        return 'No limits are judged.'
    met = f'{total - len(missed)} of {total} limits are met'
    return (
        '\n'.join([f'{met}; not these:\n', *missed]) if missed else f'{met}.'
    )


def amount(number: float, unit: float) -> str:
    """Format a measured number; infinity stands for what does not fit."""
    if math.isinf(number):
        return 'does not fit'
    return (
        f'{number / unit:.3g}'
        if number < 100 * unit
        else f'{number / unit:.0f}'
    )


def case_cells(case: Case, results: dict) -> list[str]:
    """Format the row of a case."""
    head = [case.title, case.against]
    if case.obstacle:
        return head + [case.obstacle] + [''] * 6
    found = ratios(case, results)
    memory = [''] * 3
    if case.with_memory:
        memory = [
            amount(results[case.problem], 2**20),
            amount(results['memory', case], 2**20),
            judged(*found['memory']),
        ]
    (mine, other), differ = results['time', case]
    return [
        *head,
        *memory,
        amount(mine, 1e-3),
        amount(other, 1e-3),
        judged(*found['time']),
        '' if differ is None else f'{differ:.0e}',
    ]


def growth_cells(row: Growth, results: dict) -> list[str]:
    """Format the row of a growth."""
    if row.obstacle:
        return [row.title, row.obstacle, '', '']
    return [
        row.title,
        amount(results[row.large.problem], 2**20),
        amount(results[row.small.problem], 2**20),
        judged(*ratios(row, results)['memory']),
    ]


def step_cells(row: DistillationStep, results: dict) -> list[str]:
    """Format the row of a training step."""
    loss, step = results[row]
    return [
        row.title,
        amount(loss, 1e-3),
        amount(step, 1e-3),
        judged(*ratios(row, results)['share']),
    ]


# Of every kind of row: how to format it, and the heads of its columns.
TABLES = {
    Case: (
        case_cells,
        'forward and backward | against | ours, MiB | other, MiB | ratio | '
        'ours, ms | other, ms | ratio | values differ by',
    ),
    Growth: (
        growth_cells,
        'memory of ours | larger, MiB | smaller, MiB | ratio',
    ),
    DistillationStep: (
        step_cells,
        'a distillation step | loss, ms | step, ms | share',
    ),
}


def write_plot(path: Path, rows: list, results: dict) -> bool:
    """Plot memory and time over B; return whether there was anything."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import ScalarFormatter

    figure = Figure((9, 4), layout='constrained')
    axes = figure.subplots(1, 2)
    ticks = []
    for color, (loss, way) in zip(('C0', 'C1'), PLOTTED, strict=True):
        cases = [
            row
            for row in rows
            if isinstance(row, Case)
            and (row.loss, row.against, row.device) == (loss, way, 'cpu')
            and row.with_memory
            and not row.obstacle
        ]
        if not cases:
            continue
        batches = [case.batch for case in cases]
        ticks = sorted({*ticks, *batches})
        turns = [results['time', case][0] for case in cases]
        peaks = [
            (results[case.problem], results['memory', case]) for case in cases
        ]
        for which, (name, style) in enumerate((('ours', 'o-'), (way, 's--'))):
            line = dict(color=color, label=f'{loss}, {name}')
            memories = [pair[which] / 2**20 for pair in peaks]
            axes[0].loglog(batches, memories, style, **line)
            seconds = [turn[which] for turn in turns]
            axes[1].loglog(batches, seconds, style, **line)
    if not ticks:
        return False
    for axis, title in zip(axes, ('peak memory, MiB', 'time, s'), strict=True):
        axis.set(title=title, xlabel='batch size', xticks=ticks)
        axis.xaxis.set_major_formatter(ScalarFormatter())
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    axes[0].legend()
    figure.savefig(path, dpi=120)
    return True


PAGE = """# What the contrastive losses cost

```bash
{command}
```

{tables}

{plot}{summary}

## How to read it

Written by the command above. Float32, threads: {threads}, D = 128 unless it
says otherwise; forward and backward on random unit rows, of which only the
student's take a gradient. A ratio is ours / other, behind it the aim; what
misses it is bold, and a row without an aim is for information.

* **Time**: {repeats} turns, more where they are short, after a warm-up. In a
  turn ours and the other run one after the other in one process, so that other
  load falls on both; which one comes first alternates. A row shows one turn as
  it was measured, that whose ratio is the median of all, so that its
  milliseconds are no medians of their own.
* **Memory**: peak resident memory of one step in a new process, above what
  that held with its inputs (memory bank included), after a tiny problem had
  loaded libraries and threads; on a GPU, what torch allocated.
* **Values**: relative difference of loss and gradient (the larger, by norm).
  More than {tolerance} stops the tool. A MoCo, SEED or CompRess step compares
  with the queue alone, our losses with the batch, too; values are compared
  with the other rows of the batch left out (one group), time and memory with
  them in. CRD and CMC are two formulas; our CRD has another gradient than
  RepDistiller's, since its students learn as candidates, too.
* Everyone gets unit rows and normalises the students anew, as at the end of a
  network.

The others:

* `open_clip`, `lightly`, `pytorch-metric-learning` as installed, {versions}.
  lightly also stores the batch in its bank.
* *naive torch*: one product, `cross_entropy`; for CMD with soft targets.
* *plain formula*: what our losses themselves compute where a problem is small.
* *mmpretrain MoCo*, *SEED*, *CompRess*, *RepDistiller CRD*: their arithmetic,
  rewritten. MoCo copies the queue as mmpretrain does; storing the batch is not
  counted. CompRess without the constant entropy of its targets, which saves it
  a pass. CRD gathers K + 1 rows for each anchor from two banks; drawing the
  indices and updating the banks are not counted, and the banks hold no more
  than the K + B rows, which is easier on the cache than {crd_samples} are.
* CMD with SEED's and CompRess' temperatures (teacher {seed[0]} and student
  {seed[1]}; both {compress[0]}), else with our defaults.
* The distillation step: ResNet-18 teacher and student on the same images,
  `CMCDLoss` with both terms on 512 channels, SGD.

{date}, {machine}, load {load:.1f} before it began; Python {python}, torch
{torch}.
"""


def write_page(path: Path, rows: list, results: dict, args, load: float):
    """Write the page and the plot beside it."""
    image = path.with_suffix('.png')
    plotted = write_plot(image, rows, results)
    names = ('open_clip_torch', 'lightly', 'pytorch-metric-learning')
    path.write_text(
        PAGE.format(
            command=shlex.join(['python', TOOL, *sys.argv[1:]]),
            tables=tables(TABLES, rows, results),
            plot=f'![memory and time]({image.name})\n\n' if plotted else '',
            summary=summary(rows, results),
            threads=args.threads,
            repeats=args.repeats,
            tolerance=TOLERANCE,
            versions=', '.join(map(package_version, names)),
            crd_samples=CRD_SAMPLES,
            seed=SEED_TEMPERATURES,
            compress=COMPRESS_TEMPERATURES,
            date=datetime.date.today(),
            machine=machine_name(),
            load=load,
            python=platform.python_version(),
            torch=torch.__version__,
        )
    )


def main():
    """Measure, compare, print and write."""
    args = parse_args()
    check_args(args)
    everything = cpu_cases() + gpu_cases() + growths() + [DistillationStep()]
    rows = select_rows(everything, args.only, args.shrink)
    require_peak_memory()
    load = os.getloadavg()[0]
    results = carry_out(plan(rows, args))
    print(tables(TABLES, rows, results))
    print(f'\n{summary(rows, results)}')
    if args.out:
        write_page(Path(args.out), rows, results, args, load)


if __name__ == '__main__':
    run_tool(main)
