import csv
import importlib.util
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import REPO
from scipy.io import savemat

from mmcmcd.apis import run_tool
from mmcmcd.datasets import UTDMHAD
from mmcmcd.datasets.converters import convert_utd_mhad
from mmcmcd.datasets.transforms import ResampleArray
from mmcmcd.datasets.utd_mhad import ACTIONS
from mmcmcd.errors import ConfigError, DatasetError

REALDATA = os.environ.get('MMCMCD_REALDATA')
ROOM = np.arange(240)[:, None] * 320 + np.arange(320)  # a pixel is its place


def write_clip(root, action, subject, trial, frames=20, **changed):
    """The three official files of a clip."""
    rng = np.random.default_rng(action)
    depth = ROOM[..., None] % 4096 + np.arange(frames)
    arrays = dict(
        skeleton=('d_skel', rng.standard_normal((20, 3, frames))),
        inertial=('d_iner', rng.standard_normal((2 * frames, 6))),
        depth=('d_depth', depth.astype(np.uint16)),
    )
    for modality, (name, array) in arrays.items():
        folder = root / modality.title()
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f'a{action}_s{subject}_t{trial}_{modality}.mat'
        savemat(path, {name: changed.get(modality, array)})
    return {name: array for name, (_, array) in arrays.items()}


def read_index(out):
    with open(out / 'index.csv', newline='') as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope='module')
def converted(tmp_path_factory):
    """Two people, two trials of all 27 actions, without depth."""
    out = tmp_path_factory.mktemp('utd_mhad')
    rng = np.random.default_rng(0)
    rows, series = ['key,label,action,subject,trial'], {}
    for label, action in enumerate(ACTIONS):
        for person in (1, 7):
            for trial in (1, 2):
                key = f'a{label + 1:02d}_s{person}_t{trial}'
                rows.append(f'{key},{label},{action},{person},{trial}')
                series[key] = rng.random((5, 6), np.float32)
    (out / 'index.csv').write_text('\n'.join(rows))
    np.savez(out / 'inertial.npz', **series)
    np.savez(out / 'skeleton.npz', **{k: v[:, :3] for k, v in series.items()})
    return out


def info(dataset):
    return [dataset.get_data_info(i) for i in range(len(dataset))]


# ------------------------------------------------------------- data set


def test_items(converted):
    dataset = UTDMHAD((1,), data_root=str(converted))
    assert len(dataset) == 54 and len(dataset.metainfo['classes']) == 27
    item = dataset[53]
    assert item['pair_id'] == item['group_id'] == 'a27_s1_t2'
    assert item['sides'] == ('skeleton', 'inertial')
    assert item['gt_label'] == 26
    path = item['inertial']['img_path']
    assert path == str(converted / 'inertial.npz/a27_s1_t2')


def test_sides_by_name_and_alone(converted):
    sides = dict(source='skeleton', target='inertial')
    item = UTDMHAD(1, sides, data_root=str(converted))[0]
    assert item['sides'] == ('source', 'target')
    assert 'skeleton.npz' in item['source']['img_path']
    assert 'inertial.npz' in item['target']['img_path']
    item = UTDMHAD((1,), ('inertial',), data_root=str(converted))[0]
    assert item['sides'] == ('inertial',)


def test_few_labels_are_of_different_people(converted):
    args = dict(subjects=(1, 7), data_root=str(converted))
    two = info(UTDMHAD(labels_per_class=2, **args))
    for label in range(27):
        keys = [i['pair_id'] for i in two if i['gt_label'] == label]
        assert len(keys) == 2 and len({k.split('_')[1] for k in keys}) == 2
    one = info(UTDMHAD(labels_per_class=1, **args))
    assert len(one) == 27
    assert {i['pair_id'] for i in one} < {i['pair_id'] for i in two}
    other = info(UTDMHAD(labels_per_class=1, draw=1, **args))
    assert {i['pair_id'] for i in one} != {i['pair_id'] for i in other}
    # In training every recording is a group of its own.
    assert len({i['group_id'] for i in two}) == 54


@pytest.mark.parametrize(
    'kwargs, error, words',
    [
        (dict(sides=('skeleton', 'audio')), ConfigError, "['audio']"),
        (dict(subjects=(1, 9)), DatasetError, 'subjects 9; it has 1, 7'),
        (dict(subjects=()), DatasetError, 'it has 1, 7'),
        (dict(sides=('depth',)), DatasetError, 'archive of depth'),
        (dict(sides=('depth',)), DatasetError, 'converters/utd_mhad.py'),
        (dict(labels_per_class=3), DatasetError, 'swipe_left (2)'),
        (dict(ann_file='gone.csv'), DatasetError, 'converters/utd_mhad.py'),
        (dict(data_root='gone'), DatasetError, 'converters/utd_mhad.py'),
    ],
)
def test_refusals(converted, kwargs, error, words):
    kwargs = {**dict(subjects=(1,), data_root=str(converted)), **kwargs}
    with pytest.raises(error) as caught:
        UTDMHAD(**kwargs)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    'text, words',
    [
        ('key,label,action,subject\na,1,wave,1', 'disagree'),
        ('key,label,action,subject\na,27,fly,1', 'disagree'),
        ('key,label,subject\na,1,1', "no column 'action'; it has 'key', "),
    ],
)
def test_wrong_table(tmp_path, text, words):
    (tmp_path / 'index.csv').write_text(text)
    with pytest.raises(DatasetError) as caught:
        UTDMHAD((1,), data_root=str(tmp_path))
    assert words in str(caught.value)


def test_a_missing_array_drops_its_pair(converted, tmp_path):
    for path in converted.iterdir():
        (tmp_path / path.name).symlink_to(path)
    with np.load(converted / 'inertial.npz') as archive:
        series = dict(archive)
    del series['a02_s1_t1']
    (tmp_path / 'inertial.npz').unlink()
    np.savez(tmp_path / 'inertial.npz', **series)
    with pytest.raises(DatasetError, match=r'no inertial file: 1 \(a02_s1_t1'):
        UTDMHAD((1,), data_root=str(tmp_path))
    dataset = UTDMHAD((1,), data_root=str(tmp_path), strict=False)
    assert len(dataset) == 53


@pytest.mark.skipif(not REALDATA, reason='needs MMCMCD_REALDATA')
def test_real_data():
    root = str(Path(REALDATA) / 'utd_mhad')
    sides = ('skeleton', 'inertial', 'depth')
    load = [
        dict(
            type='mmcmcd.OnSide',
            sides=side,
            transforms=[dict(type='mmcmcd.LoadArray', axes=axes)],
        )
        for side, axes in zip(sides, ('TVC', 'TC', 'THW'), strict=True)
    ]
    train = UTDMHAD((1, 3, 5), sides, data_root=root, pipeline=load)
    test = UTDMHAD((7,), sides, data_root=root)
    assert len(train) + len(test) == 431
    item = train[100]
    shapes = [tuple(item[side]['img'].shape) for side in sides]
    assert shapes[0][0] == 60 and shapes[1][0] == 6
    assert shapes[2] == (1, 12, 60, 80)


def mean_correlation(skeletons, series):
    """Of the speed of the right wrist and the magnitude of turn rates."""
    found = []
    for skeleton, values in zip(skeletons, series, strict=True):
        wrist = skeleton.unflatten(0, (20, 3))[10]
        speed = wrist.diff().norm(dim=0)
        turning = values[3:].norm(dim=0)[None]
        turning = ResampleArray(len(speed))(dict(img=turning))['img'][0]
        found.append(np.corrcoef(speed, turning)[0, 1])
    return np.mean(found)


@pytest.mark.skipif(not REALDATA, reason='needs MMCMCD_REALDATA')
def test_one_fraction_of_both_recordings_is_one_moment():
    load = [
        dict(
            type='mmcmcd.OnSide',
            sides=side,
            transforms=[dict(type='mmcmcd.LoadArray', axes=axes)],
        )
        for side, axes in (('skeleton', 'TVC'), ('inertial', 'TC'))
    ]
    crop = dict(type='mmcmcd.SharedTemporalCrop', fraction=0.5)
    dataset = UTDMHAD(
        (1, 3, 5),
        data_root=str(Path(REALDATA) / 'utd_mhad'),
        pipeline=[*load, crop],
    )
    # The first 21 actions are those of the arm that wears the sensor.
    arm = [i for i, item in enumerate(info(dataset)) if item['gt_label'] < 21]

    def crops(seed):
        np.random.seed(seed)
        items = [dataset[i] for i in arm[::4]]
        return [
            [item[side]['img'] for item in items]
            for side in ('skeleton', 'inertial')
        ]

    (skeletons, series), (others, _) = crops(0), crops(1)
    together = mean_correlation(skeletons, series)
    assert together > 0.5
    assert together > mean_correlation(others, series) + 0.2


# ------------------------------------------------------------ converter


def test_conversion(tmp_path):
    raw, out = tmp_path / 'raw', tmp_path / 'out'
    first = write_clip(raw, 3, 1, 2)
    write_clip(raw, 27, 8, 4, frames=5)
    summary = convert_utd_mhad(raw, out)
    assert (summary.converted, summary.faults) == (2, {})
    assert read_index(out) == [
        dict(
            key='a03_s1_t2',
            label='2',
            action='wave',
            subject='1',
            trial='2',
            depth_frames='20',
            inertial_samples='40',
        ),
        dict(
            key='a27_s8_t4',
            label='26',
            action='squat',
            subject='8',
            trial='4',
            depth_frames='5',
            inertial_samples='10',
        ),
    ]
    arrays = {
        name: np.load(out / f'{file}.npz')['a03_s1_t2']
        for name, file in (
            ('skeleton', 'skeleton'),
            ('inertial', 'inertial'),
            ('depth', 'depth12x60x80'),
        )
    }
    skeleton = first['skeleton'].astype(np.float32)
    for frame in range(20):
        for joint in range(20):
            np.testing.assert_array_equal(
                arrays['skeleton'][frame, joint], skeleton[joint, :, frame]
            )
    inertial = first['inertial'].astype(np.float32)
    np.testing.assert_array_equal(arrays['inertial'], inertial)
    depth = arrays['depth']
    assert depth.shape == (12, 60, 80) and depth.dtype == np.uint16
    # From the first frame to the last, every pixel one of its block.
    assert depth[0, 0, 0] == first['depth'][2, 2, 0]
    assert depth[-1, 59, 79] == first['depth'][238, 318, 19]
    dataset = UTDMHAD((8,), data_root=str(out))
    assert dataset[0]['gt_label'] == 26


def test_unreadable_clips_are_counted_and_listed(tmp_path):
    raw, out = tmp_path / 'raw', tmp_path / 'out'
    for action in range(1, 8):
        write_clip(raw, action, 1, 1, frames=2)
    (raw / 'Depth/a2_s1_t1_depth.mat').write_bytes(b'')
    cut = raw / 'Skeleton/a3_s1_t1_skeleton.mat'
    cut.write_bytes(cut.read_bytes()[:300])
    (raw / 'Inertial/a4_s1_t1_inertial.mat').unlink()
    write_clip(raw, 5, 1, 1, inertial=np.zeros((9, 5)))
    write_clip(raw, 6, 1, 1, inertial=np.full((9, 6), np.nan))
    savemat(raw / 'Skeleton/a7_s1_t1_skeleton.mat', dict(other=1))
    summary = convert_utd_mhad(raw, out)
    assert summary.converted == 1
    faults = summary.faults
    assert list(faults) == [f'a0{i}_s1_t1' for i in range(2, 8)]
    assert 'a2_s1_t1_depth.mat cannot be read' in faults['a02_s1_t1']
    assert 'a3_s1_t1_skeleton.mat cannot be read' in faults['a03_s1_t1']
    assert faults['a04_s1_t1'] == 'no inertial file'
    assert 'shape (9, 5), expected (T, 6)' in faults['a05_s1_t1']
    assert 'NaN' in faults['a06_s1_t1']
    assert 'no variable d_skel' in faults['a07_s1_t1']
    with open(out / 'unreadable.csv', newline='') as file:
        assert [row['key'] for row in csv.DictReader(file)] == list(faults)
    assert [row['key'] for row in read_index(out)] == ['a01_s1_t1']


def test_some_modalities_only(tmp_path):
    write_clip(tmp_path / 'raw', 1, 1, 1, frames=2)
    (tmp_path / 'raw/Depth/a1_s1_t1_depth.mat').unlink()
    out = tmp_path / 'out'
    convert_utd_mhad(tmp_path / 'raw', out, ('skeleton', 'inertial'))
    assert not (out / 'depth12x60x80.npz').exists()
    assert read_index(out)[0]['depth_frames'] == ''
    with pytest.raises(ConfigError, match='rgb'):
        convert_utd_mhad(tmp_path / 'raw', out, ('rgb',))


def run_converter(monkeypatch, *args):
    path = REPO / 'tools/dataset_converters/utd_mhad.py'
    spec = importlib.util.spec_from_file_location('utd_mhad_tool', path)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    monkeypatch.setattr(sys, 'argv', [str(path), *map(str, args)])
    with pytest.raises(SystemExit) as end:
        run_tool(tool.main)
    return end.value.code or 0


def test_tool(tmp_path, monkeypatch, capsys):
    raw, out = tmp_path / 'raw', tmp_path / 'out'
    write_clip(raw, 1, 1, 1, frames=2)
    write_clip(raw, 2, 1, 1, frames=2)
    (raw / 'Depth/a2_s1_t1_depth.mat').unlink()
    assert run_converter(monkeypatch, raw, '--out', out) == 0
    text = capsys.readouterr()
    assert 'ETA' in text.err
    assert 'left out: a02_s1_t1: no depth file' in text.out
    assert '1 clips converted' in text.out and '1 left out' in text.out


@pytest.mark.parametrize(
    'names, words',
    [
        ([], 'found no such file'),
        (['a28_s1_t1_depth.mat'], 'found actions [28]'),
        (['x/a1_s1_t1_depth.mat', 'y/a1_s1_t1_depth.mat'], 'twice'),
        (['a1_s1_t1_depth.mat'], 'No clip'),
    ],
)
def test_tool_errors(tmp_path, monkeypatch, capsys, names, words):
    for name in names:
        path = tmp_path / 'raw' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b'')
    args = (tmp_path / 'raw', '--out', tmp_path / 'out')
    assert run_converter(monkeypatch, *args) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()
