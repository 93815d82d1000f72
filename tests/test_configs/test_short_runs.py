"""The shipped configs train, through every door that users come in by."""

import json
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import process_env
from mmengine.config import Config
from mmengine.registry import DATASETS, DefaultScope

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope='module')
def rooms(tmp_path_factory):
    from mmcmcd.datasets.synthetic_rooms import write_rooms

    return write_rooms(
        tmp_path_factory.mktemp('rooms') / 'data',
        num_frames=36,
        height=48,
        width=64,
        few_labels=(4,),
        num_draws=1,
    )


@pytest.fixture(scope='module')
def teacher(tmp_path_factory):
    from mmpretrain.models import ResNet

    path = tmp_path_factory.mktemp('teacher') / 'teacher.pth'
    net = ResNet(18, stem_channels=8, base_channels=8)
    torch.save({f'backbone.{k}': v for k, v in net.state_dict().items()}, path)
    return path


NET = 'depth=18 {0}.stem_channels=8 {0}.base_channels=8'


def distil_options(rooms, teacher):
    loaders = ' '.join(
        f'{n}_dataloader.num_workers=0 {n}_dataloader.persistent_workers='
        f'False {n}_dataloader.batch_size=8 '
        f'{n}_dataloader.dataset.data_root={rooms}'
        for n in ('train', 'val', 'test')
    )
    return (
        f'{loaders} val_dataloader.dataset.ann_file=splits/val.txt '
        f'model.teacher.init_cfg.checkpoint={teacher} '
        f'model.teacher.{NET.format("model.teacher")} '
        f'model.student.{NET.format("model.student")} '
        'model.source_norm.num_features=64 '
        'model.student_projector.in_channels=64 '
        'model.student_projector.hid_channels=64 '
        'model.student_projector.out_channels=64 '
        'train_cfg.max_epochs=1 train_cfg.val_interval=1'
    ).split()


def seg_options(rooms, student):
    return (
        f'train_dataloader.num_workers=0 val_dataloader.num_workers=0 '
        'train_dataloader.persistent_workers=False '
        'val_dataloader.persistent_workers=False '
        f'train_dataloader.dataset.data_root={rooms} '
        'train_dataloader.dataset.ann_file=splits/few_4_0.txt '
        'train_dataloader.batch_size=2 '
        f'val_dataloader.dataset.data_root={rooms} '
        'val_dataloader.dataset.ann_file=splits/val.txt '
        f'model.backbone.{NET.format("model.backbone")} '
        'model.decode_head.in_channels=64 '
        'model.decode_head.channels=16 '
        'model.auxiliary_head.in_channels=32 '
        'model.auxiliary_head.channels=16 '
        'train_cfg.max_iters=2 train_cfg.val_interval=2 '
        f'model.backbone.init_cfg.checkpoint={student}'
    ).split()


def run(script, config, work_dir, options):
    done = subprocess.run(
        [
            sys.executable,
            str(script),
            str(config),
            '--work-dir',
            str(work_dir),
            '--cfg-options',
            *options,
        ],
        capture_output=True,
        text=True,
        timeout=300,
        env=process_env(),
        cwd=work_dir.parent,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout + done.stderr


def stock_script(package):
    return Path(find_spec(package).origin).parent / '.mim/tools/train.py'


@pytest.fixture(scope='module')
def student(rooms, teacher, tmp_path_factory):
    """Step 2 through our own tool."""
    work = tmp_path_factory.mktemp('distil')
    log = run(
        ROOT / 'tools/train.py',
        ROOT / 'configs/cmcd/depth_nyu.py',
        work,
        distil_options(rooms, teacher),
    )
    assert re.search(r'loss_cmd: \d', log)
    assert 'retrieval/target2source_R@1' in log
    return Path((work / 'last_student').read_text().strip())


@pytest.mark.slow
@pytest.mark.parametrize('script', ['ours', 'mmseg'])
@pytest.mark.parametrize('head', ['fcn', 'deeplabv3plus'])
def test_student_is_fine_tuned_by_stock_segmentors(
    rooms, student, tmp_path, script, head
):
    tool = (
        ROOT / 'tools/train.py' if script == 'ours' else stock_script('mmseg')
    )
    options = seg_options(rooms, student)
    if head == 'deeplabv3plus':
        options += ['model.decode_head.c1_in_channels=8']
    log = run(
        tool,
        ROOT / f'configs/downstream/depth_nyu_{head}_r50.py',
        tmp_path,
        options,
    )
    assert 'mIoU' in log
    state = torch.load(next(tmp_path.glob('iter_*.pth')), weights_only=False)[
        'state_dict'
    ]
    start = torch.load(student)['state_dict']['backbone.conv1.weight']
    drift = (state['backbone.conv1.weight'] - start).abs().max()
    assert 0 < drift < 0.01  # it started from the student


def test_holes_of_depth_maps_reach_the_samples(rooms, tmp_path):
    root = tmp_path / 'data'
    shutil.copytree(rooms, root)
    for path in (root / 'depth').glob('*.png'):
        depth = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        depth[10:30, 20:40] = 0
        cv2.imwrite(str(path), depth)
    cfg = Config.fromfile(ROOT / 'configs/cmcd/depth_nyu_dense.py')
    cfg.train_dataloader.dataset.data_root = str(root)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        dataset = DATASETS.build(cfg.train_dataloader.dataset)
    shares = []
    for pair in dataset:
        measured = pair['inputs']['target'] > 0
        assert torch.equal(pair['data_samples'].target_valid.data, measured)
        shares.append(measured.float().mean())
    assert 0 < min(shares) < 1


@pytest.mark.slow
def test_dense_term_is_trained_beside_the_others(rooms, teacher, tmp_path):
    dense = []
    for name, width in (('dense_32', 64), ('dense_16', 32)):
        place = f'model.dense.{name}'
        dense += [
            f'{place}.projector.in_channels={width}',
            f'{place}.projector.out_channels={width}',
            f'{place}.source_norm.num_features={width}',
            f'{place}.grid=student',
            f'{place}.exclusion_radius=1',
        ]
    log = run(
        ROOT / 'tools/train.py',
        ROOT / 'configs/cmcd/depth_nyu_dense.py',
        tmp_path,
        distil_options(rooms, teacher) + dense,
    )
    assert re.search(
        r'loss_cmd: \d.*loss_dense_32: \d.*loss_dense_16: \d', log
    )
    student = torch.load((tmp_path / 'last_student').read_text().strip())
    assert all(k.startswith('backbone.') for k in student['state_dict'])


@pytest.mark.slow
def test_mmpretrains_own_script_runs_distillation(rooms, teacher, tmp_path):
    log = run(
        stock_script('mmpretrain'),
        ROOT / 'configs/cmcd/depth_nyu.py',
        tmp_path,
        distil_options(rooms, teacher),
    )
    assert 'retrieval/target2source_R@1' in log
    assert list(tmp_path.glob('student-*.pth'))


@pytest.mark.slow
def test_a_users_own_project_inherits_by_package_name(
    rooms, teacher, tmp_path
):
    """Another folder, `mmcmcd::`, another student, five lines."""
    project = tmp_path / 'project'
    project.mkdir()
    (project / 'mine.py').write_text(f"""
_base_ = 'mmcmcd::cmcd/depth_nyu.py'
_data = dict(dataset=dict(data_root={str(rooms)!r}), batch_size=8)
train_dataloader = val_dataloader = test_dataloader = _data
_net = dict(type='ResNetV1d', depth=18, stem_channels=8, base_channels=8)
_projector = dict(in_channels=64, hid_channels=64, out_channels=64)
model = dict(student=_net, student_projector=_projector)
""")
    options = [
        o
        for o in distil_options(rooms, teacher)
        if re.match(
            r'model.(teacher|source_norm)|train_cfg|val_.*ann_file|.*workers',
            o,
        )
    ]
    done = subprocess.run(
        [
            sys.executable,
            '-m',
            'mmcmcd',
            'train',
            'mine.py',
            '--cfg-options',
            *options,
        ],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=project,
        env=process_env(),
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert list((project / 'work_dirs/mine').glob('student-*.pth'))
    logs = list((project / 'work_dirs/mine').glob('*/vis_data/*.json'))
    assert any(
        'loss_cmc' in json.loads(line)
        for p in logs
        if p.stem == 'scalars'
        for line in p.read_text().splitlines()
    )


CLASSIFIER = """
default_scope = 'mmpretrain'
custom_imports = dict(imports=['mmcmcd'])
_data = dict(
    type='CustomDataset',
    data_root={root!r},
    pipeline=[dict(type='LoadImageFromFile', color_type='grayscale'),
              dict(type='Resize', scale=32), dict(type='PackInputs')])
train_dataloader = dict(
    batch_size=4, num_workers=0, persistent_workers=False, dataset=_data,
    sampler=dict(type='DefaultSampler', shuffle=True))
train_cfg = dict(by_epoch=True, max_epochs=1)
# At rate zero the saved weights are those that training began with.
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.))
model = dict(
    type='ImageClassifier',
    data_preprocessor=dict(mean=[100.], std=[50.], num_classes=2),
    backbone=dict(type='ResNet', depth=18, in_channels=1, stem_channels=8,
                  base_channels=8),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=2, in_channels=64,
              loss=dict(type='CrossEntropyLoss')))
default_hooks = dict(checkpoint=dict(type='CheckpointHook', interval=1))
"""


@pytest.mark.slow
def test_student_goes_in_by_the_benchmark_scripts_options(student, tmp_path):
    """`model.backbone.init_cfg.*` on mmpretrain's own command line."""
    rng = np.random.default_rng(0)
    for name in ('a', 'b'):
        (tmp_path / 'data' / name).mkdir(parents=True)
        for i in range(4):
            image = rng.integers(0, 256, (32, 32), np.uint8)
            cv2.imwrite(str(tmp_path / f'data/{name}/{i}.png'), image)
    config = tmp_path / 'classifier.py'
    config.write_text(CLASSIFIER.format(root=str(tmp_path / 'data')))
    run(
        stock_script('mmpretrain'),
        config,
        tmp_path / 'work',
        [
            'model.backbone.init_cfg.type=Pretrained',
            f'model.backbone.init_cfg.checkpoint={student}',
            'model.backbone.init_cfg.prefix=backbone.',
        ],
    )
    saved = torch.load(tmp_path / 'work/epoch_1.pth', weights_only=False)
    given = torch.load(student)['state_dict']
    for key, value in given.items():
        if key.endswith('weight'):
            assert torch.equal(saved['state_dict'][key], value)
