"""Trainings that are stopped, in processes of their own, go on exactly.

What the process of a test cannot show: the end of a process by a signal,
loader workers that get it, too, exit codes, messages.
"""

import random
import shutil
import signal
from pathlib import Path

import pytest
from noisy_run import TOTAL, NoisyRun, ToolServer, differences

from mmcmcd.checkpoints import read_file

EXACT = ('state_dict', 'ema_state_dict', 'optimizer', 'param_schedulers')
# Another one in every run of the tests.
ANYWHERE = random.SystemRandom().randint(3, TOTAL - 1)
OPTIONS = {
    'train_dataloader.num_workers': 2,
    'val_dataloader.num_workers': 1,
    'default_hooks.checkpoint.by_epoch': False,
    'default_hooks.checkpoint.interval': 2,
    'default_hooks.checkpoint.max_keep_ckpts': 1,
}
# name of the run: its stop
STOPS = dict(
    straight={},
    killed=dict(stop_at=ANYWHERE, signum=signal.SIGKILL),
    # As a scheduler, or a terminal, does: loader workers get it, too; and
    # again by a launcher, to which it was sent, too.
    terminated=dict(stop_at=7, signum=signal.SIGTERM, group=True, times=2),
    # After two validations, whose workers persist.
    interrupted=dict(stop_at=13, signum=signal.SIGINT, group=True),
    hurried=dict(stop_at=5, signum=signal.SIGINT, times=2),
    insisted=dict(stop_at=5, signum=signal.SIGTERM, times=2, pause=1.2),
)


class Processes(NoisyRun):
    """Runs of ``tools/train.py``, some at a time."""

    def __init__(self, root, server):
        super().__init__(root)
        self.server, self.ended = server, {}

    def start(self, name, *args, stop=None):
        arguments = self.arguments(name, *args, stop=stop, **OPTIONS)
        return self.server.start('train.py', self.config, *arguments)

    def train(self, name, *args):
        return self.server.finish(self.start(name, *args))

    def assert_straight(self, name, done):
        """The run, resumed after ``done`` iterations, was as one.

        Those that were lost with a killed process were the same, too.
        """
        expected, diary = self.diary('straight'), self.diary(name)
        before = len(diary) - (TOTAL - done)
        assert diary[:before] == expected[:before]
        assert diary[before:] == expected[done:]
        first, second = self.last('straight'), self.last(name)
        for key in EXACT:
            assert differences(first[key], second[key]) == []
        generators = self.generators('straight'), self.generators(name)
        assert differences(*generators) == []
        files = sorted(path.name for path in (self.root / name).glob('*.pth'))
        student = (self.root / name / 'last_student').read_text()
        assert files == [f'iter_{TOTAL}.pth', Path(student).name]

    def named(self, name):
        return (self.root / name / 'last_checkpoint').read_text()


@pytest.fixture(scope='module')
def noisy(tmp_path_factory):
    root = tmp_path_factory.mktemp('stops')
    with ToolServer(root) as server:
        run = Processes(root, server)
        pids = {
            name: run.start(name, stop=stop) for name, stop in STOPS.items()
        }
        for name, pid in pids.items():
            run.ended[name] = server.finish(pid)
        assert run.ended['straight'].status == 0, run.ended['straight'].log
        yield run


def test_killed(noisy):
    assert noisy.ended['killed'].status == -signal.SIGKILL
    done = read_file(noisy.named('killed'))['meta']['iter']
    # It dies before the checkpoint of the same step is written.
    assert done == (ANYWHERE - 1) // 2 * 2
    resumed = noisy.train('killed', '--resume')
    assert resumed.status == 0, resumed.log
    noisy.assert_straight('killed', done)


def test_terminated_and_moved(noisy):
    ended = noisy.ended['terminated']
    work_dir = noisy.root / 'terminated'
    path = f'{work_dir}/iter_7.pth'
    assert ended.status == 143, ended.log
    assert 'SIGTERM: finishing this step, then a checkpoint is' in ended.log
    assert (
        f'Stopped by SIGTERM after iteration 7 of {TOTAL}. Saved {path}. To '
        'go on from there, give the same command with --resume.'
    ) in ended.log
    assert 'Traceback' not in ended.log
    assert noisy.named('terminated') == path
    assert read_file(path)['meta']['iter'] == 7

    shutil.move(work_dir, noisy.root / 'moved')
    shutil.move(f'{work_dir}_diary.0', noisy.root / 'moved_diary.0')
    resumed = noisy.train('moved', '--resume')
    assert resumed.status == 0, resumed.log
    noisy.assert_straight('moved', 7)
    assert not work_dir.exists()


def test_interrupted_and_without_a_name(noisy):
    ended = noisy.ended['interrupted']
    assert ended.status == 130, ended.log
    assert f'Stopped by SIGINT after iteration 13 of {TOTAL}' in ended.log
    assert 'Traceback' not in ended.log

    (noisy.root / 'interrupted' / 'last_checkpoint').unlink()
    resumed = noisy.train('interrupted', '--resume')
    assert resumed.status == 0, resumed.log
    noisy.assert_straight('interrupted', 13)


@pytest.mark.parametrize(
    ('name', 'status', 'message'),
    [
        ('hurried', 130, '\ninterrupted\n'),
        ('insisted', -signal.SIGTERM, ''),
    ],
)
def test_second_signal_ends_at_once(noisy, name, status, message):
    ended = noisy.ended[name]
    assert ended.status == status
    assert message in ended.log
    assert 'Once more stops at once, without one.' in ended.log
    assert 'Traceback' not in ended.log
    # The one of the step before, complete; none of the step that was cut.
    assert noisy.named(name).endswith('/iter_4.pth')
    files = [path.name for path in (noisy.root / name).glob('*.pth')]
    assert files == ['iter_4.pth']


def test_nothing_to_resume(noisy):
    ended = noisy.train('nothing', '--resume')
    assert ended.status == 0, ended.log
    work_dir = noisy.root / 'nothing'
    assert (
        f'There is no checkpoint in {work_dir} to resume from: training '
        'starts from the beginning.'
    ) in ended.log
    noisy.assert_straight('nothing', 0)
