import copy

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters

from mmcmcd.errors import ConfigError
from mmcmcd.models.distillers.comparison import compare
from mmcmcd.models.losses import CMCLoss
from mmcmcd.models.losses.functional import unit_rows
from mmcmcd.models.memory import FeatureQueue
from mmcmcd.registry import MODELS

DTYPES = dict(
    float32=torch.float32, float16=torch.float16, bfloat16=torch.bfloat16
)


def build(size=5, **kwargs):
    return MODELS.build(
        dict(
            type='mmcmcd.FeatureQueue',
            size=size,
            teacher_dim=2,
            student_dim=3,
            **kwargs,
        )
    )


def rows(ids):
    """Student and teacher rows of some length whose direction is the id."""
    ids = torch.tensor(ids)
    angles = ids / 100
    student = torch.stack([angles.cos(), angles.sin(), 0 * angles], dim=1)
    teacher = torch.stack([angles.sin(), angles.cos()], dim=1)
    return 3 * student, teacher / 7, ids


def stored(queue):
    """The ids in a queue whose rows all belong to them."""
    view = queue.view()
    student, teacher, _ = rows(view.group_ids.tolist())
    # Half a unit in the last place of numbers below one.
    tolerance = torch.finfo(view.student.dtype).eps / 2
    for own, expected in ((view.student, student), (view.teacher, teacher)):
        assert (own.double() - unit_rows(expected.double())).abs().max() < (
            max(tolerance, 1e-6)
        )
    return sorted(view.group_ids.tolist())


def test_starts_empty():
    assert build().view() is None


@pytest.mark.parametrize(
    'batches',
    [[2, 2, 2], [3, 3, 3, 3], [1] * 7, [5, 5], [4, 1, 5, 2], [7], [2, 9, 1]],
)
@pytest.mark.parametrize('size', [1, 2, 5, 40])
def test_keeps_the_newest_rows_of_any_batch_size(batches, size):
    queue, seen = build(size), []
    for num in batches:
        batch = list(range(len(seen), len(seen) + num))
        seen += batch
        queue.enqueue(*rows(batch))
        assert len(queue) == min(len(seen), size)
        assert stored(queue) == seen[-size:]
        assert len(queue) == min(len(seen), size)


@pytest.mark.parametrize('name', DTYPES)
def test_rows_have_unit_length(name):
    queue = build(dtype=name)
    student, teacher, ids = rows([1, 2, 3])
    student[1] = 0
    teacher[2] *= 1e-12
    queue.enqueue(student.half(), teacher.double(), ids)
    view = queue.view()
    assert {view.student.dtype, view.teacher.dtype} == {DTYPES[name]}
    eps = torch.finfo(DTYPES[name]).eps
    for own, others, faint in (
        (view.student, [0, 2], 1),
        (view.teacher, [0, 1], 2),
    ):
        lengths = own.float().norm(dim=1)
        assert (lengths[others] - 1).abs().max() <= eps
        assert lengths[faint] < 1e-5


def test_view_copies_nothing():
    queue = build()
    queue.enqueue(*rows([1, 2]))
    view = queue.view()
    assert view.student.data_ptr() == queue.student.data_ptr()
    assert view.teacher.data_ptr() == queue.teacher.data_ptr()


def test_one_may_go_backward_after_the_next_batch():
    queue = build(size=2)
    queue.enqueue(*rows([1, 2]))
    view = queue.view()
    expected = view.student.sum(0)
    student = torch.zeros(1, 3, requires_grad=True)
    loss = (student @ view.student.T).sum()
    new, teacher, ids = rows([40, 50])
    queue.enqueue(new, teacher, ids)
    ids += 1  # the caller's own
    loss.backward()
    assert torch.equal(student.grad[0], expected)
    assert stored(queue) == [40, 50]


def test_is_restored_from_a_checkpoint():
    queue = build()
    for batch in ([0, 1, 2], [3, 4, 5]):
        queue.enqueue(*rows(batch))
    other = build()
    other.enqueue(*rows([70, 80, 90, 100]))
    other.load_state_dict(queue.state_dict())
    for q in (queue, other):
        q.enqueue(*rows([6]))
        assert stored(q) == [2, 3, 4, 5, 6]
    for key, value in queue.state_dict().items():
        assert torch.equal(value, other.state_dict()[key])
    assert int(other.written) == 7


@pytest.mark.parametrize('name', DTYPES)
def test_raw_rows_of_an_older_checkpoint_are_normalised(name):
    queue = build(dtype=name)
    unit = unit_rows(torch.randn(5, 3)).to(DTYPES[name])
    raw = unit.clone()
    raw[1:3] *= torch.tensor([[40.0], [0.01]]).to(raw)
    raw[4] = 0
    state = dict(
        queue.state_dict(),
        student=raw,
        written=torch.tensor(4),
        group_ids=torch.arange(5),
    )
    given = copy.deepcopy(state)
    queue.load_state_dict(state)
    assert torch.equal(queue.student[[0, 3, 4]], raw[[0, 3, 4]])
    lengths = queue.student.float().norm(dim=1)
    eps = torch.finfo(DTYPES[name]).eps
    assert (lengths[:4] - 1).abs().max() <= eps
    torch.testing.assert_close(
        queue.student[:4], unit[:4], rtol=0, atol=2 * eps
    )
    assert all(torch.equal(state[key], given[key]) for key in state)
    # Once normalised they stay as they are, in any precision.
    for other in DTYPES:
        again = build(dtype=other)
        again.load_state_dict(queue.state_dict())
        assert torch.equal(again.student, queue.student.to(again.student))


def test_is_restored_inside_a_model_by_mmengine(tmp_path):
    from mmengine.runner import load_checkpoint, save_checkpoint

    model, other = (torch.nn.ModuleDict(dict(q=build())) for _ in range(2))
    model['q'].enqueue(*rows([0, 1, 2]))
    path = str(tmp_path / 'model.pth')
    save_checkpoint(dict(state_dict=model.state_dict()), path)
    load_checkpoint(other, path, strict=True)
    other['q'].enqueue(*rows([3, 4, 5]))
    assert stored(other['q']) == [1, 2, 3, 4, 5]


def test_another_size_is_torchs_message():
    with pytest.raises(RuntimeError, match='size mismatch for teacher'):
        build(4).load_state_dict(build(5).state_dict())


def test_copies_are_independent():
    queue = build()
    queue.enqueue(*rows([0, 1, 2]))
    other = copy.deepcopy(queue)
    other.enqueue(*rows([3, 4, 5]))
    assert stored(queue) == [0, 1, 2]
    assert stored(other) == [1, 2, 3, 4, 5]
    queue.enqueue(*rows([9]))
    assert stored(queue) == [0, 1, 2, 9]


@pytest.mark.parametrize('name', DTYPES)
@pytest.mark.parametrize(
    'cast',
    [
        lambda m: m.half(),
        lambda m: m.double(),
        lambda m: m.to(torch.bfloat16),
        lambda m: m.to('cpu'),
        lambda m: m.to('cpu', torch.float16),
    ],
)
def test_casts_of_the_model_leave_the_rows_alone(name, cast):
    queue = build(dtype=name)
    queue.enqueue(*rows([2**20 + 1, 7]))
    before = copy.deepcopy(queue).state_dict()
    model = cast(torch.nn.Sequential(torch.nn.Linear(2, 2), queue))
    after = model[1].state_dict()
    for key, value in before.items():
        assert after[key].dtype == value.dtype
        assert torch.equal(after[key], value), key
    queue.enqueue(*rows([8]))
    assert queue.view().group_ids.tolist() == [2**20 + 1, 7, 8]


def test_moves_to_another_device():
    queue = build().to('meta')
    assert {b.device.type for b in queue.buffers()} == {'meta'}


def test_training_waits_for_no_number(monkeypatch):
    queue = build()
    queue.load_state_dict(build().state_dict())

    def wait(*_):
        raise AssertionError('the host waits for the device')

    for name in ('item', '__int__', '__bool__', '__index__', 'tolist'):
        monkeypatch.setattr(torch.Tensor, name, wait)
    for _ in range(4):
        queue.view()
        queue.enqueue(torch.ones(3, 3), torch.ones(3, 2), torch.ones(3).long())
    assert len(queue) == 5


def test_a_compiled_step_is_not_compiled_again():
    torch.compiler.reset()
    counters.clear()
    compiled = torch.compile(compare, backend='aot_eager')
    steps = [
        (
            each,
            nn.ModuleDict(dict(one=CMCLoss())),
            FeatureQueue(70, 16, 16),
        )
        for each in (compiled, compare)
    ]
    graphs = []
    for seed in range(7):
        torch.manual_seed(seed)
        student, teacher = torch.randn(2, 12, 16)
        results = []
        for each, losses, queue in steps:
            rows = student.clone().requires_grad_()
            ids = torch.arange(12 * seed, 12 * seed + 12)
            terms = each(rows, teacher, ids, losses, queue)
            sum(terms.values()).backward()
            results.append([*terms.values(), rows.grad, queue.view().teacher])
        torch.testing.assert_close(*results)
        graphs.append(counters['stats']['unique_graphs'])
    # The graph breaks at view and enqueue alone.
    assert all('disable' in reason for reason in counters['graph_break'])
    # Without memory, with one, with one of another size; then no more.
    assert 0 < graphs[0] < graphs[2] == graphs[-1]
    assert len(steps[0][2]) == 70


def test_takes_no_more_memory_than_it_says():
    queue = FeatureQueue(
        1000, teacher_dim=128, student_dim=128, dtype='float16'
    )
    numbers = sum(b.nbytes for b in queue.buffers())
    assert numbers == 1000 * (512 + 8) + 8


def test_stores_no_graph():
    queue = build()
    student = torch.randn(2, 3, requires_grad=True)
    queue.enqueue(student, torch.randn(2, 2), torch.tensor([0, 1]))
    assert not queue.view().student.requires_grad


def test_bad_size_is_named():
    with pytest.raises(ValueError, match='size must be >= 1'):
        build(0)


@pytest.mark.parametrize('dtype', ['half', 'int8', None, torch.float16])
def test_bad_dtype_is_named(dtype):
    with pytest.raises(ConfigError, match='one of float32, float16'):
        FeatureQueue(5, 2, 3, dtype=dtype)


def test_other_widths_are_named():
    with pytest.raises(ConfigError, match=r'Set queue.student_dim=4'):
        build().enqueue(
            torch.zeros(2, 4), torch.zeros(2, 2), torch.tensor([0, 1])
        )
