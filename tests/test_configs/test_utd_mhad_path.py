"""Skeleton teacher, inertial and depth-video students, few labels.

On random movements and, where there is one, on the real sample.
"""

import os
from pathlib import Path

import pytest
import torch
from conftest import REPO
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
