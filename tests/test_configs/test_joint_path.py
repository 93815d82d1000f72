"""Joint training on real data: one run, a stock model, stock metrics."""

import json
import os
from pathlib import Path

import pytest
import torch
from conftest import REPO
from mmengine.config import Config
from mmengine.registry import DATASETS

from mmcmcd.apis import test_from_config as run_test
from mmcmcd.apis import train_from_config
from mmcmcd.errors import ConfigError

NET = dict(depth=18, stem_channels=8, base_channels=8)
JOINT = REPO / 'configs/cmcd/depth_nyu_joint_tiny.py'
SEG = REPO / 'configs/downstream/depth_nyu_tiny_fcn_r18.py'
needs_data = pytest.mark.skipif(
    'MMCMCD_REALDATA' not in os.environ, reason='needs MMCMCD_REALDATA'
)


@pytest.mark.parametrize(
    ('joint', 'parts'),
    [
        ('depth_nyu_joint_tiny', 'depth_nyu_dense_tiny'),
        ('depth_nyu_joint', 'depth_nyu_dense'),
    ],
)
def test_it_is_the_dense_recipe_but_for_the_student(joint, parts):
    joint, parts = (
        Config.fromfile(REPO / f'configs/cmcd/{name}.py')
        for name in (joint, parts)
    )
    for key in ('teacher', 'losses', 'dense', 'source_norm'):
        assert joint.model[key] == parts.model[key]
    for key in ('optim_wrapper', 'param_scheduler', 'train_cfg'):
        assert joint[key] == parts[key]
    own, theirs = joint.model.student, parts.model
    for key in ('type', 'depth', 'in_channels', 'base_channels'):
        assert own.backbone.get(key) == theirs.student.get(key)
    target = theirs.data_preprocessor.target
    for key in ('mean', 'std'):
        assert own.data_preprocessor[key] == target[key]
    labelled, unlabelled = joint.train_dataloader.dataset.datasets
    assert unlabelled == parts.train_dataloader.dataset
    assert labelled.pipeline[1:] == unlabelled.pipeline
    crop = next(
        t.transforms[0]
        for t in unlabelled.pipeline
        if t.type == 'mmcmcd.SharedGeometry'
    )
    seen = next(
        t
        for t in joint.val_dataloader.dataset.pipeline
        if t.type == 'mmseg.Resize'
    )
    assert tuple(seen.scale) == tuple(crop.scale)[::-1]


def test_its_student_is_the_segmentor_of_step_3():
    joint, seg = (Config.fromfile(path) for path in (JOINT, SEG))
    student = joint.model.student.to_dict()
    expected = seg.model.to_dict()
    assert student.pop('type') == f'mmseg.{expected.pop("type")}'
    assert expected.pop('auxiliary_head') is None
    student, expected = _without_defaults(student), _without_defaults(expected)
    assert student == expected
    assert [
        {**t, 'type': t['type'].removeprefix('mmseg.')}
        for t in joint.val_dataloader.dataset.pipeline
    ] == seg.val_dataloader.dataset.pipeline


def _without_defaults(model):
    """Leave out what mmseg's ResNet has anyway."""
    defaults = dict(
        num_stages=4,
        out_indices=(0, 1, 2, 3),
        strides=(1, 2, 2, 2),
        dilations=(1, 1, 1, 1),
        style='pytorch',
        contract_dilation=True,
    )
    backbone = {
        key: value
        for key, value in model['backbone'].items()
        if key != 'init_cfg' and (key, value) not in defaults.items()
    }
    return {**model, 'backbone': backbone}


@pytest.fixture(scope='module')
def teacher(tmp_path_factory):
    from mmpretrain.models import ResNet

    path = tmp_path_factory.mktemp('teacher') / 'teacher.pth'
    net = ResNet(**NET)
    torch.save({f'backbone.{k}': v for k, v in net.state_dict().items()}, path)
    return str(path)


def within(place, options):
    return {f'{place}.{key}': value for key, value in options.items()}


def narrow(name, width):
    """Options of a dense comparison of maps of that width."""
    return {
        **within(
            f'model.dense.{name}.projector',
            dict(in_channels=width, out_channels=width),
        ),
        f'model.dense.{name}.source_norm.num_features': width,
    }


def small(teacher):
    """Options of a distillation that is quick."""
    return {
        'model.teacher.init_cfg.checkpoint': teacher,
        **within('model.teacher', NET),
        **within('model.student.backbone', NET),
        'model.source_norm.num_features': 64,
        'train_dataloader.batch_size': 8,
        'train_dataloader.sampler.batch_size': 8,
        'train_dataloader.num_workers': 0,
        'train_dataloader.dataset.datasets.0.indices': [0, 10, 20, 30, 40],
        'val_dataloader.num_workers': 0,
        'default_hooks.logger.interval': 1,
        'train_cfg.max_epochs': 1,
        'train_cfg.val_interval': 1,
    }


def train(config, work_dir, options):
    """Train, and return what was logged of the steps and of validation."""
    train_from_config(str(config), work_dir=str(work_dir), cfg_options=options)
    (scalars,) = work_dir.glob('*/vis_data/scalars.json')
    *steps, scores = map(json.loads, scalars.read_text().splitlines())
    return steps, scores


@needs_data
def test_one_run_gives_a_stock_segmentor(teacher, tmp_path):
    """Its own validation is what stock mmseg finds in the exported file."""
    head = dict(channels=16, in_channels=[16, 32, 64])
    steps, scores = train(
        JOINT,
        tmp_path,
        {
            **small(teacher),
            **within('model.student.decode_head', head),
            **narrow('dense_32', 64),
            **narrow('dense_16', 32),
            'train_dataloader.dataset.datasets.1.ann_file': 'few_20.txt',
            'val_dataloader.dataset.indices': 4,
        },
    )
    assert len(steps) == 3  # 7 of 20 a step
    for step in steps:
        assert step['task.labelled'] == 1
        assert {'loss_dense_32', 'loss_dense_16', 'task.decode.loss_ce'} < {
            *step
        }
    exported = Path((tmp_path / 'last_student').read_text().strip())
    meta = torch.load(exported, weights_only=True)['meta']
    assert meta['data_preprocessor']['mean'] == [0.28]
    stock = run_test(
        str(SEG),
        str(exported),
        work_dir=str(tmp_path / 'test'),
        cfg_options={
            **within('model.backbone', NET),
            **within('model.decode_head', head),
            'test_dataloader.num_workers': 0,
            'test_dataloader.dataset.indices': 4,
        },
    )
    assert stock['mIoU'] == pytest.approx(scores['mIoU'], abs=1e-6)


def test_a_labelled_set_without_maps(tiny_run):
    files = dict(suffix='.png')
    dataset = DATASETS.build(
        dict(
            type='mmcmcd.PairedModalityDataset',
            data_root=str(tiny_run.root / 'data'),
            sides=dict(
                source=dict(files, folder='rgb'),
                target=dict(files, folder='depth'),
            ),
            pipeline=[dict(type='mmseg.LoadAnnotations')],
        )
    )
    with pytest.raises(ConfigError, match=r"Pair '0'.*Set seg_map=dict"):
        dataset[0]


CLASSIFIER = """
_base_ = 'mmcmcd::cmcd/sketch_sketchy_tiny.py'
_pairs = _base_.train_dataloader.dataset
_known = ('source', 'target', 'sides', 'pair_id', 'group_id', 'group_index')
model = dict(
    type='mmcmcd.JointDistiller',
    data_preprocessor=dict(target=None),
    student=dict(
        _delete_=True,
        type='ImageClassifier',
        data_preprocessor=dict(mean=[245.], std=[40.]),
        backbone=dict(type='ResNet', depth=18, in_channels=1),
        neck=dict(type='GlobalAveragePooling'),
        head=dict(type='LinearClsHead', num_classes=75, in_channels=64)))
train_dataloader = dict(
    sampler=dict(
        type='mmcmcd.MultiSourceSampler', batch_size=64, source_ratio=(1, 7)),
    dataset=dict(
        _delete_=True,
        type='ConcatDataset',
        datasets=[
            _pairs,
            dict(_pairs, indices=40, pipeline=[
                dict(type='Collect', keys=_known), *_pairs.pipeline])]))
val_dataloader = dict(dataset=dict(
    _delete_=True,
    type='mmcmcd.SketchyImages',
    data_root=_pairs.data_root,
    split='test',
    pipeline=[
        dict(type='mmcmcd.LoadSketch'),
        dict(type='Resize', scale=(64, 64)),
        dict(type='PackInputs')]))
val_evaluator = dict(_delete_=True, type='Accuracy')
# Without the neighbours of pairs.
default_hooks = dict(_delete_=True, logger=dict(type='LoggerHook'))
"""


@needs_data
def test_a_classifier_learns_of_a_few_sketches(teacher, tmp_path):
    config = tmp_path / 'joint_sketch.py'
    config.write_text(CLASSIFIER)
    projector = dict(in_channels=64, hid_channels=64, out_channels=64)
    steps, scores = train(
        config,
        tmp_path / 'work',
        {**small(teacher), **within('model.student_projector', projector)},
    )
    assert len(steps) == 6  # 7 of 40 a step
    # The others know their class, too, but do not say it.
    assert all(step['task.labelled'] == 1 for step in steps)
    assert all(step['task.loss'] > 0 for step in steps)
    assert 0 <= scores['accuracy/top1'] <= 100
