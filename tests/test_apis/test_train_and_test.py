import logging
import uuid
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.model import BaseModel, PretrainedInit
from mmpretrain.models import ResNet, ResNetV1c
from mmseg.models import SegTTAModel
from torch import nn, zeros

from mmcmcd.apis import (
    export_student,
    prepare_test_config,
    prepare_train_config,
    test_from_config,
    train_from_config,
)
from mmcmcd.apis.test import require_fit
from mmcmcd.apis.train import (
    _require_outputs,
    require_data_roots,
    require_pretrained_files,
)
from mmcmcd.datasets import PairedModalityDataset
from mmcmcd.errors import CheckpointError, ConfigError, DatasetError

SMALL = dict(stem_channels=8, base_channels=8)


def train(run, config=None, **options):
    """Train in this process, under a name of its own."""
    cfg_options = {
        'experiment_name': uuid.uuid4().hex,
        **options.pop('cfg_options', {}),
    }
    return train_from_config(
        str(config or run.config),
        work_dir=str(run.work_dir),
        cfg_options=cfg_options,
        **options,
    )


def prepare(cfg, **options):
    return prepare_train_config(Config(cfg), 'a/b/name.py', **options)


def loader(**kwargs):
    return dict(dataset=dict(type='X', pipeline=[]), **kwargs)


# Options


def test_work_dir_in_order_of_rank():
    assert prepare({}).work_dir == 'work_dirs/name'
    assert prepare(dict(work_dir='cfg')).work_dir == 'cfg'
    options = dict(cfg_options=dict(work_dir='opt'))
    assert prepare(dict(work_dir='cfg'), **options).work_dir == 'opt'
    assert prepare({}, work_dir='cli', **options).work_dir == 'cli'


@pytest.mark.parametrize(
    ('given', 'options', 'expected'),
    [
        (dict(num_workers=2), {}, True),
        (dict(num_workers=0), {}, False),
        ({}, {}, False),
        (dict(num_workers=0, persistent_workers=True), {}, False),
        (dict(num_workers=2, persistent_workers=False), {}, False),
        (dict(num_workers=2), dict(persistent_workers=False), False),
    ],
)
def test_persistent_workers_only_where_there_are_workers(
    given, options, expected
):
    cfg = prepare(dict(train_dataloader=loader(**given)), **options)
    assert cfg.train_dataloader.persistent_workers is expected


def test_default_collate_for_mmpretrain_only():
    for scope, expected in (
        ('mmpretrain', 'default_collate'),
        ('mmseg', None),
    ):
        cfg = dict(default_scope=scope, val_dataloader=loader())
        collate = prepare(cfg).val_dataloader.get('collate_fn')
        assert (collate and collate.type) == expected


def test_amp_by_device(monkeypatch):
    wrapper = dict(type='OptimWrapper', loss_scale='dynamic')
    for cuda, expected in (
        (True, dict(type='AmpOptimWrapper', loss_scale='dynamic')),
        (False, dict(type='mmcmcd.CPUAmpOptimWrapper')),
    ):
        monkeypatch.setattr(torch.cuda, 'is_available', lambda c=cuda: c)
        cfg = prepare(dict(optim_wrapper=dict(wrapper)), amp=True)
        assert cfg.optim_wrapper.to_dict() == expected


def test_resume(tmp_path):
    cfg = prepare(dict(load_from='x.pth'), resume='auto')
    # A job that may be the first one asks for it, too.
    assert (cfg.resume, cfg.load_from) == (False, 'x.pth')
    path = tmp_path / 'epoch_1.pth'
    path.touch()
    cfg = prepare({}, resume=str(path))
    assert (cfg.resume, cfg.load_from) == (True, str(path))
    with pytest.raises(CheckpointError, match="'none.pth' does not exist"):
        prepare({}, resume='none.pth')


def test_auto_scale_lr_needs_a_base():
    assert prepare(
        dict(auto_scale_lr=dict(base_batch_size=8)), auto_scale_lr=True
    ).auto_scale_lr.enable
    with pytest.raises(ConfigError, match='base_batch_size'):
        prepare({}, auto_scale_lr=True)


def test_no_validate():
    given = dict(
        val_cfg={}, val_dataloader=loader(), val_evaluator=dict(type='X')
    )
    cfg = prepare(given, no_validate=True)
    assert cfg.val_cfg is cfg.val_dataloader is cfg.val_evaluator is None


def prepare_test(cfg, checkpoint, **options):
    return prepare_test_config(Config(cfg), 'n.py', str(checkpoint), **options)


def test_faults_of_test_options(tmp_path):
    path = tmp_path / 'x.pth'
    path.touch()
    full = dict(test_dataloader=loader())
    with pytest.raises(ConfigError, match='has no test_dataloader'):
        prepare_test({}, path)
    with pytest.raises(CheckpointError, match="'none.pth' does not exist"):
        prepare_test(full, 'none.pth')
    with pytest.raises(ConfigError, match='visualization'):
        prepare_test(full, path, show_dir='x')
    with pytest.raises(ConfigError, match='tta_model and tta_pipeline'):
        prepare_test(full, path, tta=True)
    with pytest.raises(ConfigError, match='--out-item needs --out'):
        test_from_config('n.py', str(path), out_item='pred')


def test_options_of_a_segmentation_test(tmp_path):
    path = tmp_path / 'x.pth'
    path.touch()
    cfg = prepare_test(
        dict(
            default_scope='mmseg',
            test_cfg=dict(type='TestLoop'),
            test_dataloader=loader(),
            default_hooks=dict(visualization=dict(type='X')),
            visualizer=dict(type='Y'),
            model=dict(type='M'),
            tta_model=dict(type='SegTTAModel'),
            tta_pipeline=[dict(type='T')],
        ),
        path,
        amp=True,
        show_dir='painted',
        tta=True,
    )
    assert cfg.load_from == str(path)
    assert cfg.test_cfg.fp16
    assert cfg.default_hooks.visualization.draw
    assert cfg.visualizer.save_dir == 'painted'
    assert cfg.model.type == 'SegTTAModel'
    assert cfg.model.module.type == 'M'
    assert cfg.test_dataloader.dataset.pipeline[0].type == 'T'


# Runs


def test_distil_in_bfloat16_then_segment_and_test(tiny_run):
    runner = train(
        tiny_run,
        amp=True,
        no_validate=True,
        cfg_options={'train_cfg.max_epochs': 1},
    )
    student = (tiny_run.work_dir / 'last_student').read_text()
    exported = torch.load(student, weights_only=True)
    assert exported['meta']['student']['in_channels'] == 1
    assert exported['meta']['data_preprocessor']['mean'] == [2.0]
    for key, value in runner.model.student.state_dict().items():
        assert torch.equal(exported['state_dict'][f'backbone.{key}'], value)
    checkpoint = tiny_run.work_dir / 'epoch_1.pth'
    again = export_student(str(checkpoint), tiny_run.root / 'again.pth')
    again = torch.load(again, weights_only=True)
    assert again['meta'].keys() == exported['meta'].keys()

    def test(path):
        return test_from_config(
            str(tiny_run.config),
            str(path),
            work_dir=str(tiny_run.work_dir),
            cfg_options=dict(experiment_name=uuid.uuid4().hex),
        )

    metrics = test(checkpoint)
    assert 0 <= metrics['retrieval/target2source_R@5'] <= 100
    with pytest.raises(CheckpointError) as caught:
        test(student)
    message = str(caught.value)
    assert message.startswith(f"tested checkpoint '{student}' does not fit")
    assert 'CrossModalDistiller: 100 of 120 tensors are missing' in message
    assert 'epoch_*.pth' in message

    runner = train(
        tiny_run,
        tiny_run.seg_config,
        cfg_options={
            'model.backbone.init_cfg.checkpoint': student,
            'optim_wrapper.optimizer.lr': 0.0,
        },
    )
    stem = 'backbone.conv1.weight'
    assert torch.equal(
        runner.model.state_dict()[stem], exported['state_dict'][stem]
    )
    maps = tiny_run.root / 'maps'
    metrics = test_from_config(
        str(tiny_run.seg_config),
        str(tiny_run.work_dir / 'iter_2.pth'),
        work_dir=str(tiny_run.work_dir),
        out=str(maps),
        cfg_options=dict(experiment_name=uuid.uuid4().hex),
    )
    assert 0 < metrics['mIoU'] < 100
    assert len(list(maps.glob('*.png'))) == 8


# Faulty checkpoints


def rewrite(path, change):
    state = torch.load(path)['state_dict']
    torch.save(dict(state_dict=change(state)), path)


def without_layer4(state):
    return {k: v for k, v in state.items() if 'layer4' not in k}


def of_another_network(_):
    net = ResNet(34, **SMALL)
    return {f'backbone.{k}': v for k, v in net.state_dict().items()}


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda s: {f'x.{k}': v for k, v in s.items()}, "prefix='x.backbone."),
        (without_layer4, r'missing in the file \(layer4.*is partial'),
        (of_another_network, 'unknown to the network'),
    ],
)
def test_teacher_that_does_not_fit(tiny_run, change, message):
    rewrite(tiny_run.teacher, change)
    with pytest.raises(CheckpointError, match=message) as caught:
        train(tiny_run)
    assert 'teacher checkpoint' in str(caught.value)


@pytest.mark.parametrize(
    ('student', 'message'),
    [
        (ResNetV1c(depth=18, in_channels=1, **SMALL), 'file has a deep stem'),
        (ResNet(18, in_channels=3, **SMALL), 'file takes 3 input channels'),
        (ResNet(34, in_channels=1, **SMALL), 'unknown to the network'),
    ],
)
def test_student_of_another_stem_or_depth(tiny_run, student, message):
    path = str(tiny_run.root / 'student.pth')
    state = {f'backbone.{k}': v for k, v in student.state_dict().items()}
    torch.save(dict(state_dict=state), path)
    options = {'model.backbone.init_cfg.checkpoint': path}
    with pytest.raises(CheckpointError, match=message) as caught:
        train(tiny_run, tiny_run.seg_config, cfg_options=options)
    assert 'backbone: pretrained checkpoint' in str(caught.value)


def test_student_file_that_is_missing(tiny_run):
    done = tiny_run.tool('train.py', tiny_run.seg_config)
    assert done.returncode == 2
    lines = [x for x in done.stderr.splitlines() if 'error: ' in x]
    assert len(lines) == 1
    assert lines[0].startswith(
        "error: backbone: pretrained checkpoint 'none.pth' does not exist."
    )
    assert 'model.backbone.init_cfg.checkpoint=FILE' in lines[0]
    assert 'model.backbone.init_cfg=None' in lines[0]
    # Before the runner and its log.
    assert 'mmengine' not in done.stdout


def test_pretrained_files_are_looked_for_everywhere(tmp_path):
    def require(checkpoint, wrap=lambda init_cfg: init_cfg):
        init_cfg = dict(type='Pretrained', checkpoint=checkpoint)
        part = dict(type='A', init_cfg=wrap(init_cfg))
        model = dict(type='B', parts=[dict(type='C'), part])
        require_pretrained_files(Config(dict(model=model)))

    there = tmp_path / 'x.pth'
    there.touch()
    for name in (str(there), 'torchvision://resnet50', None):
        require(name)
    require('none.pth', lambda _: dict(type='Constant', val=0))
    require_pretrained_files(Config({}))
    for wrap in (
        lambda init_cfg: init_cfg,
        lambda init_cfg: [dict(type='Constant', val=0), init_cfg],
        lambda init_cfg: dict(init_cfg, type=PretrainedInit),
    ):
        with pytest.raises(
            CheckpointError, match=r'model\.parts\.1\.init_cfg\.checkpoint='
        ):
            require('none.pth', wrap)
    with pytest.raises(CheckpointError, match='^teacher_projector checkpoint'):
        require_pretrained_files(
            Config(
                dict(
                    model=dict(
                        teacher_projector=dict(
                            init_cfg=dict(type='Pretrained', checkpoint='n')
                        )
                    )
                )
            )
        )


@pytest.mark.parametrize('wrap', [nn.Module, SegTTAModel])
def test_tested_checkpoint_must_be_the_whole_model(tmp_path, wrap):
    class Net(BaseModel):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(2, 2)
            self.data_preprocessor.register_buffer('mean', torch.zeros(1))

        def forward(self, *args, **kwargs):
            raise NotImplementedError

    path = str(tmp_path / 'x.pth')

    def fit(change=(), **content):
        net = Net()
        state = {**net.state_dict(), **dict(change)}
        state = {k: v for k, v in state.items() if v is not None}
        torch.save(dict(state_dict=state, **content), path)
        require_fit(net if wrap is nn.Module else wrap(module=net), path)

    fit(ema_state_dict={})
    fit({'data_preprocessor.mean': None, 'data_preprocessor.std': zeros(1)})
    for change, message in (
        ({'head.bias': None}, r'1 of 3 tensors are missing .*head\.bias'),
        ({'neck.bias': zeros(1)}, r'1 in the file unknown .*neck\.bias'),
        ({'head.bias': zeros(3)}, r'1 of another shape .*head\.bias'),
    ):
        with pytest.raises(CheckpointError, match=message):
            fit(change)
    torch.save(dict(model=Net().state_dict()), path)
    with pytest.raises(CheckpointError, match='holds no weights'):
        require_fit(Net(), path)


def test_resume_with_another_teacher(tiny_run):
    once = dict(no_validate=True)
    train(tiny_run, cfg_options={'train_cfg.max_epochs': 1}, **once)
    train(tiny_run, resume='auto', **once)
    rewrite(tiny_run.teacher, lambda s: {k: v + 1 for k, v in s.items()})
    last = (tiny_run.work_dir / 'last_checkpoint').read_text()
    with pytest.raises(CheckpointError, match='to test had another teacher'):
        test_from_config(
            str(tiny_run.config), last, work_dir=str(tiny_run.work_dir)
        )
    with pytest.raises(CheckpointError, match='had another teacher') as caught:
        train(
            tiny_run,
            resume='auto',
            cfg_options={'train_cfg.max_epochs': 3},
            **once,
        )
    assert str(tiny_run.teacher) in str(caught.value)


def test_averaged_student_is_that_of_the_last_checkpoint(tiny_run):
    config = tiny_run.root / 'ema.py'
    config.write_text(
        "_base_ = './tiny.py'\n"
        'custom_hooks = [*_base_.custom_hooks, '
        "dict(type='mmengine.EMAHook', momentum=0.5)]\n"
    )
    runner = train(tiny_run, config, no_validate=True)
    student = (tiny_run.work_dir / 'last_student').read_text()
    exported = torch.load(student)['state_dict']
    last = (tiny_run.work_dir / 'last_checkpoint').read_text()
    saved = torch.load(last, weights_only=False)['state_dict']
    for key, value in exported.items():
        assert torch.equal(value, saved['student' + key[len('backbone') :]])
    raw = runner.model.student.conv1.weight
    assert not torch.equal(exported['backbone.conv1.weight'], raw)


def test_missing_data_stop_before_anything_else(tiny_run):
    done = tiny_run.train(
        '--cfg-options', 'train_dataloader.dataset.data_root=/no/data'
    )
    assert done.returncode == 2
    assert done.stderr.count('error:') == 1
    assert "the data root '/no/data' does not exist" in done.stderr
    assert 'Traceback' not in done.stderr and 'mmengine' not in done.stdout
    assert not tiny_run.work_dir.exists()


@pytest.mark.parametrize(
    'kind', [PairedModalityDataset, 'mmcmcd.PairedModalityDataset']
)
def test_data_sets_named_by_class(kind):
    dataset = dict(type=kind, data_root='/no/data')
    cfg = Config(dict(train_dataloader=dict(dataset=dataset)))
    with pytest.raises(DatasetError, match=r"^PairedModal.*'/no/data' does"):
        require_data_roots(cfg)


def test_data_sets_without_howto_are_left_alone():
    for kind in (torch.utils.data.TensorDataset, 'mmpretrain.CIFAR10', 'No'):
        dataset = dict(type=kind, data_root='/no/data')
        cfg = Config(dict(train_dataloader=dict(dataset=dataset)))
        require_data_roots(cfg)


def test_infinite_sampler_fills_a_batch_from_a_small_set(tiny_run):
    runner = train(
        tiny_run,
        tiny_run.seg_config,
        cfg_options={
            'model.backbone.init_cfg': None,
            'train_dataloader.batch_size': 12,
            'train_dataloader.drop_last': True,
            'train_cfg.max_iters': 1,
        },
    )
    assert len(runner.train_dataloader) == 0
    assert runner.iter == 1


def test_no_training_loop_is_left_to_mmengine(tiny_run):
    with pytest.raises(RuntimeError, match='train_loop` should not be None'):
        train(
            tiny_run,
            cfg_options=dict(
                train_cfg=None, train_dataloader=None, optim_wrapper=None
            ),
        )


def test_a_set_smaller_than_a_batch_is_named(tiny_run):
    done = tiny_run.train('--cfg-options', 'train_dataloader.batch_size=64')
    assert done.returncode == 2
    assert '8 samples, too few for one batch of 64' in done.stderr
    assert 'Traceback' not in done.stderr


class Loop:
    """As much of a loop, and of its data, as the classes are read from."""

    def __init__(self, num_classes=None):
        classes = num_classes and [str(i) for i in range(num_classes)]
        dataset = SimpleNamespace(metainfo=dict(classes=classes))
        self.dataloader = SimpleNamespace(dataset=dataset)


def require_outputs(train, val=None, outputs=3, wrap=False):
    model = nn.Module()
    model.head = nn.Module()
    if outputs is not None:
        model.head.num_classes = outputs
    if wrap:
        model = nn.DataParallel(model)
    _require_outputs(
        SimpleNamespace(
            model=model,
            train_loop=Loop(train),
            val_loop=None if val is None else Loop(val),
        )
    )


@pytest.mark.parametrize('wrap', [False, True])
def test_classes_and_outputs(wrap, monkeypatch):
    said = []
    monkeypatch.setattr(
        'mmcmcd.apis.train.print_log',
        lambda message, **kwargs: said.append((message, kwargs['level'])),
    )
    for train, val in ((3, 3), (None, None), (None, 3)):
        require_outputs(train, val, wrap=wrap)
    require_outputs(9, 9, outputs=None, wrap=wrap)
    assert not said
    with pytest.raises(ConfigError, match='^The training set has 4 .* has 3'):
        require_outputs(4, wrap=wrap)
    with pytest.raises(ConfigError, match='^The validation set has 5 .* has'):
        require_outputs(3, 5, wrap=wrap)
    require_outputs(2, 1, wrap=wrap)
    ((message, level),) = said
    assert level == logging.WARNING
    assert message.startswith('The training set has 2 classes, fewer than')
