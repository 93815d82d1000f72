import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.dataset import Compose
from mmengine.registry import DATASETS, DefaultScope
from mmengine.runner import Runner
from mmpretrain.evaluation import Accuracy

from mmcmcd.datasets import DigitsAV
from mmcmcd.datasets.transforms import LoadArrayRow
from mmcmcd.errors import ConfigError, DatasetError, UnreadableFileError

REAL = Path(os.environ.get('MMCMCD_REALDATA', 'none')) / 'digits_av'
SPEAKERS = ('ann', 'bob', 'cid')
TAKES = 2


@pytest.fixture
def root(tmp_path):
    soundfile = pytest.importorskip('soundfile')
    labels = np.arange(150, dtype=np.uint8) % 10
    # Every image is told by its values.
    images = np.zeros((150, 28, 28), np.uint8)
    images[:, 3, 4] = np.arange(150)
    np.savez(tmp_path / 'mnist.npz', images=images, labels=labels)
    (tmp_path / 'audio').mkdir()
    lines = ['file,digit,speaker,take']
    for digit in range(10):
        for speaker in SPEAKERS:
            for take in range(TAKES):
                name = f'audio/{digit}_{speaker}_{take}.wav'
                lines.append(f'{name},{digit},{speaker},{take}')
                wave = np.tile([1, -1], 400) * (digit + 1) / 12
                soundfile.write(tmp_path / name, wave, 8000)
    (tmp_path / 'audio.csv').write_text('\n'.join(lines) + '\n')
    return tmp_path


def build(root, speakers=SPEAKERS[:2], **kwargs):
    kwargs = dict(data_root=str(root), serialize_data=False, **kwargs)
    return DigitsAV(speakers, **kwargs)


def items(*args, **kwargs):
    dataset = build(*args, **kwargs)
    return [dataset.get_data_info(i) for i in range(len(dataset))]


def image_of(item):
    return int(item['source']['img_path'].rpartition('/')[2])


def images_of(found):
    return [image_of(item) for item in found]


def test_item(root):
    cfg = dict(type='mmcmcd.DigitsAV', speakers=['bob'], data_root=str(root))
    dataset = DATASETS.build(cfg)
    assert len(dataset) == 20
    item = dataset[7]
    index = image_of(item)
    assert index % 10 == 3  # an image of a three
    item.pop('group_index')
    assert item == dict(
        pair_id=f'3_bob_1-{index}',
        group_id=f'3_bob_1-{index}',
        sample_idx=7,
        sides=('source', 'target'),
        source=dict(img_path=f'{root}/mnist.npz/images/{index}'),
        target=dict(img_path=f'{root}/audio/3_bob_1.wav'),
        gt_label=3,
    )
    assert dataset.metainfo['classes'] == tuple('0123456789')


def test_images_are_of_the_same_digit_and_used_once(root):
    train = items(root, images_per_clip=2)
    test = items(root, SPEAKERS[2:], images_per_clip=2)
    assert (len(train), len(test)) == (80, 40)
    for item in train + test:
        assert image_of(item) % 10 == item['gt_label']
    used = images_of(train + test)
    assert len(set(used)) == len(used)
    assert len({item['pair_id'] for item in train}) == 80


def test_draw_depends_on_the_seed_alone(root):
    first = items(root)
    assert items(root) == first
    assert images_of(items(root, seed=1)) != images_of(first)
    alone = images_of(items(root, SPEAKERS[1:2]))
    both = [i for i in first if '_bob_' in i['pair_id']]
    assert alone == images_of(both)
    more = images_of(items(root, images_per_clip=2))
    assert more[::2] == images_of(first)


def test_groups(root):
    assert len({item['group_index'] for item in items(root)}) == 40
    by_digit = items(root, group_by='digit')
    groups = {(i['gt_label'], i['group_index']) for i in by_digit}
    assert len(groups) == 10
    with pytest.raises(ConfigError, match="group_by='speaker'"):
        build(root, group_by='speaker')


def test_few_labels(root):
    few = items(root, labels_per_class=3, draw=1)
    assert Counter(i['gt_label'] for i in few) == dict.fromkeys(range(10), 3)


def test_recordings_alone_need_no_images(root):
    both = items(root, labels_per_class=2)
    (root / 'mnist.npz').unlink()
    alone = items(root, labels_per_class=2, sides=('target',))
    assert [item['target'] for item in alone] == [
        item['target'] for item in both
    ]
    assert all('source' not in item for item in alone)
    assert alone[0]['pair_id'] + '-' in both[0]['pair_id']


def change_list(root, old, new):
    path = root / 'audio.csv'
    path.write_text(path.read_text().replace(old, new))


@pytest.mark.parametrize(
    'change, words',
    [
        (lambda r: (r / 'audio/3_bob_1.wav').unlink(), 'no target file: 1'),
        (lambda r: change_list(r, ',3,bob', ',x,bob'), "line 2.: digit 'x'"),
        (
            lambda r: change_list(r, 'digit', 'label'),
            "column 'digit'; it has 'file', 'label'",
        ),
        (
            lambda r: (r / 'audio.csv').write_text(''),
            'csv. has no row. Put rec',
        ),
        (lambda r: (r / 'audio.csv').unlink(), 'not exist.*Put recordings'),
        (lambda r: (r / 'mnist.npz').unlink(), 'does not exist.*mnist.npz'),
        (
            lambda r: np.savez(r / 'mnist.npz', images=np.zeros((1, 2, 2))),
            "no array 'labels'",
        ),
        (
            lambda r: np.savez(r / 'mnist.npz', labels=np.arange(10)),
            'has 1 images of digit 0, but .* has 6 recordings',
        ),
        (
            lambda r: np.savez(r / 'mnist.npz', labels=np.arange(150) % 10),
            'no source file: 40',
        ),
    ],
)
def test_faults(root, change, words):
    change(root)
    with pytest.raises(DatasetError, match=words):
        build(root)


def test_wrong_arguments(root):
    with pytest.raises(DatasetError, match=r"'gone'.*Free Spoken Digit"):
        build('gone')
    with pytest.raises(ConfigError, match=r'has ann, bob, cid\. Name one'):
        build(root, ['ann', 'eve'])
    with pytest.raises(ConfigError, match='speakers'):
        build(root, [])
    with pytest.raises(ConfigError, match='images_per_clip=0'):
        build(root, images_per_clip=0)
    with pytest.raises(ConfigError, match='seed=-1'):
        build(root, seed=-1)


# ------------------------------------------------------------ rows of arrays


def test_row_of_an_archive(root):
    load = LoadArrayRow()
    path = f'{root}/mnist.npz/images'
    for index in (7, 0, 149):
        got = load(dict(img_path=f'{path}/{index}'))
        assert got['img'].dtype == np.uint8
        assert got['img_shape'] == got['ori_shape'] == (28, 28)
        assert got['img'][3, 4] == index and got['img'].sum() == index
        got['img'][:] = 255  # must not reach the next reader
        assert load(dict(img_path=f'{path}/{index}'))['img'].sum() == index


@pytest.mark.parametrize(
    'name, index, words',
    [
        ('images', 150, 'has 150 rows, but row 150'),
        ('images', -1, 'row -1 is asked for'),
        ('labels', 0, r'shape \(150,\); expected images'),
        ('nothing', 0, "no array 'nothing'"),
    ],
)
def test_row_that_is_not_there(root, name, index, words):
    with pytest.raises(UnreadableFileError, match=words):
        LoadArrayRow()(dict(img_path=f'{root}/mnist.npz/{name}/{index}'))


# ------------------------------------------------------------ classification


def test_one_side_for_classification_with_stock_parts(root):
    """The labels reach stock Accuracy through a DataLoader."""
    pytest.importorskip('mmcmcd.datasets.transforms.audio')
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        loader = Runner.build_dataloader(
            dict(
                batch_size=16,
                num_workers=1,
                sampler=dict(type='DefaultSampler', shuffle=False),
                dataset=dict(
                    type='mmcmcd.DigitsAV',
                    speakers=['cid'],
                    data_root=str(root),
                    pipeline=[
                        dict(type='mmcmcd.SelectSide', side='target'),
                        dict(type='mmcmcd.LoadAudio', sampling_rate=8000),
                        dict(type='PackInputs'),
                    ],
                ),
            )
        )
        metric = Accuracy()
        for batch in loader:
            for wave, sample in zip(
                batch['inputs'], batch['data_samples'], strict=True
            ):
                assert wave.shape == (1, 800) and wave.dtype == torch.float32
                # A digit is told by its loudness here; nine is misheard.
                heard = min(round(12 * wave.max().item()) - 1, 8)
                sample.set_pred_score(torch.eye(10)[heard])
            metric.process({}, [s.to_dict() for s in batch['data_samples']])
        assert metric.evaluate(20)['accuracy/top1'] == pytest.approx(90)


@pytest.mark.skipif(not REAL.is_dir(), reason='needs MMCMCD_REALDATA')
class TestRealDigits:
    def test_counts_and_labels(self):
        labels = np.load(REAL / 'mnist.npz')['labels']
        train, test = DigitsAV(data_root=str(REAL)), build(REAL, ['nicolas'])
        assert (len(train), len(test)) == (600, 200)
        used = []
        for dataset in (train, test):
            for i in range(len(dataset)):
                item = dataset.get_data_info(i)
                used.append(image_of(item))
                assert labels[used[-1]] == item['gt_label']
        assert len(set(used)) == 800

    def test_image(self):
        pipeline = Compose(
            [
                dict(
                    type='mmcmcd.OnSide',
                    sides='source',
                    transforms=[dict(type='mmcmcd.LoadArrayRow')],
                )
            ]
        )
        image = pipeline(build(REAL, ['george'])[0])['source']['img']
        assert image.shape == (28, 28) and image.max() > 200
