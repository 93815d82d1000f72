"""Two processes that are stopped and resumed take the steps of a straight run.

Each has BatchNorm statistics of its own until an epoch ends.
"""

import pytest
import torch
from conftest import REPO, run_command
from noisy_run import NoisyRun, ToolServer, differences
from test_two_process_training import free_port

from mmcmcd.checkpoints import read_file

EXACT = ('state_dict', 'ema_state_dict', 'optimizer', 'param_schedulers')
# 10 pairs: 5 of each process, 2 steps of 2 pairs an epoch.
OPTIONS = {'train_cfg.val_interval': 3}
TOTAL, STOP = 6, 3
STATES = """
import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import HOOKS


@HOOKS.register_module()
class RankStateHook(Hook):
    # What each process has after a step, before they average anything.
    def after_train_iter(self, runner, batch_idx, data_batch, outputs):
        path = f'{runner.work_dir}_state_{get_rank()}_{runner.iter + 1}.pth'
        torch.save(runner.model.module.state_dict(), path)
"""
CONFIG = """
_base_ = './noisy.py'
custom_imports = dict(imports=['mmcmcd', 'noisy_parts', 'rank_states'])
custom_hooks = [*_base_.custom_hooks, dict(type='RankStateHook')]
"""


class PairOfProcesses(NoisyRun):
    """Runs of two processes that train together."""

    def __init__(self, root, server):
        super().__init__(root)
        self.server = server
        (root / 'rank_states.py').write_text(STATES)
        self.config = root / 'two.py'
        self.config.write_text(CONFIG)

    def train(self, name, *args, world_size=2):
        """Both processes, started as torchrun does."""
        arguments = self.arguments(
            name, '--launcher=pytorch', *args, **OPTIONS
        )
        group = dict(
            MASTER_ADDR='127.0.0.1',
            MASTER_PORT=free_port(),
            WORLD_SIZE=str(world_size),
        )
        pids = [
            self.server.start(
                'train.py',
                self.config,
                *arguments,
                RANK=str(rank),
                LOCAL_RANK=str(rank),
                **group,
            )
            for rank in range(world_size)
        ]
        return [self.server.finish(pid) for pid in pids]

    def state(self, name, rank, iteration):
        path = self.root / f'{name}_state_{rank}_{iteration}.pth'
        return torch.load(path)


@pytest.fixture(scope='module')
def pair(tmp_path_factory):
    root = tmp_path_factory.mktemp('pair')
    with ToolServer(root) as server:
        run = PairOfProcesses(root, server)
        for process in run.train('straight'):
            assert process.status == 0, process.log
        yield run


@pytest.fixture(scope='module')
def stopped(pair):
    """Stopped by torchrun's launcher, as a user would; one gets the signal."""
    stop = dict(stop_at=STOP, rank=1)
    result = run_command(
        ['bash', REPO / 'tools/dist_train.sh', pair.config, '2']
        + pair.arguments('stopped', stop=stop, **OPTIONS),
        PORT=free_port(),
        PYTHONPATH=str(pair.root),
    )
    # torchrun's own: it does not hand on 143.
    assert result.returncode == 1
    return result.stdout + result.stderr


def test_both_stop_at_the_same_step(pair, stopped):
    path = f'{pair.root}/stopped/iter_{STOP}.pth'
    assert (pair.root / 'stopped/last_checkpoint').read_text() == path
    assert read_file(path)['meta']['iter'] == STOP
    assert stopped.count(f'Stopped by SIGTERM after iteration {STOP}') == 1
    assert f'Saved {path}. To go on from there' in stopped
    for rank in (0, 1):
        lines = pair.diary('stopped', rank)
        assert lines == pair.diary('straight', rank)[:STOP]
    first, second = (pair.state('stopped', rank, STOP) for rank in (0, 1))
    differ = differences(first, second)
    # Otherwise there would be nothing to restore.
    assert any(name.endswith('running_var') for name in differ)
    assert all('.running_' in name for name in differ)


def test_another_number_of_processes_is_refused(pair, stopped):
    (process,) = pair.train('stopped', '--resume', world_size=1)
    assert process.status == 2
    (line,) = [x for x in process.log.splitlines() if 'error: ' in x]
    assert line.startswith(
        'error: the run to resume had 2 processes of batch size 2, this one '
        'has 1 process of batch size 2.'
    )


def test_resumed_run_is_the_straight_one(pair, stopped):
    for process in pair.train('stopped', '--resume'):
        assert process.status == 0, process.log
    for rank in (0, 1):
        straight = pair.diary('straight', rank)
        assert pair.diary('stopped', rank) == straight
        assert len(straight) == TOTAL
        for step in range(1, TOTAL + 1):
            states = (
                pair.state(name, rank, step)
                for name in ('straight', 'stopped')
            )
            assert differences(*states) == [], (rank, step)
        generators = (
            pair.generators(name, rank) for name in ('straight', 'stopped')
        )
        assert differences(*generators) == []
    assert pair.diary('straight', 0) != pair.diary('straight', 1)
    first, second = pair.last('straight'), pair.last('stopped')
    for key in EXACT:
        assert differences(first[key], second[key]) == []
