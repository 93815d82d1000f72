import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from mmengine.config import Config
from mmengine.registry import DATASETS, MODELS, DefaultScope
from mmengine.utils import import_modules_from_strings

from mmcmcd.errors import UnreadableFileError
from mmcmcd.registry import METRICS

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = sorted(
    p for p in (ROOT / 'configs').glob('*/*.py') if p.parent.name != '_base_'
)
OWN_LINES = 62


@pytest.mark.parametrize('path', CONFIGS, ids=lambda p: p.stem)
def test_config_builds(path):
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
            dataset = DATASETS.build(dict(loader.dataset, lazy_init=True))
            assert len(dataset.pipeline.transforms) >= 3
            if name != 'train':
                METRICS.build(cfg[f'{name}_evaluator'])


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
        ('cmcd/depth_nyu_tiny', 'downstream/depth_nyu_tiny_fcn_r18'),
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
