"""Tools and APIs that are given hostile checkpoints: nothing of them runs."""

import runpy
import sys
from types import SimpleNamespace

import pytest
import torch
from conftest import REPO, TinyRun
from hostile import (
    Custom,
    called,
    code,
    with_stored_code,
    write_pickles,
)
from mmengine.config import Config
from mmengine.infer import BaseInferencer
from mmengine.logging import HistoryBuffer, MessageHub, MMLogger
from mmengine.registry import DefaultScope
from mmengine.runner import Runner, load_checkpoint
from mmengine.visualization import Visualizer
from mmpretrain.models import ResNet

from mmcmcd.checkpoints import TRUSTED_VARIABLE, UnsafeCheckpointError

STUDENT = 'model.student.init_cfg'


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """A run of one epoch, whose checkpoint the tests spoil."""
    run = TinyRun(tmp_path_factory.mktemp('run'))
    done = run.train('--cfg-options', 'train_cfg.max_epochs=1')
    assert done.returncode == 0, done.stderr
    return run


@pytest.fixture
def marker(tmp_path):
    return tmp_path / 'marker'


@pytest.fixture
def tool(monkeypatch, capfd):
    """Run a tool in this process; return its status and what it printed."""
    monkeypatch.setenv(TRUSTED_VARIABLE, '')

    def run(name, *args):
        script = str(REPO / 'tools' / name)
        monkeypatch.setattr(sys, 'argv', [script, *map(str, args)])
        # Two runs of one second would have one name, and share these.
        for shared in (DefaultScope, MessageHub, MMLogger, Visualizer):
            shared._instance_dict.clear()
        with pytest.raises(SystemExit) as left:
            runpy.run_path(script, run_name='__main__')
        return left.value.code, *capfd.readouterr()

    return run


def refused(result, file):
    status, _, stderr = result
    errors = [x for x in stderr.splitlines() if x.startswith('error: ')]
    assert status == 2
    assert 'Traceback' not in stderr
    (line,) = errors
    assert line.startswith(f"error: checkpoint '{file}' is refused")
    return True


WAYS = dict(
    resume=lambda run, file: (
        'train.py', run.config, '--work-dir', run.work_dir, '--resume', file),
    load_from=lambda run, file: (
        'train.py', run.config, '--work-dir', run.work_dir,
        '--cfg-options', f'load_from={file}'),
    teacher=lambda run, file: (
        'train.py', run.config, '--work-dir', run.work_dir,
        '--cfg-options', f'model.teacher.init_cfg.checkpoint={file}'),
    student=lambda run, file: (
        'train.py', run.config, '--work-dir', run.work_dir, '--cfg-options',
        f'{STUDENT}.type=Pretrained', f'{STUDENT}.checkpoint={file}'),
    test=lambda run, file: (
        'test.py', run.config, file, '--work-dir', run.work_dir),
    export=lambda run, file: (
        'model_converters/export_student.py', file, run.root / 'out.pth'),
)  # fmt: skip


@pytest.mark.parametrize('way', WAYS)
def test_tools_refuse_programs(way, tiny_run, tool, marker):
    file = write_pickles(tiny_run.root, marker, {})['zip']
    assert refused(tool(*WAYS[way](tiny_run, file)), file)
    assert not marker.exists()


@pytest.mark.parametrize('text', [code, called])
def test_resume_runs_no_stored_code(text, trained, tool, marker, tmp_path):
    content = torch.load(trained.work_dir / 'epoch_1.pth', weights_only=False)
    assert isinstance(
        next(iter(content['message_hub']['log_scalars'].values())),
        HistoryBuffer,
    )
    content['meta'].update(config=text(marker), cfg=text(marker))
    content['message_hub']['runtime_info']['cfg'] = text(marker)
    file = tmp_path / 'spoilt.pth'
    torch.save(content, file)
    status, stdout, stderr = tool(
        'train.py',
        trained.config,
        '--work-dir',
        tmp_path / 'work',
        '--resume',
        file,
    )
    assert not status, stderr
    assert 'resumed epoch: 1' in stdout + stderr
    assert 'is no plain config' in stdout + stderr
    assert (tmp_path / 'work' / 'epoch_2.pth').exists()
    assert not marker.exists()


def test_other_tools_run_no_stored_code(trained, tool, marker, tmp_path):
    content = torch.load(trained.work_dir / 'epoch_1.pth', weights_only=False)
    spoilt = with_stored_code(content['state_dict'], marker)
    file = tmp_path / 'spoilt.pth'
    torch.save(spoilt, file)
    for result in (
        tool(*WAYS['test'](trained, file)),
        tool(*WAYS['export'](trained, file)),
    ):
        assert not result[0], result[2]
    assert not marker.exists()


def test_named_file_is_trusted(trained, tool, tmp_path, marker):
    content = torch.load(trained.work_dir / 'epoch_1.pth', weights_only=False)
    content['meta']['mine'] = Custom()
    file = tmp_path / 'mine.pth'
    torch.save(content, file)
    command = WAYS['resume'](trained, file)
    assert refused(tool(*command), file)
    assert refused(tool(*command, '--trust-checkpoint', 'other.pth'), file)
    status, stdout, stderr = tool(
        *command,
        '--trust-checkpoint',
        'other.pth',
        '--trust-checkpoint',
        file,
    )
    assert not status, stderr
    assert 'hostile.Custom' in stdout + stderr
    assert 'was named as trusted' in stdout + stderr


def test_flag_of_every_tool_that_reads_checkpoints(tool):
    found = 0
    for path in sorted((REPO / 'tools').rglob('*.py')):
        if 'add_trust_flag(parser)' in path.read_text():
            found += 1
            status, stdout, _ = tool(path.relative_to(REPO / 'tools'), '-h')
            assert status == 0
            assert '--trust-checkpoint FILE' in stdout
    assert found == 11


def test_apis_of_the_stack_refuse_programs(tiny_run, marker):
    file = str(write_pickles(tiny_run.root, marker, {})['legacy'])
    model = ResNet(18, stem_channels=8, base_channels=8)
    runner = Runner(torch.nn.Linear(1, 1), work_dir=str(tiny_run.work_dir))

    def init_cfg():
        model.init_cfg = dict(type='Pretrained', checkpoint=file)
        model.init_weights()

    def classifier():
        from mmpretrain import get_model

        get_model('resnet18_8xb16_cifar10', pretrained=file)

    def segmentor():
        apis = pytest.importorskip('mmseg.apis')
        apis.init_model(str(tiny_run.seg_config), file, device='cpu')

    for way in (
        lambda: runner.load_checkpoint(file),
        lambda: load_checkpoint(model, file),
        init_cfg,
        classifier,
        segmentor,
    ):
        with pytest.raises(UnsafeCheckpointError, match='posix.system'):
            way()
    assert not marker.exists()


def build_from(file):
    """As stock inferencers do that get weights and no config."""
    inferencer = SimpleNamespace(
        _load_weights_to_model=lambda model, content, _: model.load_state_dict(
            content['state_dict']
        )
    )
    return BaseInferencer._init_model(inferencer, Config(), str(file))


@pytest.mark.parametrize('text', [code, called])
def test_inferencer_builds_nothing_from_code(text, marker, tmp_path):
    file = tmp_path / 'a.pth'
    torch.save(with_stored_code({}, marker, text), file)
    with pytest.raises(ValueError, match='Cannot find the config'):
        build_from(file)
    assert not marker.exists()


def test_inferencer_builds_what_is_plain(tmp_path):
    file = tmp_path / 'a.pth'
    text = "model = dict(type='mmpretrain.ResNet', depth=18)\n"
    state = ResNet(18).state_dict()
    torch.save(with_stored_code(state, None, lambda _: text), file)
    weight = build_from(file).conv1.weight
    assert torch.equal(weight, state['conv1.weight'])


@pytest.mark.parametrize(
    'value',
    [
        "__import__('os').system('touch {}')",
        "[__import__('os').system('touch {}')]",
        "(__import__('os').system('touch {}'),1)",
        "{{'a':__import__('os').system('touch {}')}}",
        "'+__import__('os').system('touch {}')+'",
        '$(touch {})',
    ],
)
def test_options_are_literals(value, tiny_run, tool, marker):
    status, stdout, stderr = tool(
        'misc/print_config.py',
        tiny_run.config,
        '--cfg-options',
        f'extra={value.format(marker)}',
        'more=[1,(2,none)]',
    )
    assert not status, stderr
    assert not marker.exists()
    assert 'touch' in stdout
