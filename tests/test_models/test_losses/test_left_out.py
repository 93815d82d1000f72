"""Blocks and excluded pairs: which candidates are left out, by loops."""

import pytest
import torch
from torch.nn.functional import normalize

from mmcmcd.models.losses import (
    CMCDLoss,
    CMCLoss,
    CMDLoss,
    CRDLoss,
    FeatureL2Loss,
    Memory,
    functional,
    tiled,
)
from mmcmcd.models.losses.candidates import Candidates, Keep, TileMask

# Images of 3, 1, 4 and 2 locations, of which two are of one group.
BLOCKS = [0, 0, 0, 1, 2, 2, 2, 2, 3, 3]
GROUPS = [5, 5, 5, 6, 5, 5, 5, 5, 7, 7]
NUM = len(BLOCKS)
# Neighbours within an image, in both orders; a pair with itself is none.
EXCLUDED = [(0, 1), (1, 0), (7, 5), (5, 7), (8, 9), (9, 8), (4, 4)]
CASES = dict(
    excluded=dict(excluded=EXCLUDED),
    blocks=dict(group_ids=GROUPS, block_ids=BLOCKS),
    blocks_excluded=dict(
        group_ids=GROUPS, block_ids=BLOCKS, excluded=EXCLUDED
    ),
    within=dict(group_ids=GROUPS, block_ids=BLOCKS, within_blocks=True),
    within_excluded=dict(
        block_ids=BLOCKS, within_blocks=True, excluded=EXCLUDED
    ),
    within_mixed=dict(
        block_ids=[3, 1, 3, 0, 2, 1, 2, 2, 0, 3], within_blocks=True
    ),
    groups_excluded=dict(group_ids=BLOCKS[::-1], excluded=[(0, 9), (9, 0)]),
)
TILES = [(1, 1), (3, 4), (NUM, NUM), (NUM + 4, NUM + 30)]


def rows(seed, count=NUM, dim=4):
    gen = torch.Generator().manual_seed(seed)
    return torch.randn(count, dim, generator=gen, dtype=torch.float64)


def kept(
    i,
    j,
    group_ids=None,
    block_ids=None,
    within_blocks=False,
    excluded=(),
    memory_group=None,
):
    """Whether anchor i is compared with row j, by the words of the rules."""
    if memory_group is not None:
        same = group_ids is not None and group_ids[i] == memory_group
        return not within_blocks and not same
    if i == j:
        return True
    if (i, j) in excluded:
        return False
    same_block = block_ids is not None and block_ids[i] == block_ids[j]
    if within_blocks:
        return same_block
    same_group = group_ids is not None and group_ids[i] == group_ids[j]
    return same_block or not same_group


def cross_entropy(student, teacher, case, form, include_self, memory=None):
    """CMD of temperatures 0.1 and 0.2, anchor by anchor."""
    losses = []
    for i in range(NUM):
        own = [
            j
            for j in range(NUM)
            if kept(i, j, **case) and (include_self or i != j)
        ]
        t, s = teacher[own], (student if form == 'within' else teacher)[own]
        if memory is not None:
            others = [
                k
                for k, group in enumerate(memory.group_ids.tolist())
                if kept(i, None, **case, memory_group=group)
            ]
            side = memory.student if form == 'within' else memory.teacher
            t, s = (
                torch.cat([t, memory.teacher[others]]),
                torch.cat([s, side[others]]),
            )
        p = (t @ teacher[i] / 0.1).softmax(0)
        log_q = (s @ student[i] / 0.2).log_softmax(0)
        losses.append(-(p * log_q).sum())
    return torch.stack(losses).mean()


def contrast(student, teacher, case, symmetric=True):
    """CMC of temperature 0.1, anchor by anchor."""
    losses = []
    for i in range(NUM):
        own = [j for j in range(NUM) if kept(i, j, **case)]
        at = own.index(i)
        scores = teacher[own] @ student[i] / 0.1
        loss = -scores.log_softmax(0)[at]
        if symmetric:
            scores = student[own] @ teacher[i] / 0.1
            loss = (loss - scores.log_softmax(0)[at]) / 2
        losses.append(loss)
    return torch.stack(losses).mean()


def noise_contrast(student, teacher, case):
    """CRD of temperature 0.1 in its first batch, anchor by anchor."""
    scores = student @ teacher.T / 0.1
    pairs = [
        (i, j) for i in range(NUM) for j in range(NUM) if kept(i, j, **case)
    ]
    mean = torch.stack([scores[pair].exp() for pair in pairs]).mean().detach()
    total = 0
    for i in range(NUM):
        others = [j for a, j in pairs if a == i and j != i]
        # Without negatives nothing is told from noise.
        number = torch.tensor(max(len(others), 1e-300), dtype=torch.double)
        bias = number.log() + mean.log()
        for line in (scores[i], scores[:, i]):
            total = total + torch.nn.functional.softplus(bias - line[i])
            for j in others:
                total = total + torch.nn.functional.softplus(line[j] - bias)
    return total / NUM


def as_tensors(case):
    return {
        key: value if key == 'within_blocks' else torch.tensor(value)
        for key, value in case.items()
    }


LOSSES = dict(
    within=(
        lambda: CMDLoss('within'),
        lambda s, t, c: cross_entropy(s, t, c, 'within', False),
    ),
    within_self=(
        lambda: CMDLoss('within', include_self=True),
        lambda s, t, c: cross_entropy(s, t, c, 'within', True),
    ),
    cross=(
        lambda: CMDLoss('cross'),
        lambda s, t, c: cross_entropy(s, t, c, 'cross', True),
    ),
    two_way=(lambda: CMCLoss(temperature=0.1), contrast),
    one_way=(
        lambda: CMCLoss(temperature=0.1, symmetric=False),
        lambda s, t, c: contrast(s, t, c, symmetric=False),
    ),
    crd=(lambda: CRDLoss(temperature=0.1), noise_contrast),
)


@pytest.mark.parametrize('plain', [True, False])
@pytest.mark.parametrize('case', CASES)
@pytest.mark.parametrize('name', LOSSES)
def test_losses_equal_loops(name, case, plain, monkeypatch):
    if not plain:
        monkeypatch.setattr(functional, '_PLAIN_UP_TO', 0)
    build, naive = LOSSES[name]
    student, teacher = rows(0).requires_grad_(), rows(1)
    value = build()(student, teacher, **as_tensors(CASES[case]))
    (gradient,) = torch.autograd.grad(value, student)
    expected = naive(normalize(student), normalize(teacher), CASES[case])
    (by_loops,) = torch.autograd.grad(expected, student)
    torch.testing.assert_close(value, expected, rtol=0, atol=1e-10)
    torch.testing.assert_close(gradient, by_loops, rtol=0, atol=1e-9)


@pytest.mark.parametrize('plain', [True, False])
@pytest.mark.parametrize('case', CASES)
def test_memory_is_of_other_blocks(case, plain, monkeypatch):
    if not plain:
        monkeypatch.setattr(functional, '_PLAIN_UP_TO', 0)
    memory = Memory(
        normalize(rows(2, 6)), normalize(rows(3, 6)), torch.arange(4, 10)
    )
    student, teacher = rows(0), rows(1)
    case = CASES[case]
    for form in ('within', 'cross'):
        value = CMDLoss(form, include_self=True)(
            student, teacher, memory, **as_tensors(case)
        )
        expected = cross_entropy(
            normalize(student), normalize(teacher), case, form, True, memory
        )
        torch.testing.assert_close(value, expected, rtol=0, atol=1e-10)


def part(case, own):
    """The Keep of some anchors of the batch."""
    case = as_tensors(case)
    blocks, groups = case.get('block_ids'), case.get('group_ids')
    excluded = case.get('excluded')
    if excluded is not None:
        excluded = torch.stack(
            [
                pair - torch.tensor([own.start, 0])
                for pair in excluded
                if own.start <= pair[0] < own.stop
            ]
        )
    return Keep(
        start=own.start,
        groups=None if groups is None else groups[own],
        batch_groups=groups,
        blocks=None if blocks is None else blocks[own],
        batch_blocks=blocks,
        within_blocks=case.get('within_blocks', False),
        excluded=excluded,
    )


@pytest.mark.parametrize('tile', TILES)
@pytest.mark.parametrize('case', CASES)
@pytest.mark.parametrize('include_self', [False, True])
@pytest.mark.parametrize('own', [slice(0, NUM), slice(1, 6), slice(3, NUM)])
def test_any_tile_and_part_of_the_batch(own, include_self, case, tile):
    case = CASES[case]
    if 'excluded' in case and case['excluded'] != EXCLUDED and own.start:
        case = dict(case, excluded=[(5, 4), (4, 5)])
    keep = part(case, own)._replace(include_self=include_self)
    if 'group_ids' in case and 'within_blocks' in case:
        keep = keep._replace(groups=None, batch_groups=None)
    students = normalize(rows(0)).requires_grad_()
    teachers = Candidates(normalize(rows(1)))
    arguments = (
        (students[own], Candidates(students), teachers.batch[own], teachers),
        (0.02, 0.1, keep),
    )
    arguments = [*arguments[0], *arguments[1]]
    value = tiled.soft_cross_entropy(*arguments, tile=tile)
    expected = functional.plain_soft_cross_entropy(*arguments)
    check_equal(value, expected, students)
    keep = keep._replace(include_self=True)
    for temperature in (0.01, 0.1):
        arguments = (students[own], teachers, temperature, keep)
        value = tiled.info_nce(*arguments, tile=tile)
        expected = functional.plain_info_nce(*arguments)
        check_equal(value, expected, students)
    offsets = rows(4, 2, NUM)
    arguments = (students[own], teachers, None, 0.1, offsets, keep)
    value = tiled.nce(*arguments, tile=tile)
    check_equal(value, functional.plain_nce(*arguments), students)


def check_equal(value, expected, inputs):
    ours, theirs = (
        torch.autograd.grad(v, inputs)[0] for v in (value, expected)
    )
    torch.testing.assert_close(value, expected, rtol=0, atol=1e-10)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9)


def test_only_groups_of_several_blocks_are_looked_for():
    """Locations of an image all share a group: no reason to look at them."""
    blocks = torch.arange(50).repeat_interleave(4)
    groups = blocks.clone()
    keep = Keep(
        groups=groups,
        batch_groups=groups,
        blocks=blocks,
        batch_blocks=blocks,
    )
    assert TileMask(keep)._suspects['batch'].tolist() == []
    groups[blocks == 7] = 30
    found = TileMask(keep)._suspects['batch'].tolist()
    assert found == [28, 29, 30, 31, 120, 121, 122, 123]


@pytest.mark.parametrize('plain', [True, False])
def test_many_rows_of_which_few_share_a_group(plain, monkeypatch):
    """The short cut for few suspects hides what the rule hides."""
    if not plain:
        monkeypatch.setattr(functional, '_PLAIN_UP_TO', 0)
    blocks = torch.arange(50).repeat_interleave(3)
    groups = blocks.clone()
    groups[blocks == 7] = 30
    case = dict(group_ids=groups.tolist(), block_ids=blocks.tolist())
    monkeypatch.setitem(globals(), 'NUM', len(blocks))
    student, teacher = rows(0, len(blocks)), rows(1, len(blocks))
    value = CMCLoss(temperature=0.1)(student, teacher, **as_tensors(case))
    expected = contrast(normalize(student), normalize(teacher), case)
    torch.testing.assert_close(value, expected, rtol=0, atol=1e-10)


def test_composites_and_regression_take_them():
    case = as_tensors(CASES['blocks_excluded'])
    student, teacher = rows(0), rows(1)
    both = CMCDLoss(cmd=dict(), cmc=dict())(student, teacher, **case)
    assert both['loss_cmd'] == CMDLoss()(student, teacher, **case)
    assert both['loss_cmc'] == CMCLoss()(student, teacher, **case)
    alone = FeatureL2Loss()(student, teacher, **case)
    assert alone == FeatureL2Loss()(student, teacher)


@pytest.mark.parametrize('plain', [True, False])
def test_anchors_without_candidates_count_as_zero(plain, monkeypatch):
    if not plain:
        monkeypatch.setattr(functional, '_PLAIN_UP_TO', 0)
    student, teacher = rows(0, 4).requires_grad_(), rows(1, 4)
    blocks = torch.tensor([0, 1, 2, 2])
    value = CMDLoss('within')(
        student, teacher, block_ids=blocks, within_blocks=True
    )
    value.backward()
    # Those of two rows have one candidate each, of which all are sure.
    assert value.abs() < 1e-12 and student.grad.abs().max() < 1e-12
