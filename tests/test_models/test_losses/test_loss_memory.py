"""Memory of the losses: resident pages, forward and backward, in a process.

What is measured is the peak above what the process held just before, its
inputs included.  A matrix of all similarities would grow by B squared; what
remains is a few tiles and some (B, D) matrices, among them the gradient.
"""

import json
import os
import sys

import pytest
from conftest import run_command

pytestmark = pytest.mark.skipif(
    not os.access('/proc/self/clear_refs', os.W_OK),
    reason='needs the peak memory that Linux keeps of a process',
)

MIB = 2**20
MEASURE = """
import json

import torch
from torch.nn.functional import normalize

from mmcmcd.apis.measuring import peak_memory, reset_peak_memory
from mmcmcd.models.losses import CMCLoss, CMDLoss, Memory


def peak(loss, batch, dim, queue=0, dtype='float32'):
    student = torch.randn(batch, dim, requires_grad=True)
    teacher, memory = torch.randn(batch, dim), None
    if queue:
        rows = torch.empty(2, queue, dim, dtype=getattr(torch, dtype))
        for part in rows.view(-1, 1000, dim):
            part.copy_(normalize(torch.randn(1000, dim)))
        memory = Memory(*rows, torch.arange(queue))
    before = reset_peak_memory()
    loss(student, teacher, memory, torch.arange(batch)).backward()
    return peak_memory() - before


losses = dict(cmc=CMCLoss(), within=CMDLoss('within'), cross=CMDLoss('cross'))
for loss in losses.values():
    peak(loss, 512, 8)  # loads what is loaded once
print(json.dumps([peak(losses[name], *size) for name, *size in CASES]))
"""
# Of a loss: batch, dimension, queue and its type.
BATCHES = [(4096, 8), (16384, 8), (4096, 64), (8192, 64)]
QUEUES = [(64, 64, 200_000, 'float32'), (64, 64, 200_000, 'float16')]


@pytest.fixture(scope='module')
def peaks():
    """Peaks of all cases in bytes."""
    cases = [(name, *size) for name in ('cmc', 'within') for size in BATCHES]
    cases += [
        (name, *size) for name in ('cmc', 'within', 'cross') for size in QUEUES
    ]
    run = run_command(
        [sys.executable, '-c', f'CASES = {cases!r}\n{MEASURE}'],
        # What is freed goes back at once, and is counted when taken again.
        MALLOC_MMAP_THRESHOLD_='65536',
        MALLOC_TRIM_THRESHOLD_='65536',
    )
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout.splitlines()[-1])
    return dict(zip(cases, found, strict=True))


@pytest.mark.parametrize('name', ['cmc', 'within'])
def test_the_batch_may_grow(name, peaks):
    """Rows are narrow, so that a matrix (B, B) could not hide behind them."""
    small, large, *wide = (peaks[(name, *size)] for size in BATCHES)
    assert large <= 1.5 * small
    # A matrix of single precision would be 1024 MiB.
    assert large < 96 * MIB
    # Wider rows are linear in B: a dozen matrices like the student's, 1 MiB
    # each, where a (B, B) one would add 192 MiB.
    assert wide[1] - wide[0] < 16 * MIB


@pytest.mark.parametrize('name', ['cmc', 'within', 'cross'])
@pytest.mark.parametrize('size', QUEUES)
def test_the_queue_may_grow(name, size, peaks):
    """Scores, a matrix (64, 200,000) of single precision, would be 49 MiB."""
    assert peaks[(name, *size)] < 24 * MIB
