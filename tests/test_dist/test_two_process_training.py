import re
import socket

import torch
from conftest import REPO, run_command

METRIC = r'retrieval/target2source_R@5: ([0-9.]+)'
PROBE = """
import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import HOOKS


@HOOKS.register_module()
class RankProbe(Hook):
    def __init__(self):
        self.pairs, self.groups = [], []

    def after_train_iter(self, runner, batch_idx, data_batch, outputs):
        self.pairs += [s.pair_id for s in data_batch['data_samples']]
        self.groups += [s.group_index for s in data_batch['data_samples']]

    def after_train(self, runner):
        model = runner.model.module
        torch.save(
            dict(state=model.state_dict(), pairs=self.pairs,
                 groups=self.groups,
                 teacher=model.teacher.state_hash()),
            '{root}/rank%d.pth' % get_rank())
"""

CONFIG = """
_base_ = './tiny.py'
custom_imports = dict(imports=['mmcmcd', 'rank_probe'])
custom_hooks = [
    *_base_.custom_hooks,
    # Validation splits the pairs: without it each rank has its own BN.
    dict(type='mmcmcd.SyncStatisticsHook'),
    dict(type='RankProbe'),
]
train_dataloader = dict(batch_size=2)
# Wider than it is filled, to see its empty rows too.
model = dict(queue=dict(
    type='mmcmcd.FeatureQueue', size=20, teacher_dim=64, student_dim=64))
"""

# Stops one process while the other waits for its rows.
FAULT = """
from mmengine.dist import get_rank

from mmcmcd.errors import DatasetError
from mmcmcd.models.losses import CMDLoss
from mmcmcd.registry import MODELS


@MODELS.register_module()
class FaultyLoss(CMDLoss):
    steps = 0

    def compare(self, rows):
        self.steps += 1
        if self.steps == 2 and get_rank() == 1:
            raise DatasetError('row 3 is broken')
        return super().compare(rows)
"""
FAULT_CONFIG = """
_base_ = './tiny.py'
custom_imports = dict(imports=['mmcmcd', 'fault'])
train_dataloader = dict(batch_size=2)
model = dict(losses=dict(
    _delete_=True, faulty=dict(type='mmcmcd.FaultyLoss')))
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return str(probe.getsockname()[1])


def dist_tool(run, name, *args):
    return run_command(
        ['bash', REPO / 'tools' / name, *args, '--work-dir', run.work_dir],
        PORT=free_port(),
        PYTHONPATH=str(run.root),
    )


def test_two_processes_train_one_student(tiny_run):
    (tiny_run.root / 'rank_probe.py').write_text(
        PROBE.replace('{root}', str(tiny_run.root))
    )
    config = tiny_run.root / 'two.py'
    config.write_text(CONFIG)
    result = dist_tool(tiny_run, 'dist_train.sh', config, 2)
    assert result.returncode == 0, result.stderr[-3000:]

    ranks = [torch.load(tiny_run.root / f'rank{i}.pth') for i in (0, 1)]
    first, second = (rank['state'] for rank in ranks)
    trained = [key for key in first if key.startswith('student.')]
    assert any(key.endswith('.running_var') for key in trained)
    for key in first:
        assert torch.equal(first[key], second[key]), key
    # Numbers of 63 bits, which no average would leave as they are.
    groups = torch.tensor([rank['groups'] for rank in ranks])
    expected = groups.view(2, 4, 2).transpose(0, 1).flatten()  # by step
    stored = first['queue.group_ids']
    assert torch.equal(stored[:16], expected)
    assert (stored[16:] == -1).all()
    assert int(first['queue.written']) == 16
    assert ranks[0]['teacher'] == ranks[1]['teacher']
    # Each epoch visits every pair once, whichever process sees it.
    for epoch in (slice(0, 4), slice(4, 8)):
        seen = ranks[0]['pairs'][epoch] + ranks[1]['pairs'][epoch]
        assert sorted(seen) == [str(i) for i in range(8)]

    last = (tiny_run.work_dir / 'last_checkpoint').read_text()
    checkpoint = torch.load(last, weights_only=False)
    assert checkpoint['meta']['epoch'] == 2
    assert not any(k.startswith('teacher') for k in checkpoint['state_dict'])
    assert len(list(tiny_run.work_dir.glob('student-*.pth'))) == 1
    (trained_metric,) = re.findall(METRIC, result.stdout)

    result = dist_tool(tiny_run, 'dist_test.sh', config, last, 2)
    assert result.returncode == 0, result.stderr[-3000:]
    assert re.findall(METRIC, result.stdout) == [trained_metric]


def test_a_fault_is_reported_once(tiny_run):
    tiny_run.teacher.unlink()
    result = dist_tool(tiny_run, 'dist_train.sh', tiny_run.config, 2)
    assert result.returncode != 0
    lines = [x for x in result.stderr.splitlines() if x.startswith('error: ')]
    assert len(lines) == 1
    assert 'does not exist' in lines[0]


def test_a_fault_of_one_process_ends_all(tiny_run):
    (tiny_run.root / 'fault.py').write_text(FAULT)
    config = tiny_run.root / 'faulty.py'
    config.write_text(FAULT_CONFIG)
    result = dist_tool(tiny_run, 'dist_train.sh', config, 2)
    assert result.returncode != 0
    assert 'Epoch(train) [1][1/2]' in result.stdout
    lines = [x for x in result.stderr.splitlines() if 'error: ' in x]
    assert lines == ['[rank 1] error: row 3 is broken']
