import shutil
from collections import Counter

import cv2
import numpy as np
import pytest
from conftest import REPO
from mmengine.config import Config
from mmengine.registry import DATASETS, DefaultScope

from mmcmcd.datasets import VGGSound
from mmcmcd.errors import ConfigError, DatasetError

ROWS = [
    '---g-f_I2yQ,1,"people marching",test',
    '--0PQM4-hqg,30,waterfall burbling,train',
    'AbC_dEf-123,0,"dog growling, barking",train',
    'abc_dEf-123,110,waterfall burbling,train',
    'AbC_dEf-123,20,waterfall burbling,train',
]
NAMES = (
    '---g-f_I2yQ_000001',
    '--0PQM4-hqg_000030',
    'AbC_dEf-123_000000',
    'abc_dEf-123_000110',
    'AbC_dEf-123_000020',
)


@pytest.fixture
def warnings(monkeypatch):
    logs = []
    for module in ('vggsound', 'paired_dataset'):
        monkeypatch.setattr(
            f'mmcmcd.datasets.{module}.print_log',
            lambda text, **_: logs.append(text),
        )
    return logs


def make(root, rows=ROWS, names=NAMES, frames=('005000',), durations=10.0):
    (root / 'vggsound.csv').write_text('\n'.join(rows) + '\n')
    (root / 'audio').mkdir()
    for name in names:
        (root / 'frames' / name).mkdir(parents=True)
        for millisecond in frames:
            (root / 'frames' / name / f'{millisecond}.jpg').touch()
        (root / 'audio' / f'{name}.wav').touch()
    lines = ['clip,duration', *(f'{name},{durations}' for name in names)]
    (root / 'clips.csv').write_text('\n'.join(lines) + '\n')
    return str(root)


def items(*args, **kwargs):
    dataset = VGGSound(*args, serialize_data=False, **kwargs)
    return [dataset.get_data_info(i) for i in range(len(dataset))]


def test_item(tmp_path, warnings):
    frames = ('000500', '001500', '1000500')  # by time, not by name
    root = make(tmp_path, frames=frames, durations=9.25)
    (tmp_path / 'frames' / NAMES[2] / 'thumbnail.jpg').touch()
    dataset = DATASETS.build(dict(type='mmcmcd.VGGSound', data_root=root))
    assert dataset.metainfo['classes'] == (
        'dog growling, barking',
        'people marching',
        'waterfall burbling',
    )
    item = dataset[1]
    assert 0 <= item.pop('group_index') < 2**63
    folder = f'{root}/frames/{NAMES[2]}'
    assert item == dict(
        pair_id=NAMES[2],
        group_id='AbC_dEf-123',
        sample_idx=1,
        sides=('source', 'target'),
        source=dict(
            img_path=f'{folder}/001500.jpg',
            frames=[f'{folder}/{name}.jpg' for name in frames],
            frame_times=[0.5, 1.5, 1000.5],
            duration=9.25,
        ),
        target=dict(img_path=f'{root}/audio/{NAMES[2]}.wav', duration=9.25),
        gt_label=0,
    )
    assert not warnings


def test_clips_of_one_video_are_a_group(tmp_path):
    train = items(data_root=make(tmp_path))
    groups = [item['group_index'] for item in train]
    # Ids of YouTube differ by case.
    assert groups[1] == groups[3] and len(set(groups)) == 3
    assert [item['gt_label'] for item in train] == [2, 0, 2, 2]
    assert [item['pair_id'] for item in train] == list(NAMES[1:])


def test_classes_are_those_of_the_whole_list(tmp_path):
    root = make(tmp_path)
    (test,) = items('test', data_root=root)
    assert test['gt_label'] == 1
    order = ['waterfall burbling', 'people marching', 'dog growling, barking']
    train = items(data_root=root, metainfo=dict(classes=order))
    assert [item['gt_label'] for item in train] == [0, 2, 0, 0]
    with pytest.raises(DatasetError, match='not among the 1 of metainfo'):
        VGGSound(data_root=root, metainfo=dict(classes=order[:1]))


def test_splits_for_tuning(tmp_path):
    rows = [f'video{i},{k},a,train' for i in range(150) for k in (0, 10)]
    names = [f'video{i}_0000{k}0' for i in range(150) for k in (0, 1)]
    root = make(tmp_path, [*rows, ROWS[0]], names)
    clips = {
        split: Counter(item['group_id'] for item in items(split, root))
        for split in ('train', 'fit', 'val')
    }
    assert clips['fit'] + clips['val'] == clips['train']
    assert not clips['fit'].keys() & clips['val'].keys()
    assert 18 <= len(clips['val']) <= 42  # a fifth of 150, by a hash
    # Tuned settings refer to just these videos.
    assert sorted(clips['val'])[:3] == ['video0', 'video10', 'video106']


def test_flac(tmp_path):
    root = make(tmp_path)
    wav = tmp_path / 'audio' / f'{NAMES[0]}.wav'
    wav.rename(wav.with_suffix('.flac'))
    (test,) = items('test', data_root=root)
    assert test['target']['img_path'].endswith('yQ_000001.flac')
    wav.touch()
    with pytest.raises(DatasetError, match='several target files of one id'):
        VGGSound('test', data_root=root, strict=True)


def test_missing_clips_are_left_out_and_counted(tmp_path, warnings):
    root = make(tmp_path, names=NAMES[:3])
    (tmp_path / 'frames' / NAMES[1] / '005000.jpg').unlink()
    (item,) = items(data_root=root)
    assert item['pair_id'] == NAMES[2]
    (text,) = warnings
    assert '3 faulty and 1 complete pairs' in text
    assert 'no source file: 3 (' in text and f'{NAMES[1]}/*.jpg' in text
    assert 'no target file: 2 (' in text and 'strict=False' in text
    with pytest.raises(DatasetError, match='3 faulty and 1 complete'):
        VGGSound(data_root=root, strict=True)
    (tmp_path / 'audio' / f'{NAMES[2]}.wav').unlink()
    with pytest.raises(DatasetError, match='found no pair in .*vggsound.csv'):
        VGGSound(data_root=root)


def test_clip_listed_twice(tmp_path, warnings):
    root = make(tmp_path, [*ROWS, ROWS[2]])
    assert len(VGGSound(data_root=root)) == 4
    assert 'listed more than once: 1 (AbC_dEf-123_000000)' in warnings[0]


def test_durations(tmp_path, warnings):
    root = make(tmp_path, durations=4.5)
    assert {i['target']['duration'] for i in items(data_root=root)} == {4.5}
    assert not warnings
    (tmp_path / 'clips.csv').unlink()
    assert {i['target']['duration'] for i in items(data_root=root)} == {10.0}
    (text,) = warnings
    assert 'no duration of 4 of 4 clips' in text and 'taken as 10 s' in text
    for content in ('clip,duration\na,b\n', 'clip,seconds\na,1\n'):
        (tmp_path / 'clips.csv').write_text(content)
        with pytest.raises(DatasetError, match=r"clips.csv' is damaged"):
            VGGSound(data_root=root)


def test_sound_alone_needs_no_frames(tmp_path, warnings):
    root = make(tmp_path, durations=4.5)
    both = items(data_root=root)
    shutil.rmtree(tmp_path / 'frames')
    sounds = items(data_root=root, sides=('target',))
    assert [item['target'] for item in sounds] == [
        item['target'] for item in both
    ]
    assert all('source' not in item for item in sounds)
    assert [i['group_index'] for i in sounds] == [
        i['group_index'] for i in both
    ]
    assert not warnings
    with pytest.raises(DatasetError, match='no source file: 4'):
        VGGSound(data_root=root, strict=True)
    (tmp_path / 'audio' / f'{NAMES[1]}.wav').unlink()
    with pytest.raises(DatasetError, match='no target file: 1'):
        VGGSound(data_root=root, sides=['target'], strict=True)


def test_frames_alone_need_no_sound(tmp_path):
    root = make(tmp_path)
    shutil.rmtree(tmp_path / 'audio')
    (test,) = items('test', data_root=root, sides=('source',))
    assert test['sides'] == ('source',) and 'target' not in test
    assert test['source']['frame_times'] == [5.0]
    assert test['source']['duration'] == 10.0


def test_few_labels(tmp_path):
    root = make(tmp_path, ROWS[1:], NAMES[1:])
    few = items(data_root=root, labels_per_class=1, draw=3)
    assert Counter(item['gt_label'] for item in few) == {0: 1, 1: 1}
    with pytest.raises(DatasetError, match=r'growling, barking \(1\)'):
        VGGSound(data_root=root, labels_per_class=2)


@pytest.mark.parametrize(
    'row, words',
    [
        ('abc,1,dog', '3 cells'),
        ('abc,1,dog, barking,train', '5 cells'),
        ('youtube_id,start,label,split', "'start' is no start second"),
        ('abc,-1,dog,train', "'-1' is no start second"),
        (',1,dog,train', "'' is no YouTube id"),
        ('../abc,1,dog,train', r"'\.\./abc' is no YouTube id"),
        ('abc,1, ,train', 'the label is empty'),
        ('abc,1,dog,val', "'val' is no split"),
        ('abc,1,"dog,train', 'unexpected end of data'),
    ],
)
def test_broken_row(tmp_path, row, words):
    root = make(tmp_path, [*ROWS[:2], row])
    with pytest.raises(DatasetError, match=f'csv., line 3: {words}.*Expected'):
        VGGSound(data_root=root)


def test_missing_data_and_wrong_arguments(tmp_path):
    with pytest.raises(DatasetError, match=r"'gone'.*tools/dataset_convert"):
        VGGSound(data_root='gone')
    with pytest.raises(DatasetError, match=r'vggsound.csv. does not exist'):
        VGGSound(data_root=str(tmp_path))
    root = make(tmp_path, ROWS[:1])
    with pytest.raises(ConfigError, match="split='all' is unknown"):
        VGGSound('all', data_root=root)
    with pytest.raises(ConfigError, match=r"names \['audio'\].*'target'"):
        VGGSound(data_root=root, sides=('target', 'audio'))
    with pytest.raises(DatasetError, match=r"'val'; it has test \(1\)"):
        VGGSound('val', data_root=root)
    (tmp_path / 'vggsound.csv').write_text('\n')
    with pytest.raises(DatasetError, match='has no row'):
        VGGSound(data_root=root)


def build_from_config(root, name):
    config = Config.fromfile(REPO / f'configs/_base_/datasets/{name}.py')
    cfg = config.train_dataloader.dataset
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return DATASETS.build(dict(cfg, data_root=root))


def write_sounds(root, wave):
    soundfile = pytest.importorskip('soundfile')
    for path in (root / 'audio').iterdir():
        soundfile.write(path, wave, 16000)


def test_partly_silent_clip_is_never_banned(tmp_path):
    root = make(tmp_path)
    for path in (tmp_path / 'frames').rglob('*.jpg'):
        cv2.imwrite(str(path), np.zeros((48, 64, 3), np.uint8))
    # Nothing is heard in the first eight of ten seconds.
    wave = np.random.default_rng(0).uniform(-0.5, 0.5, 160000)
    wave[:128000] = 0
    write_sounds(tmp_path, wave)
    dataset = build_from_config(root, 'vggsound_pairs')
    spans = [
        float(np.ptp(dataset[i % 4]['inputs']['target'].numpy()))
        for i in range(24)
    ]
    assert min(spans) == 0 < max(spans)  # silent segments were drawn
    assert dataset.num_skipped == 0


def test_fine_tuning_needs_no_frames(tmp_path):
    root = make(tmp_path)
    shutil.rmtree(tmp_path / 'frames')
    write_sounds(tmp_path, np.zeros(160000))
    dataset = build_from_config(root, 'vggsound_cls')
    assert len(dataset) == 4
    assert dataset[0]['inputs'].shape == (1, 80000)
