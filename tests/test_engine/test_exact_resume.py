"""A stopped and resumed run equals one that never stopped, bit for bit."""

import json
import os
import random
import signal
from types import SimpleNamespace

import pytest
import torch
from mmengine.runner import Runner
from noisy_run import BATCH_SIZE, EPOCH, TOTAL, NoisyRun, differences
from torch import nn
from torch.utils.data import DataLoader, IterableDataset

from mmcmcd.apis import load_config
from mmcmcd.engine import ExactResumeHook
from mmcmcd.errors import CheckpointError, ConfigError
from mmcmcd.evaluation import CrossModalRetrieval

EXACT = ('state_dict', 'ema_state_dict', 'optimizer', 'param_schedulers')
# Another one each time; no part of a test's name, which processes share.
ANYWHERE = None
WORKERS = {
    'train_dataloader.num_workers': 2,
    'train_dataloader.persistent_workers': False,
}
RUNS = {
    'epochs-0': {},
    'epochs-2': WORKERS,
    # A sampler that ends: the loop starts it again and again.
    'iterations-0': dict(by_iteration=True),
    'iterations-infinite': {
        'by_iteration': True,
        'train_dataloader.sampler.type': 'InfiniteSampler',
        **WORKERS,
    },
}


@pytest.fixture(scope='module')
def noisy(tmp_path_factory):
    root = tmp_path_factory.mktemp('noisy')
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(root)
        # mmengine waits two seconds at each pass of its endless iterator.
        patch.setattr('mmengine.runner.loops.time.sleep', lambda _: None)
        run = NoisyRun(root)
        for name, options in RUNS.items():
            assert run.run(name, **options) is None
        yield run


def assert_equal(noisy, straight, resumed):
    # Pixels too: they are drawn at random.
    assert noisy.diary(resumed) == noisy.diary(straight)
    assert len(noisy.diary(straight)) == TOTAL
    first, second = noisy.last(straight), noisy.last(resumed)
    for key in EXACT:
        assert differences(first[key], second[key]) == []
    generators = noisy.generators(straight), noisy.generators(resumed)
    assert differences(*generators) == []


@pytest.mark.parametrize(
    ('name', 'stop_at'),
    [
        ('epochs-0', 1),
        ('epochs-0', EPOCH),
        ('epochs-0', ANYWHERE),
        ('epochs-2', EPOCH - 1),
        ('epochs-2', ANYWHERE),
        ('iterations-0', ANYWHERE),
        ('iterations-infinite', ANYWHERE),
    ],
)
def test_stopped_at_an_iteration(noisy, name, stop_at):
    stop_at = stop_at or random.SystemRandom().randint(1, TOTAL - 1)
    stopped = f'{name}_{stop_at}'
    for path in noisy.root.glob(f'{stopped}_diary*'):
        path.unlink()  # the random one may be one of the others
    stop = noisy.run(stopped, stop_at=stop_at, **RUNS[name])
    assert stop.code == 143
    assert len(noisy.diary(stopped)) == stop_at
    assert noisy.run(stopped, resume='auto', **RUNS[name]) is None
    assert_equal(noisy, name, stopped)


def test_the_queue_and_its_position_are_compared(noisy):
    # EMAHook puts the trained model there.
    state = noisy.last('epochs-0')['ema_state_dict']
    assert int(state['module.queue.written']) == TOTAL * BATCH_SIZE
    assert state['module.queue.student'].abs().sum() > 0
    assert any(k.startswith('module.momentum_student.') for k in state)


def test_workers_do_not_matter(noisy):
    assert noisy.diary('epochs-0') == noisy.diary('epochs-2')
    stop = noisy.run('mixed', stop_at=3)
    assert stop.code == 143
    noisy.run('mixed', resume='auto', **WORKERS)
    assert_equal(noisy, 'epochs-0', 'mixed')


def test_epochs_draw_otherwise(noisy):
    lines = [json.loads(line) for line in noisy.diary('epochs-2')]
    epochs = [lines[i : i + EPOCH] for i in range(0, TOTAL, EPOCH)]
    seen = [sorted(i for line in e for i in line[3]) for e in epochs]
    assert seen[0] == seen[1] == seen[2]
    pixels = {line[4]['target'] for line in lines}
    assert len(pixels) == TOTAL


def test_a_seed_of_no_ones_choice_is_kept(noisy):
    free = {'randomness.seed': None, 'train_cfg.val_interval': 9}
    noisy.run('free', **free)
    noisy.run('free_stopped', stop_at=4, **free)
    # Two runs differ, but the second half is of the first one's run.
    assert noisy.diary('free')[:4] != noisy.diary('free_stopped')
    noisy.run('free_stopped', resume='auto', **free)
    diary = noisy.diary('free_stopped')
    meta = noisy.last('free_stopped')['meta']
    noisy.run('same', **{'randomness.seed': meta['seed']})
    assert noisy.diary('same') == diary


def test_stopped_twice(noisy):
    work_dir = noisy.root / 'twice'
    noisy.run('twice', stop_at=3)
    assert (work_dir / 'iter_3.pth').exists()
    noisy.run('twice', resume='auto', stop_at=4)
    assert not (work_dir / 'iter_3.pth').exists()
    assert (work_dir / 'iter_4.pth').exists()
    noisy.run('twice', resume='auto')
    assert not list(work_dir.glob('iter_*.pth'))
    assert_equal(noisy, 'epochs-0', 'twice')


@pytest.mark.parametrize('stop_at', [4, EPOCH])
def test_gradients_that_wait_are_kept(noisy, stop_at):
    options = {'optim_wrapper.accumulative_counts': 3}
    straight, stopped = f'accumulated_{stop_at}', f'accumulating_{stop_at}'
    noisy.run(straight, **options)
    noisy.run(stopped, stop_at=stop_at, **options)
    noisy.run(stopped, resume='auto', **options)
    assert_equal(noisy, straight, stopped)


def test_stopped_in_a_validation(noisy, monkeypatch):
    """Validation is cut short; training goes on exactly."""
    process = CrossModalRetrieval.process

    def stop(self, *args):
        os.kill(os.getpid(), signal.SIGINT)
        return process(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(CrossModalRetrieval, 'process', stop)
        stopped = noisy.run('validated')
    assert stopped.code == 130
    assert f'after iteration {EPOCH} of' in str(stopped)
    noisy.run('validated', resume='auto')
    assert_equal(noisy, 'epochs-0', 'validated')


def test_another_number_of_processes_is_refused(noisy):
    noisy.run('moved', stop_at=3)
    path = (noisy.root / 'moved' / 'last_checkpoint').read_text()
    checkpoint = torch.load(path, weights_only=False)
    checkpoint['meta']['exact_resume']['world_size'] = 4
    torch.save(checkpoint, path)
    with pytest.raises(CheckpointError) as caught:
        noisy.run('moved', resume='auto')
    assert 'had 4 processes of batch size 2, this one has 1 process' in str(
        caught.value
    )
    assert 'load_from=CHECKPOINT without --resume' in str(caught.value)
    # What the message advises.
    assert noisy.run('moved_on', load_from=path) is None


def test_other_data_are_refused(noisy):
    noisy.run('other', stop_at=3)
    with pytest.raises(CheckpointError, match=r'batch_size: 2 then, 5 now'):
        noisy.run('other', resume='auto', **{'train_dataloader.batch_size': 5})
    with pytest.raises(CheckpointError, match=r'set: 10 then, 6 now'):
        noisy.run(
            'other',
            resume='auto',
            **{'train_dataloader.dataset.indices': 6},
        )


def test_longer_training_is_the_same_run(noisy):
    noisy.run('longer', stop_at=8)
    noisy.run('longer', resume='auto', **{'train_cfg.max_epochs': 4})
    assert len(noisy.diary('longer')) == 4 * EPOCH


def test_checkpoint_without_the_hook(noisy, caplog):
    noisy.run('plain', stop_at=EPOCH)
    path = (noisy.root / 'plain' / 'last_checkpoint').read_text()
    checkpoint = torch.load(path, weights_only=False)
    del checkpoint['meta']['exact_resume']
    torch.save(checkpoint, path)
    with caplog.at_level('WARNING'):
        noisy.run('plain', resume='auto')
    assert len(noisy.diary('plain')) == TOTAL


def test_stock_runner_without_the_hook_is_refused_within_an_epoch(noisy):
    """The loop never trains a part of an epoch twice without a word."""
    noisy.run('hookless', stop_at=3)
    cfg = load_config(str(noisy.config))
    cfg.train_cfg = dict(type='mmcmcd.ResumableEpochLoop', max_epochs=3)
    cfg.work_dir = str(noisy.root / 'hookless')
    cfg.resume, cfg.experiment_name = True, 'hookless'
    with pytest.raises(ConfigError, match=r"type='mmcmcd.ExactResumeHook'"):
        Runner.from_cfg(cfg).train()


def test_hook_leaves_other_loaders_alone(caplog):
    class Stream(IterableDataset):
        def __iter__(self):
            return iter(range(4))

    loader = DataLoader(Stream())
    runner = SimpleNamespace(
        train_loop=SimpleNamespace(dataloader=loader),
        seed=0,
        model=nn.Linear(1, 1),
    )
    ExactResumeHook().before_train(runner)
    assert runner.train_loop.dataloader is loader
