"""A loss or gradient that is not finite never reaches the weights."""

import copy
import json
import math
import socket
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from conftest import REPO, run_command
from mmengine.hooks import Hook
from mmengine.logging import MessageHub
from mmengine.optim import AmpOptimWrapper, OptimWrapper, OptimWrapperDict
from noisy_run import EPOCH, TOTAL, NoisyRun, differences
from torch import nn

from mmcmcd.apis import load_config
from mmcmcd.apis.train import build_runner, prepare_train_config
from mmcmcd.engine import CPUAmpOptimWrapper, NonFiniteGuardHook
from mmcmcd.errors import ConfigError, NonFiniteLossError

# What has NaN in its depth map wherever the tests say so.
BAD_PAIR = '3'
PARTS = """
import math

import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from torch import nn

from mmcmcd.registry import MODELS


class _NaNGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, rows):
        return rows.clone()

    @staticmethod
    def backward(ctx, grad):
        return torch.full_like(grad, math.nan)


@MODELS.register_module(force=True)
class PoisonLoss(nn.Module):
    # Nothing but at some calls, of one process or of all.
    def __init__(self, kind, calls, rank=None):
        super().__init__()
        self.kind, self.bad_calls, self.rank = kind, calls, rank
        self.calls = 0

    def forward(self, student, teacher, memory, group_ids):
        self.calls += 1
        nothing = 0 * student.sum()
        if self.rank not in (None, get_rank()):
            return nothing
        if self.calls not in self.bad_calls:
            return nothing
        if self.kind == 'gradient':
            return 0 * _NaNGradient.apply(student).sum()
        if self.kind == 'infinite':
            # Its gradient is finite.
            return nothing + math.inf
        # Without any gradient.
        return student.new_tensor(math.nan)


@HOOKS.register_module(force=True)
class PoisonHook(Hook):
    # One pixel of one pair, each time that it comes.
    def before_train_iter(self, runner, batch_idx, data_batch):
        for i, sample in enumerate(data_batch['data_samples']):
            if sample.pair_id == '3':
                data_batch['inputs']['target'][i, 0, 0, 0] = math.nan


@HOOKS.register_module(force=True)
class RankHook(Hook):
    priority = 'LOWEST'

    def __init__(self, root):
        self.root = root

    def after_train(self, runner):
        hub = runner.message_hub.runtime_info
        torch.save(
            dict(state=runner.model.module.state_dict(),
                 optimizer=runner.optim_wrapper.state_dict(),
                 count=hub.get('skipped_steps', 0), iterations=runner.iter),
            f'{self.root}/rank{get_rank()}.pth')
"""

# Everything that has a state of its own.
STATEFUL = {
    'model.losses.prototypes': dict(
        type='mmcmcd.PrototypeLoss', num_features=64, num_prototypes=4
    ),
    'model.losses.crd': dict(type='mmcmcd.CRDLoss'),
    'model.source_norm': dict(type='mmcmcd.Whiten', num_features=64),
}


class Witness(Hook):
    """Keeps what there was before a step, and what changed in it."""

    # Before the guard, and before all others of that place.
    priority = 'VERY_HIGH'

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.before = self.look(runner)

    @staticmethod
    def look(runner):
        model = runner.model
        python = {
            name: {
                key: value
                for key, value in vars(module).items()
                if key in ('_num_written', '_num_batches', '_is_fixed')
            }
            for name, module in model.named_modules()
        }
        state = dict(model.state_dict())
        normalizers = 'losses.crd.log_normalizers'
        if normalizers in state:  # NaN, which equals nothing, is its zero
            state[normalizers] = state[normalizers].nan_to_num(nan=-1)
        return copy.deepcopy(
            dict(
                state=state,
                # Without learning rates, which count on.
                optimizer=runner.optim_wrapper.state_dict()['state'],
                python=python,
            )
        )


class Comparison(Hook):
    """Names what each step changed, after all other hooks."""

    priority = 'LOWEST'

    def __init__(self, witness):
        self.witness = witness
        self.changes = {}
        self.losses = {}

    def after_train_iter(self, runner, batch_idx, data_batch, outputs):
        after = self.witness.look(runner)
        self.changes[runner.iter + 1] = differences(self.witness.before, after)
        self.losses[runner.iter + 1] = float(outputs['loss'].detach())


@pytest.fixture(scope='module')
def noisy(tmp_path_factory):
    root = tmp_path_factory.mktemp('poisoned')
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(root)
        (root / 'poison_parts.py').write_text(PARTS)
        run = NoisyRun(root)
        with open(run.config, 'a') as file:
            file.write(
                "custom_imports['imports'].append('poison_parts')\n"
                'custom_hooks.pop()\n'  # the diary
            )
        yield run


class Trained:
    """A training in this process that the guard may have stopped."""

    def __init__(
        self,
        run,
        name,
        max_skipped=0,
        poison=(BAD_PAIR,),
        amp=False,
        resume=None,
        **options,
    ):
        self.work_dir = run.root / name
        cfg = prepare_train_config(
            load_config(str(run.config)),
            str(run.config),
            work_dir=str(self.work_dir),
            amp=amp,
            resume=resume,
            cfg_options=options,
        )
        for hook in cfg.custom_hooks:
            if hook.type.endswith('NonFiniteGuardHook'):
                hook.max_skipped = max_skipped
        if poison:
            cfg.custom_hooks.append(dict(type='PoisonHook'))
        cfg.experiment_name = f'{run.root.name}_{name}_{resume}'
        cfg.log_level = 'WARNING'
        self.runner = build_runner(cfg)
        self.witness = Witness()
        self.comparison = Comparison(self.witness)
        for hook in (self.witness, self.comparison):
            self.runner.register_hook(hook)
        self.error = None
        try:
            self.runner.train()
        except NonFiniteLossError as error:
            self.error = str(error)

    @property
    def skipped(self):
        """The iterations that changed nothing at all."""
        changes = self.comparison.changes
        return [step for step, changed in changes.items() if not changed]

    def changed_weights(self):
        """What differs from before the step that stopped training."""
        now = self.witness.look(self.runner)
        before = self.witness.before
        trained = [
            name
            for name, value in self.runner.model.named_parameters()
            if value.requires_grad
        ]
        return differences(before['optimizer'], now['optimizer']) + [
            name
            for name in trained
            if not torch.equal(before['state'][name], now['state'][name])
        ]

    def records(self):
        """What the files say, by iteration."""
        files = self.work_dir.glob('non_finite_iter_*.json')
        records = [json.loads(path.read_text()) for path in files]
        return {r['iteration']: r for r in records}


def poison_loss(kind, *calls):
    cfg = dict(type='mmcmcd.PoisonLoss', kind=kind, calls=list(calls))
    return {'model.losses.poison': cfg}


def test_the_default_stops_at_a_bad_pair(noisy):
    trained = Trained(noisy, 'stops')
    assert len(trained.comparison.changes) < EPOCH
    iteration = len(trained.comparison.changes) + 1
    ((at, record),) = trained.records().items()
    assert at == iteration == record['iteration']
    message = trained.error
    assert message.startswith(f'Iteration {iteration}: The loss is not finite')
    assert 'loss_cmd=nan' in message and 'loss_cmc=nan' in message
    assert 'The inputs of 1 samples are not finite: 3 (' in message
    for folder in ('rgb', 'depth'):
        assert f'{noisy.root}/data/{folder}/{BAD_PAIR}.png' in message
    assert str(trained.work_dir / f'non_finite_iter_{at}.json') in message
    assert 'weights are as before this step' in message
    assert 'max_skipped=N' in message
    # The file has the other pair of the batch, too.
    ids = [sample['pair_id'] for sample in record['samples']]
    assert len(ids) == 2 and ids[record['inputs_not_finite'][0]] == BAD_PAIR
    assert len(record['inputs_not_finite']) == 1
    assert record['losses']['loss'] == 'nan'
    assert all(len(sample) == 3 for sample in record['samples'])
    assert trained.changed_weights() == []
    assert not list(trained.work_dir.glob('*.pth'))


@pytest.mark.parametrize(
    ('kind', 'what'),
    [
        ('detached', 'The loss is not finite'),
        ('infinite', 'The loss is not finite'),
        ('gradient', 'Gradients are not finite, the loss is'),
    ],
)
def test_the_default_stops_at_a_bad_loss(noisy, kind, what):
    trained = Trained(noisy, kind, poison=(), **poison_loss(kind, 3))
    assert trained.error.startswith(f'Iteration 3: {what}')
    value = dict(detached='nan', infinite='inf', gradient='0')[kind]
    assert f'loss_poison={value})' in trained.error
    assert 'All inputs are finite; its batch: ' in trained.error
    (record,) = trained.records().values()
    assert record['inputs_not_finite'] == []
    assert trained.changed_weights() == []


@pytest.mark.parametrize('amp', [False, True], ids=['float32', 'bfloat16'])
def test_a_skipped_step_leaves_no_trace(noisy, amp):
    trained = Trained(
        noisy, f'skips_{amp}', max_skipped=3, amp=amp, **STATEFUL
    )
    wrapper = type(trained.runner.optim_wrapper)
    assert wrapper is (CPUAmpOptimWrapper if amp else OptimWrapper)
    assert trained.error is None
    assert trained.runner.iter == TOTAL
    # Once an epoch.
    assert len(trained.skipped) == 3
    assert set(trained.skipped) == set(trained.records())
    losses = trained.comparison.losses
    assert {i for i, x in losses.items() if not math.isfinite(x)} == set(
        trained.skipped
    )
    for name, value in trained.runner.model.state_dict().items():
        assert value.isfinite().all(), name
    # The rows of skipped steps are not in the queue.
    assert int(trained.runner.model.queue.written) == 2 * (TOTAL - 3)


@pytest.mark.parametrize('kind', ['detached', 'infinite', 'gradient'])
def test_a_step_that_is_bad_by_its_loss_leaves_no_trace(noisy, kind):
    # The first one: what is set once must be set by the next.
    trained = Trained(
        noisy,
        f'skips_{kind}',
        max_skipped=2,
        poison=(),
        **{'train_cfg.max_epochs': 1},
        **STATEFUL,
        **poison_loss(kind, 1, 3),
    )
    assert trained.error is None
    assert trained.skipped == [1, 3]
    assert trained.runner.model.losses['crd'].log_normalizers.isfinite().all()
    good = [x for i, x in trained.comparison.losses.items() if i not in (1, 3)]
    assert len(good) == EPOCH - 2 and all(map(math.isfinite, good))


def test_one_too_many_stops(noisy):
    trained = Trained(noisy, 'too_many', max_skipped=2)
    assert 2 * EPOCH < len(trained.comparison.changes) < TOTAL
    assert len(trained.skipped) == 2
    assert len(trained.records()) == 3
    assert '2 such steps were skipped before (max_skipped=2)' in trained.error
    assert trained.changed_weights() == []


def test_the_count_survives_a_resume(noisy):
    first = Trained(
        noisy, 'resumed', max_skipped=2, **{'train_cfg.max_epochs': 2}
    )
    assert first.error is None
    second = Trained(noisy, 'resumed', max_skipped=2, resume='auto')
    assert second.skipped == []
    assert '2 such steps were skipped before (max_skipped=2)' in second.error


@pytest.mark.parametrize('kind', ['detached', 'gradient'])
def test_one_bad_part_of_accumulated_gradients(noisy, kind):
    # Updates are after iterations 2, 4 and 5, the last of all.
    options = {
        'optim_wrapper.accumulative_counts': 2,
        'train_cfg.max_epochs': 1,
        **STATEFUL,
        **poison_loss(kind, 3),
    }
    trained = Trained(
        noisy, f'parts_{kind}', max_skipped=1, poison=(), **options
    )
    assert trained.error is None
    # It left no trace, not even in gradients, ...
    assert trained.skipped == [3]
    assert list(trained.records()) == [3]
    # ... and its update is left out, but not what follows.
    updated = [
        step
        for step, changes in trained.comparison.changes.items()
        if any(x.startswith('.state.student.conv1.weight') for x in changes)
        and any(x.startswith('.optimizer') for x in changes)
    ]
    assert updated == [2, 5]

    stopped = Trained(noisy, f'part_{kind}', poison=(), **options)
    assert stopped.error.startswith('Iteration 3: ')
    assert stopped.changed_weights() == []


def test_an_update_that_is_to_be_left_out_survives_a_resume(noisy):
    def train(name, epochs, resume=None):
        return Trained(
            noisy,
            name,
            max_skipped=1,
            poison=(),
            resume=resume,
            **{
                # Updates after iterations 4, 8 and 10: the bad one, and the
                # end of an epoch, are within the second.
                'optim_wrapper.accumulative_counts': 4,
                'train_cfg.max_epochs': epochs,
                'param_scheduler': [],
                **poison_loss('detached', *([] if resume else [5])),
            },
        )

    straight = train('straight', 2)
    assert straight.skipped == [5]
    (noisy.root / 'straight/epoch_2.pth').unlink()
    path = noisy.root / 'straight/epoch_1.pth'
    resumed = train('resumed_within', 2, resume=str(path))
    assert resumed.skipped == []
    first, second = (
        run.witness.look(run.runner)['state'] for run in (straight, resumed)
    )
    assert differences(first, second) == []


class Small(nn.Module):
    """One weight whose gradient is what the test asks for."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def parse_losses(self, losses):
        return losses['loss'], losses


def small_runner(tmp_path, wrapper, model):
    return SimpleNamespace(
        model=model,
        optim_wrapper=wrapper,
        message_hub=MessageHub(f'small_{tmp_path.name}'),
        work_dir=str(tmp_path),
        iter=0,
        epoch=0,
    )


def scaled_wrapper(monkeypatch, model, device):
    """mmengine's wrapper with a real scaler, on whatever there is."""
    if device == 'cpu':
        module = 'mmengine.optim.optimizer.amp_optimizer_wrapper.'
        scaler = partial(torch.amp.GradScaler, 'cpu')
        monkeypatch.setattr(module + 'is_cuda_available', lambda: True)
        monkeypatch.setattr(module + 'GradScaler', scaler)
    return AmpOptimWrapper(
        optimizer=torch.optim.SGD(model.parameters(), lr=1.0),
        loss_scale=dict(init_scale=1024.0, growth_interval=1000),
    )


DEVICES = [
    'cpu',
    pytest.param(
        'cuda',
        marks=[
            pytest.mark.gpu,
            pytest.mark.skipif(
                not torch.cuda.is_available(), reason='needs CUDA'
            ),
        ],
    ),
]


@pytest.mark.parametrize('device', DEVICES)
def test_a_scaler_deals_with_its_own_overflows(tmp_path, monkeypatch, device):
    model = Small().to(device)
    wrapper = scaled_wrapper(monkeypatch, model, device)
    guard = NonFiniteGuardHook()
    runner = small_runner(tmp_path, wrapper, model)
    guard.before_train(runner)
    guard.before_train_iter(runner, 0)
    # Infinite by the scale alone.
    wrapper.update_params(1e36 * model.weight.sum())
    assert model.weight.item() == 1
    assert wrapper.loss_scaler.get_scale() == 512
    wrapper.update_params(0.5 * model.weight.sum())
    assert model.weight.item() == 0.5

    # A loss that is not finite is no matter of the scale.
    loss, _ = model.parse_losses(dict(loss=math.nan * model.weight.sum()))
    with pytest.raises(NonFiniteLossError, match='The loss is not finite'):
        wrapper.update_params(loss)
    assert model.weight.item() == 0.5
    assert wrapper.loss_scaler.get_scale() == 512


@pytest.mark.parametrize('device', DEVICES)
def test_a_scaler_that_cannot_help(tmp_path, monkeypatch, device):
    model = Small().to(device)
    wrapper = scaled_wrapper(monkeypatch, model, device)
    guard = NonFiniteGuardHook()
    guard.before_train(small_runner(tmp_path, wrapper, model))
    model.weight.register_hook(lambda grad: grad * math.nan)
    # From a scale of 1,024 down to one.
    for _ in range(10):
        wrapper.update_params(model.weight.sum())
    assert wrapper.loss_scaler.get_scale() == 1
    with pytest.raises(NonFiniteLossError, match='Gradients are not finite'):
        wrapper.update_params(model.weight.sum())
    assert model.weight.item() == 1


def plain(model):
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    return OptimWrapper(optimizer=optimizer)


def test_it_steps_aside_at_the_end(tmp_path):
    model = Small()
    wrapper = plain(model)

    def own_step(**kwargs):
        raise AssertionError

    # As that of a schedule, which counts steps.
    wrapper.step = own_step
    own_step._with_counter = True
    guard = NonFiniteGuardHook()
    runner = small_runner(tmp_path, wrapper, model)
    guard.before_train(runner)
    assert wrapper.step._with_counter and wrapper.step is not own_step
    guard.after_train(runner)
    assert wrapper.step is own_step
    assert 'update_params' not in vars(wrapper)
    assert 'parse_losses' not in vars(model)


def test_it_steps_aside_after_an_error(tmp_path):
    model = Small()
    wrapper = plain(model)
    guard = NonFiniteGuardHook()
    runner = small_runner(tmp_path, wrapper, model)
    # Another error ended a training that starts again: watched once.
    guard.before_train(runner)
    guard.before_train(runner)
    wrapper.update_params(0.25 * model.weight.sum())
    assert model.weight.item() == 0.75
    with pytest.raises(NonFiniteLossError):
        wrapper.update_params(math.inf * model.weight.sum())
    assert not {'step', 'update_params'} & set(vars(wrapper))
    assert 'parse_losses' not in vars(model)


def test_gradients_of_any_kind(tmp_path):
    class Odd(Small):
        def __init__(self):
            super().__init__()
            self.narrow = nn.Parameter(torch.ones(2, dtype=torch.bfloat16))
            self.empty = nn.Parameter(torch.ones(0))
            self.idle = nn.Parameter(torch.ones(1))
            self.table = nn.Embedding(4, 2, sparse=True)

    model = Odd()
    wrapper = plain(model)
    NonFiniteGuardHook().before_train(small_runner(tmp_path, wrapper, model))

    def loss(factor=1.0):
        rows = model.table(torch.tensor([1, 1]))
        return model.narrow.sum() + factor * rows.sum() + model.empty.sum()

    # Large, but finite: a norm by squares would not be.
    wrapper.update_params(loss() + 1e30 * model.weight.sum())
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(NonFiniteLossError):
        wrapper.update_params(loss(math.inf))
    assert differences(before, model.state_dict()) == []


def test_a_model_that_steps_by_itself(tmp_path):
    model = Small()
    wrapper = plain(model)
    NonFiniteGuardHook().before_train(small_runner(tmp_path, wrapper, model))
    wrapper.backward(0.5 * model.weight.sum())
    wrapper.step()
    wrapper.zero_grad()
    assert model.weight.item() == 0.5
    wrapper.backward(math.inf * model.weight.sum())
    with pytest.raises(NonFiniteLossError, match='Gradients are not finite'):
        wrapper.step()
    assert model.weight.item() == 0.5


def test_a_disk_that_is_full(tmp_path, monkeypatch):
    def refuse(path, text):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(
        'mmcmcd.engine.hooks.non_finite_guard_hook.write_text', refuse
    )
    model = Small()
    wrapper = plain(model)
    NonFiniteGuardHook().before_train(small_runner(tmp_path, wrapper, model))
    with pytest.raises(NonFiniteLossError, match=r'could not be .*No space'):
        wrapper.update_params(math.nan * model.weight.sum())


@pytest.mark.parametrize('value', [-1, 1.0, '2', True, None])
def test_how_many_is_checked(value):
    with pytest.raises(ConfigError, match='max_skipped must be an integer'):
        NonFiniteGuardHook(max_skipped=value)


def test_several_optimizers_are_refused(tmp_path):
    model = Small()
    wrapper = OptimWrapperDict(first=plain(model))
    with pytest.raises(ConfigError, match='run has OptimWrapperDict'):
        NonFiniteGuardHook().before_train(
            small_runner(tmp_path, wrapper, model)
        )


def test_other_models_are_guarded_too(tiny_run):
    """A stock segmentor, whose batch is a list of images."""
    config = str(tiny_run.seg_config)
    cfg = prepare_train_config(
        load_config(config),
        config,
        work_dir=str(tiny_run.work_dir),
        cfg_options={'model.backbone.init_cfg': None},
    )
    cfg.log_level = 'WARNING'
    runner = build_runner(cfg)

    class Poison(Hook):
        def before_train_iter(self, runner, batch_idx, data_batch=None):
            data_batch['inputs'][2][0, 0, 0] = math.inf
            self.path = data_batch['data_samples'][2].img_path

    poison = Poison()
    runner.register_hook(poison)
    with pytest.raises(NonFiniteLossError) as error:
        runner.train()
    assert f'1 samples are not finite: ({poison.path},' in str(error.value)
    assert 'decode.loss_ce=nan' in str(error.value)


def test_the_tool_says_it_in_one_line(tiny_run):
    (tiny_run.root / 'poison_parts.py').write_text(PARTS)
    config = tiny_run.root / 'poisoned.py'
    config.write_text(
        "_base_ = './tiny.py'\n"
        "custom_imports = dict(imports=['mmcmcd', 'poison_parts'])\n"
        'model = dict(losses=dict(poison=dict('
        "type='mmcmcd.PoisonLoss', kind='detached', calls=[3])))\n"
    )
    result = tiny_run.tool(
        'train.py',
        config,
        '--work-dir',
        tiny_run.work_dir,
        PYTHONPATH=str(tiny_run.root),
    )
    assert result.returncode == 2, result.stderr[-3000:]
    lines = [x for x in result.stderr.splitlines() if 'error: ' in x]
    assert len(lines) == 1
    assert lines[0].startswith('error: Iteration 3: The loss is not finite')
    assert 'Traceback' not in result.stderr
    assert (tiny_run.work_dir / 'non_finite_iter_3.json').is_file()


TWO = """
_base_ = './tiny.py'
custom_imports = dict(imports=['mmcmcd', 'poison_parts'])
train_dataloader = dict(batch_size=2)
optim_wrapper = dict(accumulative_counts={counts})
model = dict(
    queue=dict(type='mmcmcd.FeatureQueue', size=20, teacher_dim=64,
               student_dim=64),
    losses=dict(
        # Without any trace in the gradients of the other process.
        poison=dict(type='mmcmcd.PoisonLoss', kind='infinite', calls=[1],
                    rank=1),
        prototypes=dict(type='mmcmcd.PrototypeLoss', num_features=64,
                        num_prototypes=4)))
custom_hooks = [
    *_base_.custom_hooks,
    dict(type='mmcmcd.NonFiniteGuardHook', max_skipped={max_skipped}),
    dict(type='mmcmcd.SyncStatisticsHook'),
    {poison}
    dict(type='RankHook', root='{root}')]
"""


def train_two(run, max_skipped, counts=1, poison=''):
    (run.root / 'poison_parts.py').write_text(PARTS)
    config = run.root / 'two.py'
    config.write_text(
        TWO.format(
            root=run.root,
            max_skipped=max_skipped,
            counts=counts,
            poison=poison,
        )
    )
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port = str(probe.getsockname()[1])
    train = REPO / 'tools/dist_train.sh'
    return run_command(
        ['bash', train, config, '2', '--work-dir', run.work_dir],
        PORT=port,
        PYTHONPATH=str(run.root),
    )


@pytest.mark.parametrize('counts', [1, 2])
def test_two_processes_skip_together(tiny_run, counts):
    result = train_two(tiny_run, 4, counts, poison="dict(type='PoisonHook'),")
    assert result.returncode == 0, result.stderr[-3000:]
    ranks = [torch.load(tiny_run.root / f'rank{i}.pth') for i in (0, 1)]
    assert differences(*ranks) == []
    count = ranks[0]['count']
    # The loss of the first step; the pair is in that step or in another.
    assert count in (2, 3) and ranks[0]['iterations'] == 4
    state = ranks[0]['state']
    assert int(state['queue.written']) == 4 * (4 - count)
    for name, value in state.items():
        assert value.isfinite().all(), name
    records = [
        [json.loads(path.read_text()) for path in sorted(paths)]
        for paths in (
            tiny_run.work_dir.glob('non_finite_iter_*_rank_0.json'),
            tiny_run.work_dir.glob('non_finite_iter_*_rank_1.json'),
        )
    ]
    assert len(records[0]) == len(records[1]) == count
    for first, second in zip(*records, strict=True):
        assert first['iteration'] == second['iteration']
        ids = [
            sample['pair_id']
            for record in (first, second)
            for sample in record['samples']
        ]
        bad = [r for r in (first, second) if r['inputs_not_finite']]
        # Only one of them has seen the bad pair.
        assert len(bad) == (BAD_PAIR in ids)
        assert bad or first['iteration'] == 1


def test_two_processes_stop_together(tiny_run):
    result = train_two(tiny_run, max_skipped=0)
    assert result.returncode != 0
    lines = [x for x in result.stderr.splitlines() if 'error: ' in x]
    # The first process says what the second one met.
    (line,) = lines
    assert '[rank 1] Iteration 1: The loss is not finite' in line
    assert 'loss_poison=inf' in line
    assert len(list(tiny_run.work_dir.glob('non_finite_iter_1_*.json'))) == 2
    assert not list(tiny_run.root.glob('rank*.pth'))
