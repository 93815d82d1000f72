import json
import time

import cv2
import numpy as np
import pytest

from mmcmcd.datasets.nyu_meta import map_40_to_13
from mmcmcd.datasets.synthetic_rooms import (
    VIEWS_PER_ROOM,
    render_room,
    write_rooms,
)
from mmcmcd.datasets.synthetic_rooms import camera as cam
from mmcmcd.datasets.synthetic_rooms.raycast import (
    Group,
    cast,
    surface,
    visible,
)
from mmcmcd.datasets.synthetic_rooms.scene import build_room
from mmcmcd.errors import ConfigError, DatasetError

SMALL = dict(num_frames=13, seed=4, height=24, width=32, few_labels=(2, 5),
             num_draws=2)  # fmt: skip


@pytest.fixture(scope='module')
def rooms(tmp_path_factory):
    return write_rooms(tmp_path_factory.mktemp('rooms') / 'set', **SMALL)


@pytest.fixture(scope='module')
def frames():
    return [render_room(7, i, 48, 64) for i in range(0, 36, 2)]


def read(path):
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)


def one_box(yaw, size=(1.0, 0.5, 2.0), at=(3.0, 2.0)):
    low = np.array([-size[0] / 2, -size[1] / 2, 0], np.float32)
    high = low + np.array(size, np.float32)
    origin = np.array([[at[0]], [at[1]], [0]], np.float32)
    return Group(
        origin, np.float32(np.cos(yaw)), np.float32(np.sin(yaw)),
        low[None, :, None], high[None, :, None], 6, True,
    )  # fmt: skip


def test_cast_against_hand_computed_distances():
    size = np.array([6, 4, 3], np.float32)
    origin = np.array([[1], [2], [1]], np.float32)
    rays = np.array([[1, 0, 0], [2, 0, 0], [-1, 0, 0], [0, 1, 0], [0, 0, -1],
                     [0, 0, 1], [1, 0, 0.75]], np.float32).T  # fmt: skip
    distance, part = cast(size, [one_box(0)], origin, rays)
    # The box reaches from x=2.5 to 3.5; the last ray passes above it ... at
    # x=2.5 it is at z=2.125 and meets the ceiling at t=2.667.
    np.testing.assert_allclose(
        distance, [1.5, 0.75, 1, 2, 1, 2, 2 / 0.75], rtol=1e-5
    )
    assert part.tolist() == [6, 6, 2, 5, 0, 1, 1]


def test_rotated_box_and_its_normal():
    size = np.array([6, 4, 3], np.float32)
    origin = np.array([[1], [2], [1]], np.float32)
    ray = np.array([[1, 0, 0]], np.float32).T
    # Turned by 90 degrees its narrow side (0.5) lies along the ray.
    group = one_box(np.pi / 2)
    hit = cast(size, [group], origin, ray)
    assert hit[0][0] == pytest.approx(3 - 0.25 - 1, abs=1e-5)
    # By 45 degrees and square, the ray meets the edge.
    hit = cast(size, [one_box(np.pi / 4, (1, 1, 2))], origin, ray)
    assert hit[0][0] == pytest.approx(2 - np.sqrt(0.5), abs=1e-4)
    group = one_box(0.3)
    ends = surface([group], origin, ray, *cast(size, [group], origin, ray))
    expected = [-np.cos(0.3), -np.sin(0.3), 0]
    np.testing.assert_allclose(ends.normal[:, 0], expected, atol=1e-5)


def test_shadow():
    group = one_box(0)
    start = np.array([[1, 1, 1], [2, 2, 3.5], [1, 2.5, 1]], np.float32)
    target = np.array([[5, 5, 5], [2, 2, 3.5], [1, 2.5, 1]], np.float32)
    # Through the box; above it; beside it.
    assert visible([group], start, target).tolist() == [False, True, True]
    glass = group._replace(shadow=False)
    assert visible([glass], start, target).all()


def test_depth_is_along_the_camera_axis():
    pose = cam.Camera(np.zeros((3, 1), np.float32), cam._axes(0.7, -0.2, 0.1))
    rays = pose.rays(12, 16)
    np.testing.assert_allclose(pose.axes[:, 2] @ rays, 1, rtol=1e-5)
    np.testing.assert_allclose(pose.axes.T @ pose.axes, np.eye(3), atol=1e-6)
    # Up in the picture is up in the room, right is clockwise from above.
    grid = rays.reshape(3, 12, 16)
    assert grid[2, 0].mean() > grid[2, -1].mean()
    left, right = grid[:2, 6, 0], grid[:2, 6, -1]
    assert left[0] * right[1] - left[1] * right[0] < 0


def test_frame_format(frames):
    for frame in frames:
        assert frame['rgb'].shape == (48, 64, 3)
        assert frame['rgb'].dtype == np.uint8
        assert frame['depth'].dtype == np.float32
        assert frame['depth'].min() >= 0.7 and frame['depth'].max() <= 10
        assert frame['label'].dtype == np.uint8
        assert set(np.unique(frame['label'])) <= {*range(40), 255}


def test_frames_are_varied(frames):
    labels = np.stack([frame['label'] for frame in frames])
    classes = [len(np.unique(label)) - 1 for label in labels]
    assert np.mean(classes) > 6
    assert len(np.unique(labels)) > 18
    assert len(np.unique(map_40_to_13(labels))) >= 12
    share = np.bincount(labels.ravel(), minlength=256) / labels.size
    assert share[0] < 0.5 and share[255] < 0.08
    brightness = [frame['rgb'].mean() for frame in frames]
    assert min(brightness) > 60 and max(brightness) < 200
    floor_colours = np.array([
        np.median(f['rgb'][f['label'] == 1], axis=0) for f in frames
        if np.sum(f['label'] == 1) > 50
    ])  # fmt: skip
    assert floor_colours.std(axis=0).min() > 10


def test_label_and_depth_agree():
    """A floor pixel lies on the floor, for the true pose of the camera."""
    frame = render_room(7, 5, 48, 64)
    room = build_room(7, 5 // VIEWS_PER_ROOM)
    pose = cam.choose_camera(room, np.random.default_rng([7, 5, 1]))
    point = pose.position + pose.rays(48, 64) * frame['depth'].reshape(-1)
    height = point[2].reshape(48, 64)
    floor = frame['label'] == 1
    assert floor.sum() > 100
    assert np.abs(np.median(height[floor])) < 0.02
    above = np.isin(frame['label'], [0, 2, 5, 6, 9, 13, 21])
    assert np.median(height[above]) > 0.3


def test_sensor_noise_grows_with_distance():
    def spread(metres):
        rng = np.random.default_rng(0)
        flat = np.full((100, 100), metres, np.float32)
        none = np.zeros(flat.shape, bool)
        sensed = cam.sense_depth(flat, flat, none, rng, holes=False)
        assert abs(sensed.mean() - metres) < 0.004 * metres
        return sensed.std()

    # The error of a disparity sensor is quadratic: 16 times from 2 to 8 m.
    assert spread(8.0) / spread(2.0) == pytest.approx(16, rel=0.15)


def test_holes_only_on_demand():
    full, raw = (render_room(7, 3, 48, 64, holes=h) for h in (False, True))
    assert full['depth'].min() > 0
    assert 0.001 < np.mean(raw['depth'] == 0) < 0.4
    valid = raw['depth'] > 0
    assert np.array_equal(raw['depth'][valid], full['depth'][valid])
    assert np.array_equal(raw['rgb'], full['rgb'])


def test_deterministic_and_seeded():
    one, two = render_room(3, 8, 24, 32), render_room(3, 8, 24, 32)
    other = render_room(4, 8, 24, 32)
    for key in one:
        assert np.array_equal(one[key], two[key])
        assert not np.array_equal(one[key], other[key])


def test_written_frames_are_the_rendered_ones(rooms):
    for i in (0, 12):
        frame = render_room(4, i, 24, 32)
        depth = read(rooms / f'depth/{i:04d}.png')
        assert depth.dtype == np.uint16
        assert np.abs(depth / 1000 - frame['depth']).max() <= 0.00051
        label = read(rooms / f'label40/{i:04d}.png')
        assert np.array_equal(label, frame['label'])
        label13 = read(rooms / f'label13/{i:04d}.png')
        assert np.array_equal(label13, map_40_to_13(label))
        rgb = read(rooms / f'rgb/{i:04d}.jpg')[:, :, ::-1]
        assert np.abs(rgb.astype(float) - frame['rgb']).mean() < 12


def test_processes_and_count_do_not_matter(rooms, tmp_path):
    more = write_rooms(
        tmp_path / 'set', **{**SMALL, 'num_frames': 16}, nproc=2
    )
    for folder, suffix in (('rgb', 'jpg'), ('depth', 'png')):
        for i in range(13):
            name = f'{folder}/{i:04d}.{suffix}'
            assert (more / name).read_bytes() == (rooms / name).read_bytes()


def test_splits_keep_rooms_apart(rooms):
    groups, frames = {}, []
    for split in ('train', 'val', 'test'):
        rows = (rooms / f'splits/pairs_{split}.csv').read_text().split()
        assert rows[0] == 'pair_id,group_id'
        ids, names = zip(*(row.split(',') for row in rows[1:]), strict=True)
        listed = (rooms / f'splits/{split}.txt').read_text().split()
        assert listed == list(ids)
        groups[split] = set(names)
        frames += ids
        for index, name in zip(ids, names, strict=True):
            assert name == f'room_{int(index) // VIEWS_PER_ROOM:04d}'
    assert sorted(frames) == [f'{i:04d}' for i in range(13)]
    assert not groups['train'] & groups['val']
    assert not groups['test'] & (groups['train'] | groups['val'])


def test_few_label_draws(rooms):
    def listed(name):
        return (rooms / f'splits/{name}.txt').read_text().split()

    train = set(listed('train'))
    for draw in range(2):
        two, five = listed(f'few_2_{draw}'), listed(f'few_5_{draw}')
        assert (len(two), len(five)) == (2, 5)
        assert set(two) < set(five) <= train
        assert len({int(i) // VIEWS_PER_ROOM for i in two}) == 2
    assert listed('few_5_0') != listed('few_5_1')


def test_pairs_load_with_groups(rooms):
    from mmcmcd.datasets import NYURGBDPairs

    data = NYURGBDPairs(
        data_root=str(rooms),
        ann_file='splits/pairs_train.csv',
        seg_map=dict(folder='label40', suffix='.png'),
    )
    a, b, c, d = (data[i]['group_index'] for i in range(4))
    assert a == b == c != d
    assert data[0]['seg_map_path'].endswith('label40/0000.png')


def test_finished_set_is_left_alone(rooms, capsys):
    before = {p: p.stat().st_mtime_ns for p in rooms.rglob('*')}
    start = time.perf_counter()
    write_rooms(rooms, **SMALL, nproc=2)
    assert time.perf_counter() - start < 1
    assert 'complete already' in capsys.readouterr().out
    assert {p: p.stat().st_mtime_ns for p in rooms.rglob('*')} == before


def test_unfinished_set_is_completed(tmp_path, rooms):
    out = write_rooms(tmp_path / 'set', **SMALL)
    manifest = out / 'synthetic_rooms.json'
    content = json.loads(manifest.read_text())
    manifest.write_text(json.dumps(dict(content, finished=False)))
    (out / 'depth/0003.png').write_bytes(b'')
    write_rooms(out, **SMALL)
    name = 'depth/0003.png'
    assert (out / name).read_bytes() == (rooms / name).read_bytes()
    assert json.loads(manifest.read_text())['finished'] is True


def test_foreign_folders_are_not_touched(rooms, tmp_path):
    (tmp_path / 'thesis.tex').write_text('x')
    with pytest.raises(DatasetError, match='was not made by write_rooms'):
        write_rooms(tmp_path, **SMALL)
    assert [p.name for p in tmp_path.iterdir()] == ['thesis.tex']
    with pytest.raises(DatasetError, match='seed: 4 there, 5 asked for'):
        write_rooms(rooms, **{**SMALL, 'seed': 5})


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(num_frames=6), 'need at least 7 frames'),
        (dict(few_labels=(50,)), 'few_labels=50 is more than the 9'),
        (dict(split_fractions=(1, 0, 0)), 'three positive shares'),
        (dict(height=4), 'at least 8 rows'),
        (dict(seed=-1), 'must not be negative'),
    ],
)
def test_impossible_arguments(tmp_path, change, message):
    with pytest.raises(ConfigError, match=message):
        write_rooms(tmp_path / 'set', **{**SMALL, **change})
    assert not (tmp_path / 'set').exists()
