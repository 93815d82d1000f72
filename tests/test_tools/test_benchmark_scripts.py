"""The benchmark scripts start step 3 from an exported student."""

import os
import re
import socket
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import REPO, TinyRun, process_env

SCRIPTS = REPO / 'tools' / 'benchmarks'
CLASSIFY, SEGMENT = SCRIPTS / 'classification', SCRIPTS / 'mmsegmentation'
ALL = sorted(path for path in SCRIPTS.glob('*/*.sh'))

# A stock classifier with a frozen backbone, on eight sketches.
TINY_CLS_CONFIG = """
default_scope = 'mmpretrain'
custom_imports = dict(imports=['mmcmcd'], allow_failed_imports=False)
_dataset = dict(
    type='mmcmcd.SketchyImages', data_root='{root}/sketchy', split='train',
    pipeline=[dict(type='mmcmcd.LoadSketch'), dict(type='PackInputs')])
train_dataloader = dict(
    batch_size=2, num_workers=0, dataset=_dataset,
    sampler=dict(type='DefaultSampler', shuffle=True))
test_dataloader = dict(
    batch_size=2, num_workers=0, dataset=dict(_dataset, split='test'),
    sampler=dict(type='DefaultSampler', shuffle=False))
test_evaluator = dict(type='Accuracy', topk=(1,))
test_cfg = dict(type='TestLoop')
train_cfg = dict(by_epoch=True, max_epochs=1)
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.01))
model = dict(
    type='ImageClassifier',
    data_preprocessor=dict(num_classes=2, mean=[245.], std=[40.]),
    backbone=dict(
        type='ResNet', depth=18, stem_channels=8, base_channels=8,
        in_channels=1, frozen_stages=4, norm_eval=True),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=2, in_channels=64,
              loss=dict(type='CrossEntropyLoss'), topk=(1,)))
custom_hooks = [dict(type='mmcmcd.VerifyPretrainedHook')]
randomness = dict(seed=0)
"""


class Place:
    """A folder with a student, the configs of step 3 and their data."""

    def __init__(self, root):
        from mmpretrain.models import ResNet

        self.root = root
        self.seg_config = TinyRun(root).seg_config
        self.cls_config = root / 'tiny_cls.py'
        self.cls_config.write_text(
            TINY_CLS_CONFIG.replace('{root}', str(root))
        )
        self._write_sketches(root / 'sketchy')
        torch.manual_seed(0)
        net = ResNet(18, stem_channels=8, base_channels=8, in_channels=1)
        self.weights = net.state_dict()
        self.student = root / 'student-1a2b3c4d.pth'
        state = {f'backbone.{k}': v for k, v in self.weights.items()}
        torch.save(dict(state_dict=state), self.student)

    @staticmethod
    def _write_sketches(root):
        rng = np.random.default_rng(0)
        lines = ['photo,sketch,class,split']
        for i in range(12):
            kind = ('ant', 'bat')[i % 2]
            names = [f'{side}/{kind}/{i}.png' for side in ('photo', 'sketch')]
            image = np.full((32, 32), 255, np.uint8)
            image[tuple(rng.integers(0, 32, (2, 60)))] = 0
            for name in names:
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(root / name), image)
            split = 'test' if i >= 8 else 'train'
            lines.append(','.join([*names, kind, split]))
        (root / 'pairs.csv').write_text('\n'.join(lines) + '\n')

    def run(self, script, *args, **env):
        return subprocess.run(
            ['bash', *map(str, (script, *args))],
            cwd=self.root,
            env=process_env(PORT=free_port(), **env),
            capture_output=True,
            text=True,
            timeout=300,  # the processes may share one core with others
        )


@pytest.fixture(scope='module')
def place(tmp_path_factory):
    return Place(tmp_path_factory.mktemp('benchmarks'))


def free_port():
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return str(probe.getsockname()[1])


def succeed(result):
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout


def model_state(work_dir):
    last = (work_dir / 'last_checkpoint').read_text()
    return torch.load(last, weights_only=False)['state_dict']


# What they start


@pytest.fixture
def stand_ins(tmp_path):
    """An `srun` and a `python` that print what they are called with."""
    for name in ('srun', 'python'):
        path = tmp_path / name
        path.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
        path.chmod(0o755)
    return dict(
        PATH=f'{tmp_path}{os.pathsep}{os.environ["PATH"]}',
        PYTHON=str(tmp_path / 'python'),
    )


def student_words(place, *more, labels=''):
    folder = f'work_dirs/tiny_cls/student-1a2b3c4d{labels}'
    return [
        *('--work-dir', folder, '--cfg-options'),
        'model.backbone.init_cfg.type=Pretrained',
        f'model.backbone.init_cfg.checkpoint={place.student}',
        'model.backbone.init_cfg.prefix=backbone.',
        *more,
    ]


def split(words, tool):
    """What comes before and after a tool's script."""
    words = words.splitlines()
    place = words.index(str(REPO / 'tools' / tool))
    return words[:place], words[place + 1 :]


FEW = 'train_dataloader.dataset.labels_per_class=5'


@pytest.mark.parametrize(
    ('name', 'labels', 'gpus'),
    [
        ('train.sh', (), None),
        ('train_few_label.sh', (5,), None),
        ('mim_dist_train.sh', (), '8'),
        ('dist_train_few_label.sh', (5,), '4'),
        ('mim_slurm_train.sh', (), '8'),
        ('slurm_train_few_label.sh', (5,), '4'),
    ],
)
def test_classification_training(place, stand_ins, name, labels, gpus):
    slurm = ('part', 'my job') if 'slurm' in name else ()
    more = ['train_dataloader.dataset.draw=1', '--amp']
    out = succeed(
        place.run(
            CLASSIFY / name,
            *(*slurm, place.cls_config, place.student, *labels, *more),
            SRUN_ARGS='--mem=4G --exclusive',
            **stand_ins,
        )
    )
    before, after = split(out, 'train.py')
    if labels:
        more = [FEW, *more]
    expected = student_words(
        place, *more, labels='-5_per_class' if labels else ''
    )
    launcher = ['--launcher=slurm'] if slurm else ['--launcher=pytorch']
    if gpus is None:
        launcher = []
    assert after == [str(place.cls_config), *launcher, *expected]
    if slurm:
        assert {
            *('-p', 'part', '--job-name=my job', f'--ntasks={gpus}'),
            *('--cpus-per-task=5', '--mem=4G', '--exclusive'),
        } <= set(before)
    elif gpus:
        assert f'--nproc_per_node={gpus}' in before


@pytest.mark.parametrize(
    ('name', 'tool'),
    [
        ('mim_slurm_train.sh', 'train.py'),
        ('mim_slurm_test.sh', 'test.py'),
    ],
)
def test_segmentation_on_a_cluster(place, stand_ins, name, tool):
    out = succeed(
        place.run(
            SEGMENT / name,
            *('part', place.seg_config, place.student, '--amp'),
            GPUS='2',
            **stand_ins,
        )
    )
    before, after = split(out, tool)
    assert {'part', '--ntasks=2', '--ntasks-per-node=4'} <= set(before)
    assert after[:1] == [str(place.seg_config)]
    assert '--launcher=slurm' in after and after[-1] == '--amp'
    if tool == 'train.py':
        checkpoint = f'model.backbone.init_cfg.checkpoint={place.student}'
        assert {checkpoint, 'model.pretrained=None'} <= set(after)
    else:
        assert after[1] == str(place.student)


def test_knn_on_a_cluster(place, stand_ins):
    out = succeed(
        place.run(
            CLASSIFY / 'slurm_test_knn.sh',
            *('part', 'job', place.cls_config, place.student),
            *('--num-knn', 3),
            **stand_ins,
        )
    )
    _, after = split(out, 'benchmarks/classification/test_knn.py')
    assert after == [
        str(place.cls_config),
        f'--checkpoint={place.student}',
        *('--launcher=slurm', '--num-knn', '3'),
    ]


def test_segmentation_test_on_this_machine(place, stand_ins):
    out = succeed(
        place.run(SEGMENT / 'test.sh', 'a.py', 'b.pth', '--amp', **stand_ins)
    )
    assert split(out, 'test.py')[1] == ['a.py', 'b.pth', '--amp']


# What they refuse


@pytest.mark.parametrize('script', ALL, ids=lambda p: p.name)
def test_usage(place, script):
    result = place.run(script, 'one')
    assert result.returncode == 2
    error, usage = result.stderr.splitlines()
    assert re.match(r'error: expected at least \d arguments, got 1\.$', error)
    name = script.relative_to(REPO)
    assert usage.startswith(f'usage: {name} ')


# Of test.sh, test.py itself names them.
@pytest.mark.parametrize(
    'script', [p for p in ALL if p.name != 'test.sh'], ids=lambda p: p.name
)
def test_missing_files_are_named(place, script):
    head = script.read_text()
    usage = re.search(r'^# Usage: \S+ (.*?) \[', head, re.M)[1].split()
    values = dict(
        PARTITION='part', JOB_NAME='job', CONFIG=place.cls_config, LABELS=5
    )
    values.update(PRETRAIN='none.pth', CHECKPOINT='none.pth', GPUS=2)
    result = place.run(script, *(values[word] for word in usage))
    assert result.returncode == 2
    assert "'none.pth' does not exist." in result.stderr.splitlines()[0]


@pytest.mark.parametrize('number', ['--amp', '0', 'two'])
def test_numbers_are_checked(place, number):
    for script, name in (
        (CLASSIFY / 'train_few_label.sh', 'LABELS'),
        (SEGMENT / 'mim_dist_train.sh', 'GPUS'),
    ):
        result = place.run(script, place.cls_config, place.student, number)
        assert result.returncode == 2
        assert result.stderr.startswith(
            f"error: {name} must be a whole number, got '{number}'."
        )


# What comes out


@pytest.mark.slow
def test_linear_evaluation_from_few_labels(place):
    """The head learns from one label a class, the backbone stays."""
    work_dir = place.root / 'le'
    out = succeed(
        place.run(
            CLASSIFY / 'train_few_label.sh',
            *(place.cls_config, place.student, 1),
            *('--work-dir', work_dir),
        )
    )
    assert 'Epoch(train) [1][1/1]' in out  # one batch of two classes
    state = model_state(work_dir)
    for key, value in place.weights.items():
        assert torch.equal(state[f'backbone.{key}'], value), key


@pytest.mark.slow
def test_neighbours_by_two_processes(place):
    from sklearn.neighbors import KNeighborsClassifier

    out = succeed(
        place.run(
            CLASSIFY / 'dist_test_knn.sh',
            *(place.cls_config, place.student, '--num-knn', 3, 5),
            *('--work-dir', place.root / 'knn'),
            GPUS='2',
        )
    )
    found = re.findall(r'^(\d)-NN classifier result: Top1: (\S+),', out, re.M)
    assert [k for k, _ in found] == ['3', '5']
    (bank, labels), (rows, truth) = (
        place_features(place, split) for split in ('train', 'test')
    )
    for k, top1 in found:
        classifier = KNeighborsClassifier(
            int(k),
            metric='cosine',
            algorithm='brute',
            weights=lambda distance: np.exp((1 - distance) / 0.07),
        )
        accuracy = classifier.fit(bank, labels).score(rows, truth)
        assert float(top1) == pytest.approx(100 * accuracy, abs=0.01)


def place_features(place, split):
    """Features of the student, without any of the tools."""
    from mmpretrain.models import ResNet

    net = ResNet(18, stem_channels=8, base_channels=8, in_channels=1)
    net.load_state_dict(place.weights)
    net.eval()
    lines = (place.root / 'sketchy/pairs.csv').read_text().splitlines()[1:]
    rows, labels = [], []
    for line in lines:
        _, sketch, kind, part = line.split(',')
        if part != split:
            continue
        image = cv2.imread(str(place.root / 'sketchy' / sketch), 0)
        tensor = (torch.from_numpy(image)[None, None].float() - 245) / 40
        with torch.no_grad():
            rows.append(net(tensor)[-1].mean(dim=(2, 3))[0].double().numpy())
        labels.append(('ant', 'bat').index(kind))
    return np.stack(rows), labels


@pytest.mark.slow
def test_segmentation_by_two_processes(place):
    """Trained from the student, and tested, as a user would."""
    work_dir = place.root / 'seg'
    out = succeed(
        place.run(
            SEGMENT / 'mim_dist_train.sh',
            *(place.seg_config, place.student, 2),
            *('optim_wrapper.optimizer.lr=0.0', '--work-dir', work_dir),
        )
    )
    assert 'Saving checkpoint at 2 iterations' in out
    state = model_state(work_dir)
    weight = place.weights['layer4.1.conv2.weight']
    assert torch.equal(state['backbone.layer4.1.conv2.weight'], weight)
    last = Path((work_dir / 'last_checkpoint').read_text())
    out = succeed(
        place.run(
            SEGMENT / 'mim_dist_test.sh',
            *(place.seg_config, last, 2, '--work-dir', work_dir),
        )
    )
    assert 'mIoU' in out
