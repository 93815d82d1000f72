"""The teacher is the file that was named, and stays it to the last bit."""

import hashlib
import re
import socket

import pytest
import torch
from conftest import REPO, run_command
from mmengine.logging import MMLogger
from mmpretrain.models import ResNet

from mmcmcd.apis import load_config
from mmcmcd.apis.train import build_runner, prepare_train_config
from mmcmcd.models.utils import state_hash

STEPS = 500
# A step of these takes some milliseconds.
NET = dict(
    stem_channels=4,
    base_channels=4,
    num_stages=1,
    strides=(1,),
    dilations=(1,),
    out_indices=(0,),
)
SMALLEST = """
_base_ = './tiny.py'
_net = {net}
_crop = dict(type='mmcmcd.SharedGeometry',
             transforms=[dict(type='RandomCrop', crop_size=16)])
_pipeline = _base_.train_dataloader.dataset.pipeline
train_dataloader = dict(
    _delete_=True, batch_size={batch_size}, num_workers=0,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type='mmcmcd.PairedModalityDataset',
        data_root=_base_.train_dataloader.dataset.data_root,
        sides=_base_.train_dataloader.dataset.sides,
        pipeline=[*_pipeline[:2], _crop, _pipeline[-1]]))
train_cfg = dict(
    _delete_=True, type='IterBasedTrainLoop', max_iters={steps},
    val_interval={steps})
# What would move a teacher that takes part, and soon.
optim_wrapper = dict(optimizer=dict(lr=0.1, weight_decay=0.1))
model = dict(
    teacher=_net, student=_net,
    # Its statistics would follow the batches.
    queue=dict(type='mmcmcd.FeatureQueue', size=16, teacher_dim=4,
               student_dim=4),
    momentum_student=dict(type='ExponentialMovingAverage', momentum=0.1))
default_hooks = dict(
    checkpoint=dict(by_epoch=False, interval={steps}),
    logger=dict(interval=100))
custom_hooks = [
    dict(type='mmcmcd.TeacherFrozenHook'),
    dict(type='mmcmcd.SyncStatisticsHook')]
"""


@pytest.fixture
def small_run(tiny_run):
    """Its teacher's file holds a head, too."""
    torch.manual_seed(1)
    net = ResNet(18, **NET)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-1, 1)
            module.running_var.uniform_(0.5, 2)
    state = {f'backbone.{k}': v for k, v in net.state_dict().items()}
    state['head.fc.weight'] = torch.zeros(3, 4)
    torch.save(dict(state_dict=state), tiny_run.teacher)
    tiny_run.weights = net.state_dict()
    tiny_run.config = tiny_run.root / 'smallest.py'
    return tiny_run


def write(run, **values):
    run.config.write_text(SMALLEST.format(net=NET, **values))


def check(run, teacher_hash, log):
    """It is what the file holds, and the log says which file that is."""
    stored = torch.load(run.teacher)['state_dict']
    prefix = 'backbone.'
    for name, value in run.weights.items():
        assert torch.equal(stored[prefix + name], value)
    named = torch.nn.ModuleDict()
    named['teacher'] = ResNet(18, **NET)
    named['teacher'].load_state_dict(run.weights)
    assert teacher_hash == state_hash(named)
    sha256 = hashlib.sha256(run.teacher.read_bytes()).hexdigest()
    number = len(run.weights)
    assert (
        f'teacher: {number} of {number} tensors from {run.teacher} under '
        f"prefix 'backbone.' (sha256 {sha256}). 1 of its {number + 1} keys "
        'were left out (head.fc.weight).'
    ) in log
    path = (run.work_dir / 'last_checkpoint').read_text()
    checkpoint = torch.load(path, weights_only=False)
    assert checkpoint['meta']['teacher_sha256'] == teacher_hash
    assert not [k for k in checkpoint['state_dict'] if 'teacher.' in k]


@pytest.mark.parametrize('amp', [False, True], ids=['float32', 'bfloat16'])
def test_many_steps_leave_it_as_it_is(small_run, amp):
    write(small_run, batch_size=4, steps=STEPS)
    config = str(small_run.config)
    cfg = prepare_train_config(
        load_config(config),
        config,
        work_dir=str(small_run.work_dir),
        amp=amp,
    )
    cfg.experiment_name = f'{small_run.root.name}_{amp}'
    runner = build_runner(cfg)
    student = state_hash(runner.model.student)
    runner.train()
    assert runner.iter == STEPS
    assert state_hash(runner.model.student) != student
    for handler in MMLogger.get_current_instance().handlers:
        handler.flush()
    (log,) = small_run.work_dir.glob('*/*.log')
    check(small_run, runner.model.teacher.state_hash(), log.read_text())


def test_two_processes_leave_it_as_it_is(small_run):
    write(small_run, batch_size=2, steps=STEPS)
    (small_run.root / 'last_hash.py').write_text(
        'from mmengine.dist import get_rank\n'
        'from mmengine.hooks import Hook\n'
        'from mmengine.registry import HOOKS\n'
        '@HOOKS.register_module()\n'
        'class LastHash(Hook):\n'
        '    def after_train(self, runner):\n'
        '        text = runner.model.module.teacher.state_hash()\n'
        "        print(f'rank {get_rank()} after {runner.iter}: {text}',\n"
        '              flush=True)\n'
    )
    with small_run.config.open('a') as file:
        file.write("custom_hooks.append(dict(type='LastHash'))\n")
        file.write("custom_imports = dict(imports=['mmcmcd', 'last_hash'])\n")
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port = str(probe.getsockname()[1])
    train = REPO / 'tools/dist_train.sh'
    result = run_command(
        ['bash', train, small_run.config, '2', '--work-dir',
         small_run.work_dir],
        PORT=port,
        PYTHONPATH=str(small_run.root),
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-3000:]
    hashes = re.findall(
        rf'rank [01] after {STEPS}: ([0-9a-f]{{64}})', result.stdout
    )
    assert len(hashes) == 2 and hashes[0] == hashes[1]
    check(small_run, hashes[0], result.stdout)
