"""There is a complete checkpoint at all times, whatever happens to a run."""

import errno
import multiprocessing
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import Hook
from mmengine.logging import MessageHub
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch.utils.data import Dataset

from mmcmcd.apis.safeguards import add_safeguards, find_checkpoint
from mmcmcd.checkpoints import read_file
from mmcmcd.engine import AtomicCheckpointHook, TrainingStopped
from mmcmcd.engine.hooks.atomic_checkpoint_hook import AtomicLocalBackend
from mmcmcd.errors import CheckpointError

# Other moments in every run of the tests.
RANDOM = random.SystemRandom()
# Formatting a configuration takes longer than all the rest of a checkpoint.
EMPTY = property(lambda self: '')


class Numbers(Dataset):
    metainfo = {}

    def __init__(self, length):
        self.length = length

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        return torch.ones(1)


class Model(BaseModel):
    """Large, and quickly trained: it counts the steps."""

    def __init__(self, size):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(size))
        self.count = torch.nn.Parameter(torch.zeros(1))

    def forward(self, inputs, mode):
        if mode == 'predict':
            return [inputs]
        return dict(loss=-self.count.sum() * inputs.mean())

    def train_step(self, data, optim_wrapper):
        losses = self(torch.stack([*data]), 'loss')
        optim_wrapper.update_params(losses['loss'])
        return losses

    def val_step(self, data):
        return self(data, 'predict')


class Scores(BaseMetric):
    """The scores that a test wants, by name: a list, or the iteration."""

    def __init__(self, **scores):
        super().__init__()
        self.scores = {
            name: values if values == 'iteration' else iter(values)
            for name, values in scores.items()
        }

    def process(self, data_batch, data_samples):
        self.results.append(0)

    def compute_metrics(self, results):
        iteration = MessageHub.get_current_instance().get_info('iter')
        return {
            name: iteration if values == 'iteration' else next(values)
            for name, values in self.scores.items()
        }


class CallHook(Hook):
    """Calls the test after each step, before checkpoints are written."""

    def __init__(self, call=None, in_validation=None):
        self.call, self.in_validation = call, in_validation

    def after_train_iter(self, runner, batch_idx, data_batch, outputs):
        if self.call is not None:
            self.call(runner)

    def after_val_iter(self, runner, batch_idx, data_batch, outputs):
        if self.in_validation is not None:
            self.in_validation(runner)


class Run:
    """A training of 6 iterations, 2 an epoch, in one directory.

    Args:
        folder (Path): Its work directory.
    """

    def __init__(self, folder):
        self.folder = folder

    def train(
        self,
        iterations=6,
        by_epoch=False,
        scores=None,
        call=None,
        in_validation=None,
        size=8,
        stock=False,
        **options,
    ):
        """Train, from the last checkpoint on; options are of the hook."""
        loop = dict(type='IterBasedTrainLoop', max_iters=iterations)
        if by_epoch:
            loop = dict(by_epoch=True, max_epochs=iterations // 2)
        # mmengine waits two seconds where a loop without epochs begins anew.
        length = 4 if by_epoch else 100_000
        loader = dict(
            dataset=dict(type=Numbers, length=length),
            batch_size=2,
            collate_fn=list,
            sampler=dict(type='DefaultSampler', shuffle=False),
        )
        checkpoint = dict(type='CheckpointHook', by_epoch=by_epoch)
        checkpoint.update(dict(interval=1), **options)
        cfg = Config(
            dict(
                work_dir=str(self.folder),
                model=dict(type=Model, size=size),
                train_dataloader=loader,
                train_cfg=dict(loop, val_interval=1),
                optim_wrapper=dict(optimizer=dict(type='SGD', lr=1.0)),
                default_hooks=dict(checkpoint=checkpoint, logger=None),
                visualizer=dict(type='Visualizer'),
                experiment_name=f'run_{os.urandom(6).hex()}',
                default_scope='mmengine',
            )
        )
        if scores:
            dataset = dict(type=Numbers, length=2)
            cfg.val_dataloader = dict(loader, dataset=dataset)
            cfg.val_cfg = {}
            cfg.val_evaluator = dict(type=Scores, **scores)
        if not stock:
            add_safeguards(cfg)
        cfg.load_from = find_checkpoint(str(self.folder))
        cfg.resume = cfg.load_from is not None
        runner = Runner.from_cfg(cfg)
        runner.register_hook(CallHook(call, in_validation), 'NORMAL')
        runner.train()

    @property
    def files(self):
        return sorted(path.name for path in self.folder.glob('*.pth'))

    @property
    def last(self):
        return Path((self.folder / 'last_checkpoint').read_text()).name

    @property
    def log(self):
        logs = self.folder.glob('*/*.log')
        return '\n'.join(path.read_text() for path in logs)

    def hub(self, name):
        """What a checkpoint knows about others."""
        return read_file(self.folder / name)['message_hub']['runtime_info']


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(Config, 'pretty_text', EMPTY)


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path / 'work')


def serve(pipe):
    """Start a training, which then waits for its end, for each request.

    In a process of its own: imports are paid once, and torch does not let
    processes that have trained be forked.
    """
    Config.pretty_text = EMPTY
    # Nobody has to wait for those that were killed.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    while request := pipe.recv():
        if not os.fork():
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            train_without_end(pipe, *request)


def train_without_end(pipe, folder, options):
    def tell(runner):
        if not told:
            told.append(pipe.send(os.getpid()))

    told = []
    Run(folder).train(
        iterations=1 << 20,
        # Writing 4 MB to the disk takes a good part of such a short step.
        size=1 << 20,
        call=tell,
        **options,
    )


@pytest.fixture(scope='module')
def start():
    """Start a training; returns the process's number at its first step."""

    def ask(folder, options):
        pipe.send((folder, options))
        assert pipe.poll(60)
        return pipe.recv()

    spawn = multiprocessing.get_context('spawn')
    pipe, end = spawn.Pipe()
    server = spawn.Process(target=serve, args=(end,), daemon=True)
    server.start()
    yield ask
    pipe.send(None)
    server.join(30)


def kill(pid):
    os.kill(pid, signal.SIGKILL)
    while os.path.exists(f'/proc/{pid}'):
        time.sleep(0.001)


def wait_for_a_part(folder):
    deadline = time.monotonic() + 10
    while not [*folder.glob('.*.part')]:
        assert time.monotonic() < deadline


def complete_iteration(run, keep):
    """All that has to be so when a process was killed; its iteration."""
    for name in run.files:
        checkpoint = read_file(run.folder / name)
        weights = checkpoint['state_dict']
        assert int(weights['count']) == checkpoint['meta']['iter']
        assert weights['weight'].numel() == 1 << 20
    numbered = [name for name in run.files if name.startswith('iter_')]
    # The new one is there before the old one goes.
    assert len(numbered) <= keep + 1
    if not (run.folder / 'last_checkpoint').exists():
        return 0
    assert run.last in run.files
    best = run.hub(run.last).get('best_ckpt')
    assert best is None or Path(best).name in run.files
    return read_file(run.folder / run.last)['meta']['iter']


@pytest.mark.parametrize(
    ('kills', 'keep', 'options'),
    [
        (20, 1, {}),
        (15, 2, {}),
        (15, 1, dict(save_best='acc', scores=dict(acc='iteration'))),
    ],
)
def test_killed_at_any_moment(run, start, kills, keep, options):
    options = dict(max_keep_ckpts=keep, **options)
    iteration = unfinished = 0
    for i in range(kills):
        pid = start(run.folder, options)
        time.sleep(RANDOM.uniform(0, 0.2))
        if i % 2:
            wait_for_a_part(run.folder)
        kill(pid)
        unfinished += len([*run.folder.glob('.*.part')])
        former, iteration = iteration, complete_iteration(run, keep)
        assert iteration >= former
    # Otherwise hardly one was killed while it wrote, and this was no test.
    assert unfinished >= kills / 5
    assert iteration > kills / 4
    # Whoever comes next takes away what they could not.
    run.train(iterations=iteration + 3, size=1 << 20, **options)
    numbered = [name for name in run.files if name.startswith('iter_')]
    assert len(numbered) == keep
    assert not [*run.folder.glob('.*.part')]
    assert complete_iteration(run, keep) == iteration + 3


@pytest.fixture
def set_full():
    """Let the kernel refuse large files, as a full disk does, or not."""
    former = resource.getrlimit(resource.RLIMIT_FSIZE)

    def switch(full):
        size = 100_000 if full else former[0]
        # Python ignores the signal that comes with the error.
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, former[1]))

    yield switch
    switch(False)


LARGE = 100_000  # numbers: 0.4 MB


def test_full_disk_leaves_the_old_one(run, set_full):
    def call(runner):
        iteration = runner.iter + 1
        set_full(iteration in (3, 4))
        if iteration == 5:
            assert (run.files, run.last) == (['iter_2.pth'], 'iter_2.pth')
            assert not [*run.folder.glob('.*.part')]

    run.train(call=call, size=LARGE, max_keep_ckpts=1)
    assert (run.files, run.last) == (['iter_6.pth'], 'iter_6.pth')
    assert run.hub('iter_6.pth')['keep_ckpt_ids'] == [5, 6]
    for step in (3, 4):
        assert re.search(
            rf'ERROR - .* - Checkpoint {run.folder}/iter_{step}.pth could not '
            r'be written \(File too large: needs 0.4 MB, [\d.]+ MB are '
            rf'free\). The last complete one is {run.folder}/iter_2.pth. '
            'Training goes on and tries again after the next interval: make '
            'room.',
            run.log,
        )


def test_disk_that_is_full_when_it_is_synced(run, monkeypatch):
    def fsync(handle):
        raise OSError(errno.ENOSPC, 'full')

    def call(runner):
        if runner.iter + 1 == 3:
            patch.setattr(os, 'fsync', fsync)
        if runner.iter + 1 == 4:
            assert (run.files, run.last) == (['iter_2.pth'], 'iter_2.pth')
            patch.undo()

    with monkeypatch.context() as patch:
        run.train(call=call, max_keep_ckpts=1)
    assert run.files == ['iter_6.pth']
    assert '(No space left on device: needs 0.0 MB, ' in run.log


@pytest.mark.parametrize('by_epoch', [False, True])
def test_last_one_that_cannot_be_written_is_an_error(run, set_full, by_epoch):
    kept = 'epoch_2.pth' if by_epoch else 'iter_5.pth'
    with pytest.raises(CheckpointError) as caught:
        run.train(
            call=lambda runner: set_full(runner.iter + 1 == 6),
            size=LARGE,
            max_keep_ckpts=1,
            by_epoch=by_epoch,
        )
    set_full(False)
    assert (run.files, run.last) == ([kept], kept)
    assert f'The last complete one is {run.folder}/{kept}. Make room' in str(
        caught.value
    )
    # What the message advises.
    run.train(size=LARGE, by_epoch=by_epoch)
    assert run.last == kept.replace('2', '3').replace('5', '6')


def test_stop_at_a_full_disk_is_an_error(run, set_full):
    def call(runner):
        if runner.iter + 1 == 3:
            set_full(True)
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(CheckpointError, match='File too large'):
        run.train(call=call, size=LARGE, by_epoch=True)
    assert run.files == ['epoch_1.pth']


def test_best_one_that_cannot_be_written(run, set_full):
    run.train(
        call=lambda runner: set_full(runner.iter + 1 in (3, 4)),
        size=LARGE,
        interval=6,
        scores=dict(acc=[1.0, 2.0, 3.0, 4.0, 1.5, 2.5]),
        save_best='acc',
    )
    # 2.5 is better than the one that is there, whatever was in between.
    assert run.files == ['best_acc_iter_6.pth', 'iter_6.pth']
    assert run.hub('iter_6.pth')['best_score'] == 2.5
    for _ in range(2):
        assert (
            'of the best metric could not be written (File too large'
            in run.log
        )
    assert f'complete one is {run.folder}/best_acc_iter_2.pth.' in run.log


def test_one_of_several_best_ones_that_cannot_be_written(run, monkeypatch):
    put = AtomicLocalBackend.put

    def fail(self, content, path):
        if path.endswith('best_loss_iter_3.pth'):
            raise OSError(errno.ENOSPC, 'full')
        put(self, content, path)

    monkeypatch.setattr(AtomicLocalBackend, 'put', fail)
    scores = dict(acc=[1.0, 2.0, 3.0, 0.0], loss=[3.0, 2.0, 1.0, 4.0])
    run.train(4, scores=scores, save_best=['acc', 'loss'], max_keep_ckpts=1)
    assert run.files == [
        'best_acc_iter_2.pth',
        'best_loss_iter_2.pth',
        'iter_4.pth',
    ]
    known = run.hub('iter_4.pth')
    assert (known['best_score_acc'], known['best_score_loss']) == (2, 2)


def note_order(run, monkeypatch):
    """Note what is written and removed, and what is named meanwhile."""
    events = []
    put, remove = AtomicLocalBackend.put, LocalBackend.remove

    def note_put(self, content, path):
        put(self, content, path)
        events.append(f'+{Path(path).name}')

    def note_remove(self, path):
        events.append(f'-{Path(path).name}, has {run.last}')
        remove(self, path)

    monkeypatch.setattr(AtomicLocalBackend, 'put', note_put)
    monkeypatch.setattr(LocalBackend, 'remove', note_remove)
    return events


@pytest.mark.parametrize('keep', [1, 2])
def test_old_ones_go_when_the_new_one_is_there(run, monkeypatch, keep):
    events = note_order(run, monkeypatch)
    run.train(4, max_keep_ckpts=keep)
    expected = []
    for step in range(1, 5):
        expected.append(f'+iter_{step}.pth')
        if step > keep:
            expected.append(f'-iter_{step - keep}.pth, has iter_{step}.pth')
    assert events == expected


def test_former_best_one_goes_when_the_new_one_is_known(run, monkeypatch):
    events = note_order(run, monkeypatch)
    run.train(
        4,
        by_epoch=True,
        scores=dict(acc=[1.0, 2.0], loss=[1.0, 2.0]),
        save_best=['acc', 'loss'],
    )
    assert events == [
        '+epoch_1.pth',
        '+best_acc_epoch_1.pth',
        '+best_loss_epoch_1.pth',
        '+epoch_1.pth',
        '+epoch_2.pth',
        '+best_acc_epoch_2.pth',
        '+epoch_2.pth',
        '-best_acc_epoch_1.pth, has epoch_2.pth',
    ]
    known = run.hub('epoch_2.pth')
    assert known['best_ckpt_acc'].endswith('/best_acc_epoch_2.pth')
    assert known['best_ckpt_loss'].endswith('/best_loss_epoch_1.pth')


class KilledError(Exception):
    """Stands for the end of a process."""


@pytest.mark.parametrize('by_epoch', [False, True])
def test_what_a_killed_process_could_not_remove(run, monkeypatch, by_epoch):
    """It ends after a checkpoint was written, before others are removed."""
    options = dict(
        max_keep_ckpts=1,
        by_epoch=by_epoch,
        save_best='acc',
        scores=dict(acc='iteration'),
    )

    def stop(runner):
        if runner.iter + 1 == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    def die(self, paths):
        raise KilledError

    with pytest.raises(TrainingStopped):
        run.train(call=stop, **options)
    assert 'iter_3.pth' in run.files
    with monkeypatch.context() as patch, pytest.raises(KilledError):
        patch.setattr(AtomicCheckpointHook, '_remove', die)
        patch.setattr(AtomicCheckpointHook, '_remove_outdated', lambda *_: 0)
        run.train(**options)
    named = 'epoch_2.pth' if by_epoch else 'iter_4.pth'
    assert run.last == named and len(run.files) > 2
    process = subprocess.Popen([sys.executable, '-c', ''])
    process.wait()
    names = named, 'last_checkpoint', 'mine.txt'
    parts = [run.folder / f'.{name}.{process.pid}.part' for name in names]
    for part in parts:
        part.touch()

    # In the first step nothing has been written yet.
    now = []
    run.train(call=lambda _: now.append(run.files), **options)
    best = 'best_acc_epoch_1.pth' if by_epoch else 'best_acc_iter_2.pth'
    assert now[0] == sorted([best, named])
    assert [part.exists() for part in parts] == [False, False, True]
    for name in names[:2]:
        assert f'{name} was being written when an earlier' in run.log
    last = 'epoch_3' if by_epoch else 'iter_6'
    assert run.files == [f'best_acc_{last}.pth', f'{last}.pth']


def test_stopped_twice_after_one_iteration(run):
    """At an epoch's last step, and in the validation that follows on it."""

    def stop(runner):
        if runner.iter + 1 >= 2:
            os.kill(os.getpid(), signal.SIGTERM)

    options = dict(by_epoch=True, interval=2, scores=dict(acc='iteration'))
    for when in ('call', 'in_validation'):
        with pytest.raises(TrainingStopped, match='iter_2.pth'):
            run.train(**{when: stop}, **options)
        assert (run.files, run.last) == (['iter_2.pth'], 'iter_2.pth')
    run.train(**options)
    assert run.files == ['epoch_2.pth', 'epoch_3.pth']


@pytest.mark.parametrize('how', ['moved', 'copied'])
def test_directory_in_another_place(run, tmp_path, how):
    options = dict(
        by_epoch=True,
        max_keep_ckpts=1,
        scores=dict(acc='iteration'),
        save_best='acc',
    )

    def stop(runner):
        if runner.iter + 1 == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(TrainingStopped):
        run.train(call=stop, **options)
    before = run.files
    assert before == ['best_acc_epoch_1.pth', 'epoch_1.pth', 'iter_3.pth']
    other = Run(tmp_path / 'other')
    (shutil.move if how == 'moved' else shutil.copytree)(
        run.folder, other.folder
    )
    steps = []
    other.train(call=lambda runner: steps.append(runner.iter + 1), **options)
    assert steps == [4, 5, 6]
    assert other.files == ['best_acc_epoch_3.pth', 'epoch_3.pth']
    # The files of the other one are its own.
    assert run.files == (before if how == 'copied' else [])


def test_out_dir_elsewhere(run, tmp_path):
    options = dict(
        out_dir=str(tmp_path / 'out'),
        max_keep_ckpts=1,
        scores=dict(acc='iteration'),
        save_best='acc',
    )
    run.train(2, **options)
    run.train(4, **options)
    assert run.files == []
    out = tmp_path / 'out' / 'work'
    assert (run.folder / 'last_checkpoint').read_text() == f'{out}/iter_4.pth'
    assert sorted(path.name for path in out.iterdir()) == [
        'best_acc_iter_4.pth',
        'iter_4.pth',
    ]


class CountingBackend(LocalBackend):
    written = []

    def put(self, obj, filepath):
        self.written.append(Path(filepath).name)
        super().put(obj, filepath)


def test_backend_of_ones_own(run):
    register_backend('counting', CountingBackend, force=True)
    run.train(2, backend_args=dict(backend='counting'))
    assert CountingBackend.written == ['iter_1.pth', 'iter_2.pth']
    assert run.last == 'iter_2.pth'
