"""The tiled formulas against the plain ones, which others hold to loops."""

import importlib
import math
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import normalize

from mmcmcd.models.losses import (
    CMCDLoss,
    CMCLoss,
    CMDLoss,
    Memory,
    functional,
    tiled,
)
from mmcmcd.models.losses.candidates import Candidates, Keep, TileMask
from mmcmcd.models.losses.tiled import tiles
from mmcmcd.models.losses.tiled.softmax import SAFE_SCALE, needs_peak
from mmcmcd.models.memory import FeatureQueue

VALUE, GRADIENT = 1e-10, 1e-9
FORMS = ('within', 'cross', 'one_way', 'two_way')
NUM = 9
TILES = [(1, 1), (7, 5), (NUM, NUM), (NUM + 4, NUM + 30)]
# Scales on both sides of the one from which on a maximum is subtracted.
EDGE = 1 / SAFE_SCALE
TEMPERATURES = [0.005, 0.02, EDGE / 1.01, EDGE, EDGE * 1.01, 0.1, 1.0, 10.0]


def unit(count, dim=5, seed=0, dtype=torch.float64):
    gen = torch.Generator().manual_seed(seed)
    return normalize(torch.randn(count, dim, generator=gen, dtype=dtype))


class Problem(NamedTuple):
    """Anchors ``start`` to ``start + num`` of a batch, and a memory."""

    students: Tensor
    teachers: Tensor
    memory: tuple[Tensor, Tensor] | tuple[None, None]
    keep: Keep
    num: int

    def value(self, form, tile=None, temperatures=(0.1, 0.2), **kwargs):
        """The loss of a form; by the plain formulas without a tile."""
        own = slice(self.keep.start, self.keep.start + self.num)
        students = Candidates(self.students, self.memory[0])
        teachers = Candidates(self.teachers, self.memory[1])
        module, prefix = functional, 'plain_'
        if tile is not None:
            module, prefix, kwargs = tiled, '', dict(kwargs, tile=tile)
        if form in ('within', 'cross'):
            return getattr(module, f'{prefix}soft_cross_entropy')(
                self.students[own],
                students if form == 'within' else teachers,
                self.teachers[own],
                teachers,
                *temperatures,
                self.keep,
                **kwargs,
            )
        return getattr(module, f'{prefix}info_nce')(
            self.students[own],
            teachers,
            temperatures[0],
            self.keep._replace(include_self=True),
            form == 'two_way',
            **kwargs,
        )

    def solve(self, form, *args, **kwargs):
        """The loss and its gradient for all students."""
        value = self.value(form, *args, **kwargs)
        return value.detach(), torch.autograd.grad(value, self.students)[0]


def make_problem(
    num=NUM,
    memory=0,
    start=0,
    after=0,
    groups=None,
    include_self=False,
    dtype=torch.float64,
    seed=0,
):
    """A problem; ``groups`` are of the batch and the memory, in one."""
    batch = start + num + after
    keep = Keep(include_self, start)
    if groups is not None:
        groups = torch.as_tensor(groups)
        keep = keep._replace(
            groups=groups[start : start + num],
            batch_groups=groups[:batch],
            memory_groups=groups[batch:] if memory else None,
        )
    bank = (None, None)
    if memory:
        bank = tuple(unit(memory, seed=seed + i, dtype=dtype) for i in (3, 4))
    return Problem(
        unit(batch, seed=seed + 1, dtype=dtype).requires_grad_(),
        unit(batch, seed=seed + 2, dtype=dtype),
        bank,
        keep,
        num,
    )


def check_equal(problem, form, tile, temperatures=(0.1, 0.2)):
    value, gradient = problem.solve(form, tile, temperatures)
    expected, by_plain = problem.solve(form, None, temperatures)
    torch.testing.assert_close(value, expected, rtol=0, atol=VALUE)
    torch.testing.assert_close(gradient, by_plain, rtol=0, atol=GRADIENT)


@pytest.mark.parametrize('form', FORMS)
@pytest.mark.parametrize('tile', TILES)
@pytest.mark.parametrize('memory', [0, 1, 2, 13, NUM - 1])
def test_any_tile_and_memory(form, tile, memory):
    for include_self in (False, True):
        problem = make_problem(memory=memory, include_self=include_self)
        for temperatures in ((0.1, 0.2), (0.02, 0.01), (0.01, 0.5)):
            check_equal(problem, form, tile, temperatures)


@pytest.mark.parametrize('form', FORMS)
@pytest.mark.parametrize('memory', [1, 13])
def test_one_anchor_with_a_memory(form, memory):
    problem = make_problem(num=1, memory=memory)
    for tile in TILES:
        check_equal(problem, form, tile)
        check_equal(problem, form, tile, (0.01, 0.01))


@pytest.mark.parametrize('form', FORMS)
@pytest.mark.parametrize('start,after', [(3, 0), (0, 4), (3, 4)])
@pytest.mark.parametrize('tile', TILES)
def test_a_batch_of_more_rows_than_anchors(form, start, after, tile):
    """What is left out moves with the anchors' place in the batch."""
    for groups in (None, torch.arange(NUM + start + after + 5) % 4):
        for memory in (0, 5):
            problem = make_problem(NUM, memory, start, after, groups)
            check_equal(problem, form, tile)
            check_equal(problem, form, tile, (0.02, 0.01))


@settings(max_examples=150, deadline=None, derandomize=True)
@given(data=st.data())
def test_random_problems(data):
    draw = data.draw
    form = draw(st.sampled_from(FORMS))
    # Without collectives the other direction sees the anchors alone.
    more = st.just(0) if form == 'two_way' else st.integers(0, 6)
    num, memory = draw(st.integers(1, 12)), draw(st.integers(0, 12))
    start, after = draw(more), draw(more)
    total = start + num + after + memory
    groups = draw(
        st.none() | st.lists(st.integers(0, 5), min_size=total, max_size=total)
    )
    temperature = st.sampled_from(TEMPERATURES)
    check_equal(
        make_problem(
            num,
            memory,
            start,
            after,
            groups,
            include_self=draw(st.booleans()),
            seed=draw(st.integers(0, 1000)),
        ),
        form,
        tile=(draw(st.integers(1, 15)), draw(st.integers(1, 30))),
        temperatures=(draw(temperature), draw(temperature)),
    )


@pytest.mark.parametrize('form', FORMS)
@pytest.mark.parametrize('tile', [(7, 20), (64, 64)])
@pytest.mark.parametrize(
    'shared,looked_for',
    [(2, {'batch', 'memory'}), (20, set())],
    ids=['few', 'many'],
)
def test_few_and_many_shared_groups(form, tile, shared, looked_for):
    """Few candidates to hide are looked for, many take the whole mask."""
    groups = torch.arange(40 + 50)
    groups[10 : 10 + shared] = 10  # in the batch
    groups[45 : 45 + shared] = torch.arange(shared)  # in the memory, of it
    problem = make_problem(40, 50, groups=groups)
    assert set(TileMask(problem.keep)._suspects) == looked_for
    check_equal(problem, form, tile)
    check_equal(problem, form, tile, (0.02, 0.01))
    # A group does change the result.
    unmasked = problem._replace(keep=Keep(problem.keep.include_self))
    assert abs(problem.value(form) - unmasked.value(form)) > 1e-6


@pytest.mark.parametrize('form', FORMS)
@pytest.mark.parametrize('memory', [0, 6])
@pytest.mark.parametrize('temperature', [0.01, 0.1])
def test_all_candidates_hidden(form, memory, temperature):
    groups = torch.zeros(NUM + memory)
    problem = make_problem(memory=memory, groups=groups)
    for tile in (None, *TILES):
        value, gradient = problem.solve(form, tile, (temperature,) * 2)
        assert value.abs() < VALUE
        assert gradient.abs().max() < GRADIENT


@pytest.mark.parametrize('temperature', TEMPERATURES)
@pytest.mark.parametrize('form', FORMS)
def test_zero_rows_and_duplicates(form, temperature):
    problem = make_problem(memory=6)
    students, teachers = problem.students.detach(), problem.teachers
    students[0] = teachers[1] = 0
    students[3], teachers[3] = students[2], teachers[2]
    for rows in problem.memory:
        rows[0], rows[1] = 0, teachers[2]
    problem = problem._replace(students=students.requires_grad_())
    for tile in TILES:
        check_equal(problem, form, tile, (temperature, temperature))
    value, gradient = problem.solve(form, TILES[1], (temperature,) * 2)
    assert value.isfinite() and gradient.isfinite().all()
    if form == 'two_way':  # Anchors with equal rows are treated alike.
        torch.testing.assert_close(gradient[3], gradient[2])


@pytest.mark.parametrize('form', FORMS)
def test_order_plays_no_part(form):
    groups = torch.arange(NUM + 12) % 7
    problem = make_problem(memory=12, groups=groups)
    gen = torch.Generator().manual_seed(0)
    order, others = (torch.randperm(n, generator=gen) for n in (NUM, 12))
    keep = problem.keep
    shuffled = Problem(
        problem.students.detach()[order].requires_grad_(),
        problem.teachers[order],
        tuple(rows[others] for rows in problem.memory),
        keep._replace(
            groups=keep.groups[order],
            batch_groups=keep.batch_groups[order],
            memory_groups=keep.memory_groups[others],
        ),
        problem.num,
    )
    for temperatures in ((0.1, 0.2), (0.02, 0.01)):
        value, gradient = problem.solve(form, (4, 5), temperatures)
        other, permuted = shuffled.solve(form, (4, 5), temperatures)
        torch.testing.assert_close(value, other, rtol=0, atol=VALUE)
        torch.testing.assert_close(
            gradient[order], permuted, rtol=0, atol=GRADIENT
        )


@pytest.mark.parametrize('form', FORMS)
@pytest.mark.parametrize('temperatures', [(0.5, 0.3), (0.02, 0.02)])
def test_gradcheck(form, temperatures):
    problem = make_problem(5, 3, groups=[0, 1, 1, 2, 3, 3, 4, 0])

    def loss(students):
        moved = problem._replace(students=students)
        return moved.value(form, (2, 3), temperatures)

    assert torch.autograd.gradcheck(loss, problem.students)


@pytest.mark.parametrize('form', ['one_way', 'two_way'])
@pytest.mark.parametrize('temperature', [0.01, 0.1])
def test_the_trained_temperature_has_the_plain_gradient(form, temperature):
    problem = make_problem(memory=6, groups=torch.arange(NUM + 6) % 8)
    trained = torch.tensor(temperature, dtype=torch.float64).requires_grad_()
    solutions = []
    for tile in (None, (4, 5)):
        value = problem.value(form, tile, (trained, None))
        both = torch.autograd.grad(value, (problem.students, trained))
        solutions.append((value.detach(), *both))
    torch.testing.assert_close(*solutions, rtol=1e-9, atol=GRADIENT)
    assert torch.autograd.gradcheck(
        lambda scale: problem.value(form, (4, 5), (1 / scale, None)),
        torch.tensor(20.0, dtype=torch.float64).requires_grad_(),
    )
    # It takes a gradient alone, too, and none where nothing is trained.
    frozen = problem._replace(students=problem.students.detach())
    alone = frozen.value(form, (4, 5), (trained, None))
    torch.testing.assert_close(
        torch.autograd.grad(alone, trained)[0], solutions[0][2]
    )
    assert not frozen.value(form, (4, 5)).requires_grad


@pytest.mark.parametrize('form', FORMS)
@pytest.mark.parametrize('tile', [None, (4, 5)], ids=['plain', 'tiled'])
def test_what_comes_from_upstream_is_a_factor(form, tile):
    problem = make_problem(memory=6)
    _, gradient = problem.solve(form, tile)
    for factor in (4.0, 0.125, -1.0, 0.0):
        # A power of two rounds nothing.
        scaled = factor * problem.value(form, tile)
        (by_factor,) = torch.autograd.grad(scaled, problem.students)
        assert torch.equal(by_factor, factor * gradient)
        (by_output,) = torch.autograd.grad(
            problem.value(form, tile),
            problem.students,
            torch.tensor(factor, dtype=torch.float64),
        )
        assert torch.equal(by_output, factor * gradient)


@pytest.mark.parametrize('form', FORMS)
def test_two_backward_passes_through_one_graph_are_equal(form):
    problem = make_problem(memory=6)
    value = problem.value(form, (4, 5))
    first, second = (
        torch.autograd.grad(value, problem.students, retain_graph=True)[0]
        for _ in range(2)
    )
    assert torch.equal(first, second)


@pytest.mark.parametrize('form', FORMS)
@pytest.mark.parametrize('temperatures', [(0.1, 0.2), (0.01, 0.01)])
def test_single_precision(form, temperatures):
    """Values and gradients are right to 1e-5 of their size."""
    groups = torch.arange(300 + 400) % 500
    problem = make_problem(300, 400, groups=groups, dtype=torch.float32)
    check_single_precision(problem, form, (64, 100), temperatures)


def check_single_precision(single, form, tile, temperatures, bound=1e-5):
    double = single._replace(
        students=single.students.detach().double().requires_grad_(),
        teachers=single.teachers.double(),
        memory=tuple(rows.double() for rows in single.memory),
    )
    value, gradient = single.solve(form, tile, temperatures)
    expected, by_plain = double.solve(form, None, temperatures)
    assert value.dtype == gradient.dtype == torch.float32
    torch.testing.assert_close(value.double(), expected, rtol=1e-5, atol=bound)
    error = (gradient.double() - by_plain).abs().max()
    assert error < bound * by_plain.abs().max()


def test_exponentials_of_safe_scores_can_be_summed():
    assert math.exp(SAFE_SCALE) * 1e20 < torch.finfo(torch.float32).max
    assert math.exp(-SAFE_SCALE) > torch.finfo(torch.float32).tiny
    assert not needs_peak(SAFE_SCALE) and needs_peak(1.01 * SAFE_SCALE)
    # Whatever its value, which is not looked at.
    assert needs_peak(torch.tensor(1.0))


@pytest.mark.parametrize('form', FORMS)
@pytest.mark.parametrize('sign', [1, -1], ids=['equal', 'antipodal'])
@pytest.mark.parametrize('temperature', [EDGE, 0.005])
def test_extreme_scores_in_single_precision(form, sign, temperature):
    """All scores are large, or all negative: at least 0.6 of the scale.

    Their exponentials at 0.005 are normal in double precision alone.  Scores
    are right to eps of the scale, and so are weights.
    """
    problem = make_problem(40, 50, dtype=torch.float32)
    pole = unit(1, dtype=torch.float32)

    def near(rows, sign):
        return normalize(sign * pole + rows.detach() / 2)

    # Within, scores of students are with those of the memory alone.
    within = form == 'within'
    problem = problem._replace(
        students=near(problem.students, 1).requires_grad_(),
        teachers=near(problem.teachers, 1 if within else sign),
        memory=tuple(near(rows, sign) for rows in problem.memory),
        keep=group_of_all(problem.keep) if within else problem.keep,
    )
    bound = 4 * torch.finfo(torch.float32).eps / temperature
    check_single_precision(problem, form, (16, 20), (temperature,) * 2, bound)


def group_of_all(keep):
    """What leaves an anchor nothing but the memory."""
    batch, memory = torch.zeros(40), torch.ones(50)
    return keep._replace(
        groups=batch, batch_groups=batch, memory_groups=memory
    )


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_exponentials_that_are_not_normal_are_zero(dtype):
    lowest = math.log(torch.finfo(dtype).tiny)
    scores = torch.tensor(
        [0, -1, 0.999 * lowest, 1.001 * lowest, 2 * lowest, -torch.inf],
        dtype=dtype,
    )
    # That of the fourth is denormal.
    assert scores.exp().count_nonzero() == 4
    expected = scores.exp() * torch.tensor([1, 1, 1, 0, 0, 0])
    assert torch.equal(tiles.exp_(scores), expected)


@pytest.mark.parametrize(
    'num,candidates,tile',
    [
        (20_000, 50_000, (8192, 8192)),
        (20_000, 3000, (8192, 3000)),
        (16, 10**7, (16, 2**22)),
        (16, 3000, (16, 3000)),
    ],
)
def test_tiles_of_a_gpu_are_filled_whatever_the_number_of_anchors(
    num, candidates, tile
):
    anchors = torch.empty(num, 8, device='meta')
    assert tiles.choose_tile(anchors, candidates) == tile


@pytest.mark.parametrize('form', FORMS)
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
@pytest.mark.parametrize('temperatures', [(0.1, 0.2), (0.01, 0.01)])
def test_a_memory_in_half_precision_is_its_rounded_rows(
    form, dtype, temperatures
):
    problem = make_problem(NUM, 40, dtype=torch.float32)
    half = tuple(rows.to(dtype) for rows in problem.memory)
    rounded = problem._replace(memory=tuple(rows.float() for rows in half))
    problem = problem._replace(memory=half)
    expected = rounded.solve(form, None, temperatures)
    for tile in (None, (4, 7), (64, 64)):
        for ours, reference in zip(
            problem.solve(form, tile, temperatures), expected, strict=True
        ):
            largest = reference.abs().max().item()
            torch.testing.assert_close(
                ours, reference, rtol=1e-5, atol=2e-5 * max(largest, 1)
            )


class Group:
    """Threads that stand for processes."""

    def __init__(self, size):
        self.size = size
        self._barrier = threading.Barrier(size, timeout=20)
        self._parts = [None] * size

    def run(self, function):
        """``function(rank, all_reduce)`` of every rank."""
        with ThreadPoolExecutor(self.size) as pool:
            calls = [
                pool.submit(function, rank, self._all_reduce(rank))
                for rank in range(self.size)
            ]
            return [call.result() for call in calls]

    def _all_reduce(self, rank):
        def all_reduce(tensor, op):
            self._parts[rank] = tensor.clone()
            self._barrier.wait()
            parts = torch.stack(self._parts)
            self._barrier.wait()
            return parts.sum(0) if op == 'sum' else parts.amax(0)

        return all_reduce


@pytest.mark.parametrize('sizes', [(12,), (5, 7), (5, 4, 3), (1, 10, 1)])
@pytest.mark.parametrize('temperature', [0.01, 0.1])
@pytest.mark.parametrize('memory', [0, 5])
def test_the_parts_of_a_batch_make_up_the_whole(sizes, temperature, memory):
    groups = torch.arange(12 + memory) % 9
    whole = make_problem(12, memory, groups=groups)
    trained = torch.tensor(temperature, dtype=torch.float64).requires_grad_()
    inputs = (whole.students, trained)
    value = whole.value('two_way', None, (trained, None))
    expected = (value, *torch.autograd.grad(value, inputs))

    def part(rank, all_reduce):
        start, num = sum(sizes[:rank]), sizes[rank]
        keep = whole.keep._replace(
            start=start, groups=groups[start : start + num]
        )
        own = whole._replace(keep=keep, num=num)
        value = own.value(
            'two_way', (3, 4), (trained, None), all_reduce=all_reduce
        )
        return value, *torch.autograd.grad(value, inputs)

    parts = Group(len(sizes)).run(part)
    for i, tolerance in enumerate((VALUE, GRADIENT, 1e-8)):
        total = sum(
            result[i] * size / 12
            for result, size in zip(parts, sizes, strict=True)
        )
        torch.testing.assert_close(total, expected[i], rtol=0, atol=tolerance)


LOSSES = dict(
    within=CMDLoss('within'),
    cross=CMDLoss('cross'),
    one_way=CMCLoss(symmetric=False),
    two_way=CMCLoss(),
    sharp=CMCLoss(0.01),
    trained=CMCLoss(0.05, learnable_temperature=True),
    both=CMCDLoss(cmd=dict(form='cross'), cmc=dict()),
)


@pytest.fixture(params=['plain', 'tiled'])
def way(request, monkeypatch):
    """The losses take either way, whatever the size of the problem."""
    most = 0 if request.param == 'tiled' else 2**40
    monkeypatch.setattr(functional, '_PLAIN_UP_TO', most)
    return request.param


def solve(name, student, teacher, memory=None, groups=None):
    student = student.detach().requires_grad_()
    value = LOSSES[name](student, teacher, memory, groups)
    if isinstance(value, dict):
        value = sum(value.values())
    return value.detach(), torch.autograd.grad(value, student)[0]


def raw(count, dim=32, seed=0):
    return 3 * unit(count, dim, seed, torch.float32)


@pytest.mark.parametrize('name', LOSSES)
def test_the_tiles_in_use_equal_the_plain_formulas(name, monkeypatch):
    """More rows than a tile has, and the switch between the two ways."""
    student, teacher = raw(700, 16), raw(700, 16, 1)
    groups = torch.arange(700) // 2
    memory = Memory(
        normalize(raw(3000, 16, 2)),
        normalize(raw(3000, 16, 3)).half(),
        torch.arange(3000),
    )
    value, gradient = solve(name, student, teacher, memory, groups)
    for function in ('info_nce', 'soft_cross_entropy'):
        monkeypatch.delattr(tiled, function)
    with pytest.raises(AttributeError):
        solve(name, student, teacher, memory, groups)
    monkeypatch.setattr(functional, '_PLAIN_UP_TO', 2**40)
    expected, by_plain = solve(name, student, teacher, memory, groups)
    torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-5)
    error = (gradient - by_plain).abs().max()
    assert error < 2e-5 * by_plain.abs().max()


@pytest.mark.parametrize('name', ['within', 'cross', 'one_way', 'two_way'])
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_rows(name, dtype, way):
    """Rounded rows turn by at most half of eps, each of their cosines by eps.

    A log-sum-exp and a score then move by eps / temperature at most, and the
    teacher's probabilities by 2 eps / temperature in all, which the largest
    score multiplies.  Gradients are within eps / temperature of their size.
    """
    student, teacher = raw(64), raw(64, seed=1)
    value, gradient = solve(name, student, teacher)
    half, by_half = solve(name, student.to(dtype), teacher.to(dtype))
    eps = torch.finfo(dtype).eps
    bound = 2 * eps / 0.07
    if name in ('within', 'cross'):
        bound = 2 * eps / 0.2 + 2 * eps / 0.1 / 0.2
    assert half.dtype == torch.float32 and by_half.dtype == dtype
    assert 0 < abs(half - value) < bound
    error = (by_half.float() - gradient).norm() / gradient.norm()
    assert error < eps / 0.07


@pytest.mark.parametrize('name', LOSSES)
def test_a_second_derivative_is_refused_by_tiles(name, monkeypatch):
    """A part of it alone, that of the normalisation, would be wrong."""
    monkeypatch.setattr(functional, '_PLAIN_UP_TO', 0)
    student = raw(8, 4).requires_grad_()
    value = LOSSES[name](student, raw(8, 4, 1))
    value = sum(value.values()) if isinstance(value, dict) else value
    with pytest.raises(RuntimeError, match='twice'):
        (gradient,) = torch.autograd.grad(value, student, create_graph=True)
        torch.autograd.grad(gradient.pow(2).sum(), student)


@pytest.mark.parametrize('name', LOSSES)
def test_evaluation_has_the_value_of_training(name, way, monkeypatch):
    """By tiles without the pass over them that only a gradient needs."""
    memory = Memory(*(normalize(raw(20, 8, i)) for i in (2, 3)), None)
    rows = raw(20, 8).requires_grad_(), raw(20, 8, 1), memory
    training, _ = solve(name, *rows)
    # The function hides the module that it is in.
    module = importlib.import_module(f'{tiled.__name__}.info_nce')
    monkeypatch.delattr(module, '_pull')
    with torch.no_grad():
        value = LOSSES[name](*rows)
    value = sum(value.values()) if isinstance(value, dict) else value
    assert torch.equal(value, training) and not value.requires_grad


@pytest.mark.parametrize('name', LOSSES)
def test_neither_teacher_nor_memory_takes_a_gradient(name, way):
    queue = FeatureQueue(40, 8, 8)
    student, teacher = raw(20, 8).requires_grad_(), raw(20, 8, 1)
    teacher.requires_grad_()
    ids = torch.arange(20)
    queue.enqueue(student, teacher, ids)
    value = LOSSES[name](student, teacher, queue.view(), ids + 10)
    value = sum(value.values()) if isinstance(value, dict) else value
    value.backward()
    assert student.grad is not None and teacher.grad is None
    for rows in (queue.student, queue.teacher):
        assert rows.grad is None and not rows.requires_grad


@pytest.mark.parametrize('name', LOSSES)
def test_the_queue_may_move_on_before_the_backward_pass(name, way):
    def gradient(moves):
        queue = FeatureQueue(30, 8, 8)
        for seed in range(4):
            ids = torch.arange(10 * seed, 10 * seed + 10)
            queue.enqueue(raw(10, 8, seed), raw(10, 8, seed + 9), ids)
        student = raw(10, 8, 20).requires_grad_()
        value = LOSSES[name](student, raw(10, 8, 21), queue.view(), ids)
        value = sum(value.values()) if isinstance(value, dict) else value
        before = queue.teacher.clone()
        for seed in range(30, 30 + moves):
            queue.enqueue(raw(10, 8, seed), raw(10, 8, seed + 9), ids)
            queue.view()
        assert torch.equal(before, queue.teacher) == (moves == 0)
        return torch.autograd.grad(value, student)[0]

    still = gradient(0)
    for moves in (1, 5):
        assert torch.equal(gradient(moves), still)


@pytest.mark.parametrize('name', ['within', 'two_way'])
def test_compiled_losses_equal_eager_ones(name, way):
    torch.compiler.reset()
    student, teacher = raw(12, 8), raw(12, 8, 1)
    ids = torch.arange(12) // 2
    memory = Memory(
        normalize(raw(20, 8, 2)), normalize(raw(20, 8, 3)), torch.arange(20)
    )
    # Tiles are left to eager: a break in the graph.
    compiled = torch.compile(
        LOSSES[name], backend='aot_eager', fullgraph=way == 'plain'
    )
    rows = student.clone().requires_grad_()
    value = compiled(rows, teacher, memory, ids)
    (gradient,) = torch.autograd.grad(value, rows)
    expected, by_eager = solve(name, student, teacher, memory, ids)
    torch.testing.assert_close(value.detach(), expected)
    torch.testing.assert_close(gradient, by_eager)


def test_a_compiled_trained_temperature_equals_double_precision(
    way, monkeypatch
):
    """Of CLIP's bound, where exp(100) is beyond single precision."""
    torch.compiler.reset()
    teacher = raw(12, 8, 1)
    student = raw(12, 8)
    student[:6] = teacher[:6]

    def solve_with(call, loss, dtype):
        rows = student.to(dtype).requires_grad_()
        value = call(rows, teacher.to(dtype))
        both = torch.autograd.grad(value, (rows, loss.log_scale))
        return [x.detach().double() for x in (value, *both)]

    eager = CMCLoss(0.01, learnable_temperature=True)
    double = CMCLoss(0.01, learnable_temperature=True).double()
    compiled = torch.compile(
        eager, backend='aot_eager', fullgraph=way == 'plain'
    )
    with monkeypatch.context() as plain:
        plain.setattr(functional, '_PLAIN_UP_TO', 2**40)
        expected = solve_with(double, double, torch.float64)
    for call in (eager, compiled):
        for ours, reference in zip(
            solve_with(call, eager, torch.float32), expected, strict=True
        ):
            torch.testing.assert_close(ours, reference, rtol=1e-4, atol=1e-4)
            assert reference.abs().max() > 1
