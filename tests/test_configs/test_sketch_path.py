"""Photo teacher, sketch student, classifiers, zero labels: one after another.

On a drawn stand-in of The Sketchy Database and, where there is one, on the
real sample.
"""

import csv
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import REPO

from mmcmcd.apis import test_from_config as run_test
from mmcmcd.apis import train_from_config
from mmcmcd.errors import ConfigError

CONFIGS = REPO / 'configs'
CLASSES = ('apple', 'cup', 'door', 'star', 'tree', 'zebra')
NET = dict(stem_channels=8, base_channels=8)
WIDTH = 64


def draw_sample(root):
    """Outlines (sketches) of filled polygons (photos), 4 photos a class."""
    rng = np.random.default_rng(0)
    rows = []
    for label, name in enumerate(CLASSES):
        for number in range(4):
            angles = np.linspace(0, 2 * np.pi, label + 4)[:-1]
            radius = rng.uniform(15, 25)
            corners = 32 + radius * np.stack(
                [np.cos(angles), np.sin(angles)], axis=1
            )
            corners = corners.astype(np.int32)[None]
            photo = rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)
            colour = rng.integers(0, 255, 3).tolist()
            cv2.fillPoly(photo, corners, colour)
            path = f'photo/{name}/p{number}.jpg'
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(root / path), photo)
            for k in (1, 2):
                sketch = np.full((64, 64, 3), 255, np.uint8)
                cv2.polylines(sketch, corners, True, (0, 0, 0), k)
                drawn = f'sketch/{name}/p{number}-{k}.png'
                (root / drawn).parent.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(root / drawn), sketch)
                split = 'test' if number == 3 else 'train'
                rows.append((path, drawn, name, split))
    with (root / 'pairs.csv').open('w', newline='') as file:
        table = csv.writer(file)
        table.writerow(('photo', 'sketch', 'class', 'split'))
        table.writerows(rows)


@pytest.fixture(scope='module', params=['drawn', 'real'])
def root(request, tmp_path_factory):
    """The folder that the tiny configs take from the environment."""
    before = os.environ.get('MMCMCD_REALDATA')
    if request.param == 'real' and before is None:
        pytest.skip('MMCMCD_REALDATA is not set')
    root = before
    if request.param == 'drawn':
        root = tmp_path_factory.mktemp('data')
        draw_sample(root / 'sketchy125')
        rgb = root / 'nyuv2' / 'rgb'
        rgb.mkdir(parents=True)
        noise = np.random.default_rng(1).integers(0, 255, (64, 64, 3))
        for number in range(4):
            cv2.imwrite(str(rgb / f'{number}.jpg'), noise.astype(np.uint8))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('MMCMCD_REALDATA', str(root))
        yield root


@pytest.fixture(scope='module')
def runs(root, tmp_path_factory):
    """Run a config of the tiny recipe, shortened; returns the runner."""
    work = tmp_path_factory.mktemp('work')

    def run(name, **options):
        options = {
            'train_dataloader.num_workers': 0,
            'train_dataloader.batch_size': 16,
            'default_hooks.logger.interval': 1,
            **options,
        }
        return train_from_config(
            str(CONFIGS / f'{name}.py'),
            work_dir=str(work / name.split('/')[1]),
            cfg_options=options,
            no_validate='pretrain' in name,
        )

    return run


def epochs(number=1):
    return {
        'train_cfg.max_epochs': number,
        'train_cfg.val_interval': number,
        'default_hooks.checkpoint.interval': number,
        # A few batches of the real sample are enough.
        'train_dataloader.dataset.indices': 32,
        'train_dataloader.dataset.lazy_init': False,
    }


def iterations(number=2):
    return {
        'train_cfg.max_iters': number,
        'train_cfg.val_interval': number,
        'default_hooks.checkpoint.interval': number,
    }


def net(*parts):
    return {
        f'model.{part}.{key}': value
        for part in parts
        for key, value in NET.items()
    }


def checkpoint(runner, step):
    return os.path.join(runner.work_dir, f'{step}.pth')


@pytest.fixture(scope='module')
def teacher(runs):
    runner = runs(
        'pretrain/simclr_r18_sketchy_tiny_photo',
        **net('backbone'),
        **{
            'model.neck.in_channels': WIDTH,
            'train_cfg.max_epochs': 1,
            'default_hooks.checkpoint.interval': 1,
            # Of the photos and the other source data, a few each.
            'train_dataloader.dataset.datasets.0.dataset.indices': 16,
            'train_dataloader.dataset.datasets.1.indices': 4,
        },
    )
    return checkpoint(runner, 'epoch_1')


def student_options(teacher):
    return {
        **net('teacher', 'student'),
        'model.teacher.init_cfg.checkpoint': teacher,
        'model.source_norm.num_features': WIDTH,
        'model.student_projector.in_channels': WIDTH,
        'model.student_projector.out_channels': WIDTH,
    }


@pytest.fixture(scope='module')
def distilled(runs, teacher):
    """The run of step 2, validated at its end."""
    return runs(
        'cmcd/sketch_sketchy_tiny', **epochs(), **student_options(teacher)
    )


def scalars(runner):
    history = runner.message_hub.log_scalars
    return {
        key.removeprefix('val/'): float(buffer.current())
        for key, buffer in history.items()
        if key.startswith('val/')
    }


def test_distillation_reports_retrieval_and_neighbours(distilled):
    found = scalars(distilled)
    for direction in ('target2source', 'source2target'):
        for figure in ('R@1', 'R@5', 'R@10', 'mAP', 'class_mAP'):
            assert 0 <= found[f'retrieval/{direction}_{figure}'] <= 100
    assert 0 <= found['knn/top1'] <= 100


def test_same_figures_in_training_and_in_the_test(distilled, teacher):
    metrics = run_test(
        str(CONFIGS / 'cmcd/sketch_sketchy_tiny.py'),
        checkpoint(distilled, 'epoch_1'),
        work_dir=os.path.join(distilled.work_dir, 'test'),
        cfg_options=student_options(teacher),
    )
    found = scalars(distilled)
    for key, value in metrics.items():
        if key.startswith(('retrieval/', 'knn/')):
            assert value == pytest.approx(found[key], abs=1e-6), key


@pytest.mark.parametrize('protocol', ['ft', 'le'])
def test_student_becomes_a_stock_classifier(runs, distilled, protocol):
    path = Path(distilled.work_dir, 'last_student').read_text()
    runner = runs(
        f'downstream/sketch_sketchy_tiny_r18_{protocol}',
        **iterations(),
        **net('backbone'),
        **{
            'model.backbone.init_cfg.checkpoint': path.strip(),
            'model.head.in_channels': WIDTH,
            'train_dataloader.dataset.labels_per_class': 2,
        },
    )
    assert type(runner.model).__module__.startswith('mmpretrain.')
    found = scalars(runner)
    assert {'accuracy/top1', 'accuracy/top5', 'knn/top1'} <= found.keys()
    given = torch.load(path.strip())['state_dict']
    trained = runner.model.state_dict()
    kept = all(torch.equal(given[k].cpu(), trained[k]) for k in given)
    assert kept == (protocol == 'le')


def test_no_labelled_sketch(runs, distilled, teacher):
    photos = runs(
        'downstream/photo_sketchy_tiny_r18_le',
        **iterations(),
        **net('backbone'),
        **{
            'model.backbone.init_cfg.checkpoint': teacher,
            'model.head.in_channels': WIDTH,
        },
    )
    options = {
        **student_options(teacher),
        'model.teacher_head.in_channels': WIDTH,
        'model.teacher_head.init_cfg.checkpoint': checkpoint(photos, 'iter_2'),
    }
    config = str(CONFIGS / 'downstream/sketch_sketchy_tiny_zero_label.py')

    def evaluate(**more):
        return run_test(
            config,
            checkpoint(distilled, 'epoch_1'),
            work_dir=os.path.join(distilled.work_dir, 'zero'),
            cfg_options={**options, **more},
        )

    metrics = evaluate()
    assert 0 <= metrics['accuracy/top1'] <= metrics['accuracy/top5'] <= 100
    with pytest.raises(ConfigError, match='blind to any rotation'):
        evaluate(**{'model.losses.cmcd.cmc': None})
    other = {'model.teacher.init_cfg.checkpoint': checkpoint(photos, 'iter_2')}
    # The same weights in another file are the same teacher.
    assert evaluate(**other) == metrics
    # The student itself is no classifier of its own.
    with pytest.raises(ConfigError, match='teacher_head has no weights'):
        evaluate(**{'model.teacher_head.init_cfg': None})


def test_photos_alone_become_pairs(root, runs, teacher, tmp_path):
    config = CONFIGS / 'cmcd/sketch_from_photos.py'
    assert len(config.read_text().splitlines()) < 20
    runner = train_from_config(
        str(config),
        work_dir=str(tmp_path / 'work'),
        cfg_options={
            'train_dataloader.dataset.data_root': os.path.join(
                root, 'sketchy125/photo/apple'
            ),
            'train_dataloader.num_workers': 0,
            'train_dataloader.batch_size': 2,
            **{k: v for k, v in epochs().items() if 'indices' not in k},
            **student_options(teacher),
            'model.teacher.depth': 18,
            'model.student.depth': 18,
            'model.student_projector.hid_channels': 32,
        },
    )
    assert runner.epoch == 1


def test_more_classes_than_outputs_are_refused(runs):
    with pytest.raises(ConfigError, match=r'head has 3 outputs: set model'):
        runs(
            'downstream/sketch_sketchy_tiny_r18_ft',
            **net('backbone'),
            **{
                'model.backbone.init_cfg': None,
                'model.head.in_channels': WIDTH,
                'model.head.num_classes': 3,
                'model.data_preprocessor.num_classes': 3,
            },
        )
