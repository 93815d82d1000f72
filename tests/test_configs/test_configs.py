import os
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from mmengine.config import Config
from mmengine.registry import (
    DATASETS,
    HOOKS,
    MODELS,
    VISUALIZERS,
    DefaultScope,
)
from mmengine.utils import import_modules_from_strings
from mmpretrain.structures import DataSample

from mmcmcd.apis.safeguards import add_safeguards
from mmcmcd.engine import KNNHook
from mmcmcd.errors import UnreadableFileError
from mmcmcd.models.utils import state_hash
from mmcmcd.registry import METRICS

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = sorted(
    p
    for p in (ROOT / 'configs').glob('*/*.py')
    # Parts of configs, and experiment matrices.
    if p.parent.name not in ('_base_', 'evidence')
)
OWN_LINES = 62


@pytest.mark.parametrize('path', CONFIGS, ids=lambda p: p.stem)
def test_config_builds(path, tmp_path):
    """Model, data sets with their pipelines, metrics and hooks are known."""
    cfg = Config.fromfile(path)
    import_modules_from_strings(**cfg.custom_imports)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build(cfg.model)
        assert sum(p.numel() for p in model.parameters()) > 1e5
        for name in ('train', 'val', 'test'):
            loader = cfg.get(f'{name}_dataloader')
            if loader is None:
                continue
            for dataset in _members(loader.dataset):
                dataset = DATASETS.build(dict(dataset, lazy_init=True))
                assert len(dataset.pipeline.transforms) >= 3
            if name != 'train':
                metrics = cfg[f'{name}_evaluator']
                for metric in metrics if type(metrics) is list else [metrics]:
                    METRICS.build(metric)
        if 'visualizer' in cfg:
            # Hooks ask for the current one.
            place = dict(name=path.stem, save_dir=str(tmp_path))
            VISUALIZERS.build(dict(cfg.visualizer, **place))
        hooks = [*cfg.default_hooks.values(), *cfg.get('custom_hooks', [])]
        for hook in map(HOOKS.build, hooks):
            if isinstance(hook, KNNHook):
                (bank,) = _members(hook.bank_dataloader['dataset'])
                DATASETS.build(dict(bank, lazy_init=True))


def _members(dataset):
    """The data sets that wrappers were put around."""
    if 'datasets' in dataset:
        return [m for part in dataset.datasets for m in _members(part)]
    if 'dataset' in dataset:
        return _members(dataset.dataset)
    return [dataset]


@pytest.mark.parametrize('path', CONFIGS, ids=lambda p: p.stem)
def test_stock_scripts_run_with_the_safeguards_too(path):
    """What our own script would add is there already."""
    cfg = Config.fromfile(path)
    before = cfg.to_dict()
    add_safeguards(cfg)
    assert cfg.to_dict() == before


@pytest.mark.parametrize('path', CONFIGS, ids=lambda p: p.stem)
def test_schedules_end_with_training(path):
    cfg = Config.fromfile(path)
    end = cfg.train_cfg.get('max_epochs') or cfg.train_cfg.max_iters
    assert cfg.param_scheduler[-1]['end'] == end
    assert cfg.param_scheduler[0]['end'] == cfg.param_scheduler[1]['begin']


@pytest.mark.parametrize('path', CONFIGS, ids=lambda p: p.stem)
def test_config_says_little_of_its_own(path):
    assert len(path.read_text().splitlines()) <= OWN_LINES


def test_base_names_are_unique():
    """`mim` finds a config by its base name alone."""
    names = [p.name for p in CONFIGS]
    assert len(names) == len(set(names))


def test_every_listed_model_has_its_config():
    index = yaml.safe_load((ROOT / 'model-index.yml').read_text())
    for meta in index['Import']:
        listed = yaml.safe_load((ROOT / meta).read_text())
        collections = {c['Name'] for c in listed['Collections']}
        for model in listed['Models']:
            assert model['In Collection'] in collections
            assert Path(model['Config']).stem == model['Name']
            assert (ROOT / model['Config']).is_file()
            cfg = Config.fromfile(ROOT / model['Config'])
            meta = model['Metadata']
            assert meta['Batch Size'] == cfg.train_dataloader.batch_size
            assert meta['Epochs'] == cfg.train_cfg.max_epochs


def test_student_and_segmentor_agree():
    """What is distilled is what is fine-tuned: inputs and networks."""
    pairs = [
        ('cmcd/depth_nyu', 'downstream/depth_nyu_fcn_r50'),
        ('cmcd/depth_nyu', 'downstream/depth_nyu_deeplabv3plus_r50'),
        ('cmcd/depth_nyu_dense', 'downstream/depth_nyu_fcn_r50'),
        ('cmcd/depth_nyu_tiny', 'downstream/depth_nyu_tiny_fcn_r18'),
        ('cmcd/depth_nyu_dense_tiny', 'downstream/depth_nyu_tiny_fcn_r18'),
        ('demo/demo_cmcd_depth', 'demo/demo_seg_depth'),
    ]
    for distil, segment in pairs:
        distil, segment = (
            Config.fromfile(ROOT / f'configs/{n}.py')
            for n in (distil, segment)
        )
        student, backbone = distil.model.student, segment.model.backbone
        for key in ('type', 'depth', 'in_channels'):
            assert student[key] == backbone[key]
        ours = distil.model.data_preprocessor.target
        theirs = segment.model.data_preprocessor
        assert (ours.mean, ours.std) == (theirs.mean, theirs.std)
        loads = [
            _steps(c.train_dataloader.dataset.pipeline)
            for c in (distil, segment)
        ]
        for name in ('mmcmcd.LoadDepthFromFile', 'mmcmcd.NormalizeDepth'):
            assert loads[0][name] == loads[1][name]


@pytest.mark.parametrize(
    ('distil', 'names'),
    [
        (
            'cmcd/sketch_sketchy',
            [
                'sketchy_r50_ft',
                'sketchy_r50_le',
                'tuberlin_r50_ft',
                'tuberlin_r50_le',
            ],
        ),
        (
            'cmcd/sketch_sketchy_tiny',
            ['sketchy_tiny_r18_ft', 'sketchy_tiny_r18_le'],
        ),
    ],
)
def test_sketch_student_and_classifier_agree(distil, names):
    distil = Config.fromfile(ROOT / f'configs/{distil}.py')
    student = distil.model.student
    ours = distil.model.data_preprocessor.target
    for name in names:
        cfg = Config.fromfile(ROOT / f'configs/downstream/sketch_{name}.py')
        backbone = cfg.model.backbone
        for key in ('type', 'depth', 'in_channels', 'base_channels'):
            assert student.get(key) == backbone.get(key)
        theirs = cfg.model.data_preprocessor
        assert (ours.mean, ours.std) == (theirs.mean, theirs.std)
        assert theirs.num_classes == cfg.model.head.num_classes
        assert _size(distil.test_dataloader) == _size(cfg.test_dataloader)
        bank = cfg.default_hooks.knn.bank_dataloader.dataset
        assert bank.split == 'train' and bank.pipeline == (
            cfg.test_dataloader.dataset.pipeline
        )


def _size(loader):
    return re.search(
        r"'type': 'Resize', 'scale': (\(\d+, \d+\))",
        str(loader.dataset.pipeline),
    )[1]


@pytest.mark.parametrize(
    'name',
    [
        'sketch_sketchy_r50',
        'sketch_sketchy_tiny_r18',
        'sketch_tuberlin_r50',
        'photo_sketchy_r50',
        'photo_sketchy_tiny_r18',
    ],
)
def test_linear_evaluation_leaves_the_backbone_alone(name):
    """Neither weights nor running statistics change, whatever the mode."""
    path = ROOT / f'configs/downstream/{name}_le.py'
    cfg = Config.fromfile(path)
    cfg.model.backbone.update(
        depth=18, stem_channels=8, base_channels=8, init_cfg=None
    )
    cfg.model.head.in_channels = 64
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build(cfg.model)
    before = state_hash(model.backbone)
    model.train()
    norms = [m for m in model.backbone.modules() if 'Norm' in str(type(m))]
    assert norms and not any(m.training for m in norms)
    samples = [DataSample().set_gt_label(i) for i in range(4)]
    images = torch.rand(4, cfg.model.backbone.get('in_channels', 3), 32, 32)
    model(images, samples, mode='loss')['loss'].backward()
    trained = {n for n, p in model.named_parameters() if p.grad is not None}
    assert trained == {'head.fc.weight', 'head.fc.bias'}
    assert state_hash(model.backbone) == before


@pytest.mark.parametrize('size', ['', '_tiny'])
def test_zero_label_head_fits_the_teacher(size):
    """What the photo classifier trains is what the student is given."""
    zero = Config.fromfile(
        ROOT / f'configs/downstream/sketch_sketchy{size}_zero_label.py'
    )
    depth = 18 if size else 50
    photo = Config.fromfile(
        ROOT / f'configs/downstream/photo_sketchy{size}_r{depth}_le.py'
    )
    head, teacher = zero.model.teacher_head, zero.model.teacher
    for key in ('type', 'num_classes', 'in_channels'):
        assert head[key] == photo.model.head[key]
    assert teacher.init_cfg == photo.model.backbone.init_cfg
    assert photo.model.backbone.frozen_stages == 4
    ours, theirs = (
        zero.model.data_preprocessor.source,
        photo.model.data_preprocessor,
    )
    assert (ours.mean, ours.std) == (theirs.mean, theirs.std)
    assert Path(head.init_cfg.checkpoint).name == (
        f'iter_{photo.train_cfg.max_iters}.pth'
    )


def _steps(pipeline):
    steps = {}
    for step in pipeline:
        if step['type'] == 'mmcmcd.OnSide':
            steps.update(_steps(step['transforms']))
        else:
            steps[step['type']] = {
                'mode': 'range',
                **{k: step[k] for k in step},
            }
    return steps


def test_real_data_root_comes_from_the_environment(monkeypatch):
    monkeypatch.setenv('MMCMCD_REALDATA', os.sep + 'somewhere')
    cfg = Config.fromfile(ROOT / 'configs/cmcd/depth_nyu_tiny.py')
    assert cfg.train_dataloader.dataset.data_root == '/somewhere/nyuv2/'
    monkeypatch.delenv('MMCMCD_REALDATA')
    cfg = Config.fromfile(ROOT / 'configs/cmcd/depth_nyu_tiny.py')
    assert cfg.train_dataloader.dataset.data_root == 'data/nyuv2/'


@pytest.mark.parametrize(
    'name', ['cmcd/depth_nyu', 'downstream/depth_nyu_fcn_r50']
)
def test_all_invalid_depth_is_refused(tmp_path, name):
    """A sensor that saw nothing teaches nothing: the pair is named."""
    for folder in ('rgb', 'depth', 'label40', 'splits'):
        (tmp_path / folder).mkdir()
    (tmp_path / 'splits/train.txt').write_text('0000\n0001\n')
    for index, depth in enumerate((0, 2000)):
        stem = f'{index:04d}'
        cv2.imwrite(
            str(tmp_path / f'rgb/{stem}.jpg'),
            np.full((48, 64, 3), 100, np.uint8),
        )
        cv2.imwrite(
            str(tmp_path / f'depth/{stem}.png'),
            np.full((48, 64), depth, np.uint16),
        )
        cv2.imwrite(
            str(tmp_path / f'label40/{stem}.png'), np.zeros((48, 64), np.uint8)
        )
    cfg = Config.fromfile(ROOT / f'configs/{name}.py')
    cfg.train_dataloader.dataset.data_root = str(tmp_path)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        dataset = DATASETS.build(cfg.train_dataloader.dataset)
        assert dataset[1] is not None
        with pytest.raises(UnreadableFileError, match=r'0000.png.*valid'):
            dataset[0]
