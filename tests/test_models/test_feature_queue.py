import pytest
import torch

from mmcmcd.errors import ConfigError
from mmcmcd.registry import MODELS


def build(size=5):
    return MODELS.build(
        dict(
            type='mmcmcd.FeatureQueue', size=size, teacher_dim=2, student_dim=3
        )
    )


def rows(ids):
    ids = torch.tensor(ids)
    return (ids[:, None] * torch.ones(3), ids[:, None] * torch.ones(2), ids)


def stored(queue):
    view = queue.view()
    assert torch.equal(view.student[:, 0], view.group_ids.float())
    assert torch.equal(view.teacher[:, 1], view.group_ids.float())
    return sorted(view.group_ids.tolist())


def test_starts_empty():
    assert build().view() is None


@pytest.mark.parametrize(
    'batches',
    [[2, 2, 2], [3, 3, 3, 3], [1] * 7, [5, 5], [4, 1, 5, 2], [7], [2, 9, 1]],
)
def test_keeps_the_newest_rows_of_any_batch_size(batches):
    queue, seen = build(), []
    for size in batches:
        batch = list(range(len(seen), len(seen) + size))
        seen += batch
        queue.enqueue(*rows(batch))
        assert stored(queue) == seen[-5:]
        assert len(queue) == min(len(seen), 5)


def test_is_restored_from_a_checkpoint():
    queue = build()
    for batch in ([0, 1, 2], [3, 4, 5]):
        queue.enqueue(*rows(batch))
    other = build()
    other.load_state_dict(queue.state_dict())
    for q in (queue, other):
        q.enqueue(*rows([6]))
    assert stored(other) == stored(queue) == [2, 3, 4, 5, 6]


def test_stores_no_graph():
    queue = build()
    student = torch.randn(2, 3, requires_grad=True)
    queue.enqueue(student, torch.randn(2, 2), torch.tensor([0, 1]))
    assert not queue.view().student.requires_grad


def test_bad_size_is_named():
    with pytest.raises(ValueError, match='size must be >= 1'):
        build(0)


def test_other_widths_are_named():
    with pytest.raises(ConfigError, match=r'Set queue.student_dim=4'):
        build().enqueue(
            torch.zeros(2, 4), torch.zeros(2, 2), torch.tensor([0, 1])
        )
