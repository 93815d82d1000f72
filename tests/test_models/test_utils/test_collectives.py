"""One process; tests/test_dist/test_global_batch.py has several."""

import pytest
import torch

from mmcmcd.models.utils import collectives


@pytest.fixture(autouse=True)
def nothing_is_sent(monkeypatch):
    def send(*_, **__):
        raise AssertionError('there is nobody to send to')

    for name in ('all_gather', 'all_reduce'):
        monkeypatch.setattr(f'mmengine.dist.{name}', send)


def test_one_process_is_the_world():
    assert collectives.world_size() == 1
    assert collectives.batch_sizes(5, 'cpu') == [5]
    assert collectives.own_slice([5]) == slice(0, 5)


def test_rows_are_not_copied():
    rows = torch.randn(3, 2, requires_grad=True)
    gathered = collectives.gather_rows(rows)
    assert gathered.data_ptr() == rows.data_ptr()
    assert not gathered.requires_grad
    assert collectives.gather_rows_with_gradient(rows) is rows


@pytest.mark.parametrize('op', ['sum', 'max'])
def test_nothing_is_reduced(op):
    numbers = torch.randn(3, requires_grad=True)
    reduced = collectives.all_reduce(numbers, op)
    assert torch.equal(reduced, numbers)
    assert not reduced.requires_grad


def test_the_own_rows_are_found(monkeypatch):
    rows = torch.arange(12)
    found = []
    for rank in range(4):
        monkeypatch.setattr('mmengine.dist.get_rank', lambda rank=rank: rank)
        found.append(rows[collectives.own_slice([5, 0, 4, 3])].tolist())
    assert found == [[0, 1, 2, 3, 4], [], [5, 6, 7, 8], [9, 10, 11]]
