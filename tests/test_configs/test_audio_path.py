"""From sounds to a classifier: all steps, on a stand-in of the data sets.

The digits run on the real sample, too, where there is one.
"""

import csv
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import REPO
from mmengine.config import Config
from mmengine.registry import DATASETS, DefaultScope

from mmcmcd.apis import train_from_config

soundfile = pytest.importorskip('soundfile')
pytest.importorskip('librosa')

CONFIGS = REPO / 'configs'
NET = dict(stem_channels=8, base_channels=8)
WIDTH = 64
SPEAKERS = ('george', 'jackson', 'lucas', 'nicolas')


def tone(path, hertz, seconds, rate):
    path.parent.mkdir(parents=True, exist_ok=True)
    time = np.arange(round(seconds * rate)) / rate
    soundfile.write(path, 0.3 * np.sin(2 * np.pi * hertz * time), rate)


def make_digits(root):
    """Digits are pitches, and stripes of as many pixels."""
    rows = []
    for digit in range(10):
        for speaker in SPEAKERS:
            name = f'audio/{digit}_{speaker}_0.wav'
            tone(root / name, 200 * (digit + 1), 0.3 + 0.1 * digit, 8000)
            rows.append((name, digit, speaker))
    with (root / 'audio.csv').open('w', newline='') as file:
        csv.writer(file).writerows([('file', 'digit', 'speaker'), *rows])
    labels = np.repeat(np.arange(10), 24).astype(np.uint8)
    images = np.zeros((240, 28, 28), np.uint8)
    for image, digit in zip(images, labels, strict=True):
        image[:, : digit + 1] = 200
    np.savez(root / 'mnist.npz', images=images, labels=labels)


def make_vggsound(root):
    """Two classes, twelve clips of two seconds with two frames each."""
    rows = []
    for i in range(12):
        name = f'clip{i:07d}_{i:06d}'
        tone(root / f'audio/{name}.wav', 300 + 100 * (i % 2), 2, 16000)
        (root / 'frames' / name).mkdir(parents=True)
        for millisecond in (500, 1500):
            image = np.full((240, 260, 3), 20 * i, np.uint8)
            cv2.imwrite(str(root / f'frames/{name}/{millisecond}.jpg'), image)
        split = 'test' if i >= 8 else 'train'
        rows.append((f'clip{i:07d}', i, ('ant', 'bat')[i % 2], split))
    with (root / 'vggsound.csv').open('w', newline='') as file:
        csv.writer(file).writerows(rows)
    lines = [f'clip{i:07d}_{i:06d},2.0' for i in range(12)]
    (root / 'clips.csv').write_text('\n'.join(['clip,duration', *lines]))


def make_esc50(root):
    """Two classes, one sound in each fold."""
    head = 'filename', 'fold', 'target', 'category', 'src_file'
    rows = []
    for fold in range(1, 6):
        for target in range(2):
            name = f'{fold}-{target}.wav'
            tone(root / 'audio' / name, 400 * (target + 1), 1, 44100)
            rows.append((name, fold, target, 'ab'[target], f'{fold}{target}'))
    (root / 'meta').mkdir()
    with (root / 'meta/esc50.csv').open('w', newline='') as file:
        csv.writer(file).writerows([head, *rows])


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp('data')
    make_digits(root / 'digits_av')
    make_vggsound(root / 'vggsound')
    make_esc50(root / 'esc50')
    return root


@pytest.fixture(scope='module', params=['made', 'real'])
def digits(request, data):
    """The folder that the tiny configs take from the environment."""
    root = str(data)
    if request.param == 'real':
        root = os.environ.get('MMCMCD_REALDATA')
        if root is None:
            pytest.skip('MMCMCD_REALDATA is not set')
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('MMCMCD_REALDATA', root)
        yield root


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
    """Run a shortened config; returns the runner."""
    work = tmp_path_factory.mktemp('work')

    def run(name, **options):
        options = {
            'train_dataloader.num_workers': 0,
            'train_dataloader.persistent_workers': False,
            'train_dataloader.batch_size': 4,
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


def epochs():
    return {
        'train_cfg.max_epochs': 1,
        'train_cfg.val_interval': 1,
        'default_hooks.checkpoint.interval': 1,
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


def root_of(path, *loaders):
    options = {}
    for loader in loaders or ('train', 'val', 'test'):
        options[f'{loader}_dataloader.dataset.data_root'] = str(path)
        if loader != 'train':
            options[f'{loader}_dataloader.num_workers'] = 0
            options[f'{loader}_dataloader.persistent_workers'] = False
    return options


FEW_PAIRS = {
    'train_dataloader.dataset.indices': 8,
    'train_dataloader.dataset.lazy_init': False,
}
# Two-sided options of a distiller of narrow networks.
NARROW = {
    **net('teacher', 'student'),
    'model.source_norm.num_features': WIDTH,
    'model.student_projector.in_channels': WIDTH,
    'model.student_projector.hid_channels': WIDTH,
    'model.student_projector.out_channels': WIDTH,
}


def scalars(runner):
    history = runner.message_hub.log_scalars
    return {
        key.removeprefix('val/'): float(buffer.current())
        for key, buffer in history.items()
        if key.startswith('val/')
    }


def pretrain(runs, name):
    narrow = {
        **net('backbone'),
        'model.neck.in_channels': WIDTH,
        'model.neck.hid_channels': WIDTH,
    }
    runner = runs(f'pretrain/{name}', **epochs(), **narrow, **FEW_PAIRS)
    return os.path.join(runner.work_dir, 'epoch_1.pth')


@pytest.fixture(scope='module')
def teacher(digits, runs):
    return pretrain(runs, 'simclr_digits_tiny_image')


@pytest.fixture(scope='module')
def distilled(teacher, runs):
    return runs(
        'cmcd/audio_digits_tiny',
        **epochs(),
        **NARROW,
        **FEW_PAIRS,
        **{'model.teacher.init_cfg.checkpoint': teacher},
    )


def test_distillation_reports_retrieval_and_neighbours(distilled):
    found = scalars(distilled)
    for figure in ('retrieval/target2source_R@1', 'knn/top1'):
        assert 0 <= found[figure] <= 100


@pytest.mark.parametrize('protocol', ['ft', 'le'])
def test_student_becomes_a_stock_classifier(distilled, runs, protocol):
    path = Path(distilled.work_dir, 'last_student').read_text().strip()
    runner = runs(
        f'downstream/audio_digits_tiny_{protocol}',
        **iterations(),
        **net('backbone'),
        **{
            'model.backbone.init_cfg.checkpoint': path,
            'model.head.in_channels': WIDTH,
            'train_dataloader.dataset.labels_per_class': 1,
        },
    )
    assert type(runner.model).__module__.startswith('mmpretrain.')
    assert {'accuracy/top1', 'knn/top1'} <= scalars(runner).keys()
    given = torch.load(path)['state_dict']
    trained = runner.model.state_dict()
    kept = all(torch.equal(given[k].cpu(), trained[k]) for k in given)
    assert kept == (protocol == 'le')


def test_control_of_the_digits(digits, runs):
    checkpoint = pretrain(runs, 'simclr_digits_tiny_audio')
    state = torch.load(checkpoint, weights_only=False)['state_dict']
    assert state['backbone.conv1.weight'].shape[1] == 1


@pytest.fixture(scope='module')
def frames_teacher(tmp_path_factory):
    from mmpretrain.models import ResNet

    path = tmp_path_factory.mktemp('teacher') / 'teacher.pth'
    state = ResNet(18, **NET).state_dict()
    torch.save({f'backbone.{k}': v for k, v in state.items()}, path)
    return path


def test_vggsound_student(data, runs, frames_teacher):
    runner = runs(
        'cmcd/audio_vggsound',
        **epochs(),
        **NARROW,
        **root_of(data / 'vggsound'),
        **{
            'model.teacher.depth': 18,
            'model.student.depth': 18,
            'model.teacher.init_cfg.checkpoint': str(frames_teacher),
            'train_dataloader.dataset.on_unreadable': 'error',
        },
    )
    assert 0 <= scalars(runner)['retrieval/target2source_R@1'] <= 100


@pytest.mark.parametrize('name', ['vggsound', 'esc50'])
@pytest.mark.parametrize('protocol', ['ft', 'le'])
def test_classifiers(data, runs, name, protocol):
    runner = runs(
        f'downstream/audio_{name}_{protocol}',
        **iterations(),
        **net('backbone'),
        **root_of(data / name),
        **{
            'model.backbone.depth': 18,
            'model.backbone.init_cfg': None,
            'model.head.in_channels': WIDTH,
        },
    )
    assert 0 <= scalars(runner)['accuracy/top1'] <= 100


def test_frame_and_sound_of_vggsound_share_a_moment(data):
    """Two seconds of a clip fit once into a segment of 1.5 s."""
    cfg = Config.fromfile(CONFIGS / 'cmcd/audio_vggsound.py')
    dataset = cfg.train_dataloader.dataset
    dataset.data_root = str(data / 'vggsound')
    dataset.pipeline[0].update(duration=0.4)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        dataset = DATASETS.build(dataset)
    paths = set()
    for seed in range(10):
        np.random.seed(seed)
        sample = dataset[0]
        assert sample['inputs']['target'].shape == (1, 6400)
        assert sample['inputs']['source'].shape == (3, 224, 224)
        paths.add(Path(sample['data_samples'].source_path).name)
    assert paths == {'500.jpg', '1500.jpg'}


@pytest.mark.parametrize(
    ('distil', 'names'),
    [
        (
            'audio_vggsound',
            ['vggsound_ft', 'vggsound_le', 'esc50_ft', 'esc50_le'],
        ),
        ('audio_digits_tiny', ['digits_tiny_ft', 'digits_tiny_le']),
    ],
)
def test_student_and_classifier_agree(distil, names):
    """What is distilled is what is fine-tuned: inputs and networks."""
    distil = Config.fromfile(CONFIGS / f'cmcd/{distil}.py').model
    ours = distil.data_preprocessor.target
    for name in names:
        cfg = Config.fromfile(CONFIGS / f'downstream/audio_{name}.py').model
        theirs = cfg.data_preprocessor
        for key in ('type', 'mel', 'mean', 'std'):
            assert ours.get(key) == theirs.get(key)
        for key in ('type', 'depth', 'in_channels', 'base_channels'):
            assert distil.student.get(key) == cfg.backbone.get(key)
        assert theirs.num_classes == cfg.head.num_classes
        frozen = cfg.backbone.get('frozen_stages') == 4
        assert frozen == name.endswith('le')


@pytest.mark.parametrize('name', ['vggsound', 'esc50', 'digits_tiny'])
def test_rates_of_loader_and_spectrogram_agree(name):
    cfg = Config.fromfile(CONFIGS / f'downstream/audio_{name}_ft.py')
    rate = cfg.model.data_preprocessor.mel.sampling_rate
    for loader in ('train', 'val'):
        pipeline = cfg[f'{loader}_dataloader'].dataset.pipeline
        (load,) = (t for t in pipeline if t.type == 'mmcmcd.LoadAudio')
        assert load.sampling_rate == rate
