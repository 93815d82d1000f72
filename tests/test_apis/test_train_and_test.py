import uuid

import pytest
import torch
from mmengine.config import Config
from mmpretrain.models import ResNet, ResNetV1c

from mmcmcd.apis import (
    export_student,
    prepare_test_config,
    prepare_train_config,
    test_from_config,
    train_from_config,
)
from mmcmcd.errors import CheckpointError, ConfigError

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
    assert (cfg.resume, cfg.load_from) == (True, None)
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

    metrics = test_from_config(
        str(tiny_run.config), str(checkpoint), work_dir=str(tiny_run.work_dir)
    )
    assert 0 <= metrics['retrieval/R@5'] <= 100

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
    with pytest.raises(CheckpointError, match=r"'none\.pth' does not exist"):
        train(tiny_run, tiny_run.seg_config)


def test_missing_data_stop_before_anything_else(tiny_run):
    done = tiny_run.train(
        '--cfg-options', 'train_dataloader.dataset.data_root=/no/data'
    )
    assert done.returncode == 2
    assert done.stderr.count('error:') == 1
    assert "the data root '/no/data' does not exist" in done.stderr
    assert 'Traceback' not in done.stderr and 'mmengine' not in done.stdout
    assert not tiny_run.work_dir.exists()


def test_a_set_smaller_than_a_batch_is_named(tiny_run):
    done = tiny_run.train('--cfg-options', 'train_dataloader.batch_size=64')
    assert done.returncode == 2
    assert '8 samples, too few for one batch of 64' in done.stderr
    assert 'Traceback' not in done.stderr
