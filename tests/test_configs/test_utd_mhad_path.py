"""Skeleton teacher, inertial and depth-video students, few labels.

On random movements and, where there is one, on the real sample.
"""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import REPO
from mmengine.config import Config
from utd_mhad_sample import write_sample

from mmcmcd.apis import train_from_config

CONFIGS = REPO / 'configs'
TEACHER = 'pretrain/simclr_tcn_utdmhad_skeleton'
STUDENTS = dict(inertial='inertial', depth='depthvideo')


@pytest.fixture(scope='module', params=['random', 'real'])
def root(request, tmp_path_factory):
    """The folder that the configs take from the environment."""
    before = os.environ.get('MMCMCD_REALDATA')
    if request.param == 'real' and before is None:
        pytest.skip('MMCMCD_REALDATA is not set')
    root = before
    if request.param == 'random':
        root = tmp_path_factory.mktemp('data')
        write_sample(root / 'utd_mhad')
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('MMCMCD_REALDATA', str(root))
        yield root


@pytest.fixture(scope='module')
def train(root, tmp_path_factory):
    """Train a config for one epoch or two steps."""
    work = tmp_path_factory.mktemp('work')

    def run(name, **options):
        config = CONFIGS / f'{name}.py'
        if 'downstream' in name or 'supervised' in name:
            short = {
                'train_cfg.max_iters': 2,
                'train_cfg.val_interval': 2,
                'default_hooks.checkpoint.interval': 2,
                'train_dataloader.batch_size': 8,
            }
        else:
            short = {
                'train_cfg.max_epochs': 1,
                'train_cfg.val_interval': 1,
                'default_hooks.checkpoint.interval': 1,
                'train_dataloader.batch_size': 32,
            }
        return train_from_config(
            str(config),
            work_dir=str(work / config.stem),
            cfg_options={**short, **options},
        )

    return run


@pytest.fixture(scope='module')
def teacher(train):
    runner = train(TEACHER)
    return str(Path(runner.work_dir) / 'epoch_1.pth')


def figures(runner):
    return {
        name.removeprefix('val/')
        for name in runner.message_hub.log_scalars
        if name.startswith('val/')
    }


@pytest.mark.parametrize('target', STUDENTS)
def test_a_student_learns_and_is_fine_tuned(train, teacher, target):
    name = STUDENTS[target]
    runner = train(
        f'cmcd/{name}_utdmhad',
        **{'model.teacher.init_cfg.checkpoint': teacher},
    )
    assert 'retrieval/target2source_R@1' in figures(runner)
    student = (Path(runner.work_dir) / 'last_student').read_text()

    for protocol in ('ft', 'le'):
        runner = train(
            f'downstream/{name}_utdmhad_{protocol}',
            **{
                'model.backbone.init_cfg.checkpoint': student,
                'train_dataloader.dataset.labels_per_class': 1,
            },
        )
        assert len(runner.train_dataloader.dataset) == 27
        assert {'accuracy/top1', 'accuracy/top5'} <= figures(runner)
        weights = torch.load(student)['state_dict']
        trained = runner.model.state_dict()
        same = [torch.equal(trained[k], v) for k, v in weights.items()]
        assert all(same) == (protocol == 'le')


def test_one_teacher_teaches_two_students(train, teacher):
    key = 'model.teachers.skeleton.backbone.init_cfg.checkpoint'
    runner = train('cmcd/students_utdmhad', **{key: teacher})
    for side in STUDENTS:
        assert f'{side}_retrieval/target2source_R@1' in figures(runner)
        path = (Path(runner.work_dir) / f'last_student_{side}').read_text()
        student = runner.model.students[side].state_dict()
        weights = torch.load(path)['state_dict']
        assert {k.removeprefix('backbone.') for k in weights} == set(student)


@pytest.mark.parametrize('target', ['tcn_utdmhad_inertial',
                                    'c3d_utdmhad_depth'])  # fmt: skip
def test_the_controls_train(train, target):
    runner = train(f'pretrain/simclr_{target}')
    loss = runner.message_hub.get_scalar('train/loss').current()
    assert 0 < loss < 10


def test_a_teacher_learns_from_labels(train):
    runner = train('pretrain/supervised_tcn_utdmhad_skeleton')
    assert 'accuracy/top1' in figures(runner)


def normalizers(node):
    """All NormalizeArray in a config."""
    if isinstance(node, dict):
        if node.get('type') == 'mmcmcd.NormalizeArray':
            yield node
        node = list(node.values())
    if isinstance(node, (list, tuple)):
        for part in node:
            yield from normalizers(part)


def test_the_numbers_in_the_configs_are_those_of_the_data():
    """Of the subjects to learn from, in all configs that repeat them."""
    place = os.environ.get('MMCMCD_REALDATA')
    if place is None:
        pytest.skip('MMCMCD_REALDATA is not set')
    archive = np.load(Path(place) / 'utd_mhad' / 'inertial.npz')
    values = np.concatenate(
        [archive[key] for key in archive.files if '_s7_' not in key]
    )
    found = 0
    for path in sorted(CONFIGS.glob('*/*utdmhad*.py')):
        for step in normalizers(Config.fromfile(path).to_dict()):
            if len(step['mean']) == 6:
                found += 1
                for name in ('mean', 'std'):
                    exact = getattr(values, name)(axis=0)
                    error = np.abs(np.array(step[name]) - exact)
                    assert (error < 0.01 * values.std(axis=0)).all(), path
    assert found >= 6
