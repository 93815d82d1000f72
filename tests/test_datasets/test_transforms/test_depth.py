import numpy as np
import pytest

from mmcmcd.datasets.transforms import (
    ClipDepth,
    DepthToDisparity,
    DepthToHHA,
    DepthToNormals,
    FillDepth,
    NormalizeDepth,
    RandomDepthJitter,
    RepeatChannels,
)
from mmcmcd.datasets.transforms.depth_geometry import (
    encode_hha,
    estimate_up,
    surface_normals,
)
from mmcmcd.errors import ConfigError


def run(transform, depth, **extra):
    depth = np.array(depth, np.float32)
    before = depth.copy()
    results = transform(dict(img=depth, ori_shape=depth.shape, **extra))
    np.testing.assert_array_equal(depth, before)  # inputs are not changed
    return results['img']


def room_depth(height, width, focal, up=(0, -1, 0), camera_height=1.4):
    """Depth of a 5 x 6 m box room, 2.6 m high, seen with ``up`` upward."""
    up = np.array(up, float) / np.linalg.norm(up)
    forward = np.array([0, 0, 1.0]) - up[2] * up
    forward /= np.linalg.norm(forward)
    world = np.stack([np.cross(-up, forward), -up, forward])
    u = (np.arange(width) - (width - 1) / 2) / focal
    v = (np.arange(height) - (height - 1) / 2) / focal
    rays = np.stack([*np.meshgrid(u, v), np.ones((height, width))], axis=-1)
    rays = rays @ world.T  # x right, y down, z forward in the room
    yaw = np.radians(25)
    turn = np.array(
        [
            [np.cos(yaw), 0, np.sin(yaw)],
            [0, 1, 0],
            [-np.sin(yaw), 0, np.cos(yaw)],
        ]
    )
    rays = rays @ turn.T
    walls = [(0, 2.5), (0, -2.5), (1, camera_height), (1, camera_height - 2.6)]
    walls += [(2, 4.0), (2, -2.0)]
    depth = np.full((height, width), np.inf)
    for axis, position in walls:
        with np.errstate(divide='ignore'):
            t = position / rays[..., axis]
        depth = np.where(t > 0, np.minimum(depth, t), depth)
    return depth.astype(np.float32)


def tilted_up(pitch, roll):
    """Upward direction of a camera looking down by pitch, rolled."""
    pitch, roll = np.radians([pitch, roll])
    up = np.array([0, -np.cos(pitch), -np.sin(pitch)])
    c, s = np.cos(roll), np.sin(roll)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ up


def test_clip_keeps_invalid():
    out = run(ClipDepth(1, 5), [[0, 0.5, 3, 9]])
    np.testing.assert_array_equal(out, [[0, 1, 3, 5]])
    for bounds in [(0, 5), (-1, 5), (5, 5)]:
        with pytest.raises(ConfigError):
            ClipDepth(*bounds)


def test_normalize_range_and_log():
    depth = [[0, 1, 3, 5, 9]]
    out = run(NormalizeDepth('range', 1, 5), depth)
    np.testing.assert_allclose(out, [[0, 0, 0.5, 1, 1]], atol=1e-6)
    assert out.dtype == np.float32
    out = run(NormalizeDepth('log', 1, 16), [[0, 0.5, 1, 4, 16, 20]])
    np.testing.assert_allclose(out, [[0, 0, 0, 0.5, 1, 1]], atol=1e-6)
    assert out.dtype == np.float32


def test_normalize_robust_equals_naive_and_ignores_outliers():
    rng = np.random.default_rng(0)
    depth = rng.uniform(1, 4, (30, 40)).astype(np.float32)
    depth[:5] = 0
    depth[6, :20] = 1000
    out = run(NormalizeDepth('robust'), depth)
    values = np.sort(depth[depth > 0].astype(np.float64))
    cut = int(0.1 * len(values))
    kept = values[cut:-cut]
    naive = (depth - kept.mean()) / np.sqrt(kept.var() + 1e-6)
    naive[depth == 0] = 0
    np.testing.assert_allclose(out, naive, rtol=1e-4, atol=1e-5)
    assert out.dtype == np.float32
    without = run(NormalizeDepth('robust', trim=0.0), depth)
    assert np.abs(without - out).max() > 1


@pytest.mark.parametrize('mode', ['range', 'log', 'robust'])
@pytest.mark.parametrize('value', [0, 2.5])
@pytest.mark.parametrize('shape', [(5, 6), (1, 1)])
def test_normalize_finite_on_empty_and_constant(mode, value, shape):
    low = 0.5 if mode == 'log' else 0
    out = run(NormalizeDepth(mode, low, 10), np.full(shape, value))
    assert np.isfinite(out).all()
    if value == 0 or mode == 'robust':
        np.testing.assert_allclose(out, 0, atol=1e-3)


@pytest.mark.parametrize(
    'kwargs',
    [
        dict(mode='minmax'),
        dict(mode='log'),
        dict(min_depth=3, max_depth=2),
        dict(trim=0.5),
    ],
)
def test_normalize_bad_arguments(kwargs):
    with pytest.raises(ConfigError, match='NormalizeDepth'):
        NormalizeDepth(**kwargs)


@pytest.mark.parametrize('channels', [1, 3, 5])
@pytest.mark.parametrize('shape', [(4, 5), (4, 5, 1), (4, 1)])
def test_repeat_channels(channels, shape):
    img = np.random.default_rng(0).random(shape)
    out = run(RepeatChannels(channels), img)
    assert out.shape == (*shape[:2], channels)
    for c in range(channels):
        np.testing.assert_array_equal(
            out[..., c], img.reshape(shape[:2]).astype(np.float32)
        )
    with pytest.raises(ConfigError, match='one-channel'):
        run(RepeatChannels(), np.zeros((4, 5, 3)))


def test_disparity():
    out = run(DepthToDisparity(2), [[0, 0.5, 4]])
    np.testing.assert_array_equal(out, [[0, 4, 0.5]])
    assert np.isfinite(run(DepthToDisparity(), np.zeros((3, 3)))).all()


def test_fill_takes_the_nearest_valid():
    rng = np.random.default_rng(0)
    depth = rng.uniform(1, 9, (40, 50)).astype(np.float32)
    holes = rng.random((40, 50)) < 0.7
    holes[10:25, 20:40] = True
    depth[holes] = 0
    out = run(FillDepth(), depth)
    np.testing.assert_array_equal(out[~holes], depth[~holes])
    seeds = np.argwhere(~holes)
    for y, x in np.argwhere(holes)[::17]:
        distance = np.hypot(*(seeds - (y, x)).T)
        chosen = np.isclose(depth[tuple(seeds.T)], out[y, x])
        # chamfer distance: near the best, not always the best
        assert distance[chosen].min() <= distance.min() * 1.03


def test_fill_trivial_maps():
    assert not run(FillDepth(), np.zeros((4, 5))).any()
    full = np.random.default_rng(0).uniform(1, 2, (4, 5))
    np.testing.assert_array_equal(
        run(FillDepth(), full), full.astype(np.float32)
    )


def test_jitter_scale_and_holes():
    np.random.seed(0)
    depth = np.full((40, 60), 2.0)
    depth[:4] = 0
    jitter = RandomDepthJitter((0.5, 2), max_holes=3, prob=1.0)
    factors, holes = [], []
    for _ in range(200):
        out = run(jitter, depth)
        assert not out[:4].any()
        values = np.unique(out[out > 0])
        assert len(values) == 1
        factors.append(values[0] / 2)
        holes.append(np.mean(out[4:] == 0))
    assert 0.5 <= min(factors) < 0.6
    assert 1.9 < max(factors) <= 2
    assert min(holes) == 0
    assert 0.02 < np.mean(holes) < 0.1


def test_jitter_noise_grows_with_the_square_and_keeps_validity():
    np.random.seed(0)
    jitter = RandomDepthJitter((1, 1), noise_std=0.01, prob=1.0)
    near, far = (run(jitter, np.full((100, 100), z)) for z in (1, 4))
    assert near.std() == pytest.approx(0.01, rel=0.05)
    assert far.std() == pytest.approx(0.16, rel=0.05)
    assert far.dtype == np.float32
    loud = RandomDepthJitter((1, 1), noise_std=5, prob=1.0)
    assert (run(loud, np.full((50, 50), 2.0)) > 0).all()


def test_jitter_probability():
    np.random.seed(0)
    depth = np.ones((2, 2))
    changed = [
        (run(RandomDepthJitter((2, 2), prob=0.3), depth) != 1).any()
        for _ in range(500)
    ]
    assert 0.23 < np.mean(changed) < 0.37
    for kwargs in [dict(scale_range=(0, 1)), dict(hole_size=(0.5, 2))]:
        with pytest.raises(ConfigError, match='RandomDepthJitter'):
            RandomDepthJitter(**kwargs)


def plane_depth(normal, distance, focal, height=48, width=64):
    """Depth of the plane ``normal . P = -distance`` (normal to camera)."""
    fx, fy = focal
    u = (np.arange(width) - (width - 1) / 2) / fx
    v = (np.arange(height) - (height - 1) / 2)[:, None] / fy
    return (-distance / (normal[0] * u + normal[1] * v + normal[2])).astype(
        np.float32
    )


@pytest.mark.parametrize('window', [3, 5, 9])
@pytest.mark.parametrize(
    'normal', [(0, 0, -1), (0.5, 0, -1), (0, -1, -0.6), (-0.4, 0.7, -1)]
)
def test_normals_of_a_plane_are_exact(window, normal):
    normal = np.array(normal) / np.linalg.norm(normal)
    focal = (60.0, 75.0)
    depth = plane_depth(normal, 2.0, focal)
    assert (depth > 0).all()
    out = run(DepthToNormals(focal=focal, window=window), depth)
    assert out.dtype == np.float32
    np.testing.assert_allclose(
        out, np.broadcast_to(normal, out.shape), atol=5e-3
    )


def test_normals_beside_holes_and_of_nothing():
    normal = np.array([0.3, -0.5, -1]) / np.linalg.norm([0.3, -0.5, -1])
    depth = plane_depth(normal, 2.0, (60.0, 60.0))
    holes = np.random.default_rng(0).random(depth.shape) < 0.3
    depth[holes] = 0
    out = surface_normals(depth, (60.0, 60.0), 5)
    assert not out[holes].any()
    known = out.any(axis=-1)
    assert known[~holes].mean() > 0.99
    np.testing.assert_allclose(
        out[known], np.broadcast_to(normal, out[known].shape), atol=0.01
    )
    assert not surface_normals(np.zeros((9, 9), np.float32), (9, 9)).any()
    line = np.zeros((9, 9), np.float32)
    line[4] = 2  # a row of pixels does not define a plane
    assert not surface_normals(line, (9, 9)).any()


def test_fov_holds_after_a_resize_and_focal_is_checked():
    normal = np.array([0.5, 0.2, -1]) / np.linalg.norm([0.5, 0.2, -1])
    fov = np.degrees(2 * np.arctan(32 / 60))
    for size in [(48, 64), (24, 32)]:
        focal = (60 * size[1] / 64,) * 2
        depth = plane_depth(normal, 2.0, focal, *size)
        out = run(DepthToNormals(fov=fov), depth)
        np.testing.assert_allclose(
            out, np.broadcast_to(normal, out.shape), atol=5e-3
        )
    results = dict(img=depth, ori_shape=(48, 64))
    with pytest.raises(ConfigError, match=r'64x48 .* 32x24'):
        DepthToNormals(focal=(60, 60))(results)


@pytest.mark.parametrize('cls', [DepthToNormals, DepthToHHA])
def test_camera_arguments(cls):
    bad = [dict(), dict(fov=60, focal=(1, 1)), dict(fov=180)]
    for kwargs in [*bad, dict(fov=60, window=4)]:
        with pytest.raises(ConfigError, match=cls.__name__):
            cls(**kwargs)
    results = dict(img=np.ones((8, 8), np.float32), ori_shape=(8, 8))
    assert cls(fov=60)(results)['modality'] in ('normals', 'hha')


@pytest.mark.parametrize('noise', [0, 0.003])
@pytest.mark.parametrize(
    ('pitch', 'roll'), [(0, 0), (20, 0), (-10, 8), (30, -15)]
)
def test_gravity_in_a_room(pitch, roll, noise):
    up = tilted_up(pitch, roll)
    depth = room_depth(120, 160, 130, up)
    rng = np.random.default_rng(0)
    depth += (noise * rng.standard_normal(depth.shape) * depth**2).astype(
        np.float32
    )
    depth[rng.random(depth.shape) < 0.1] = 0
    found = estimate_up(surface_normals(depth, (130, 130), 7))
    error = np.degrees(np.arccos(np.clip(found @ up, -1, 1)))
    start = np.degrees(np.arccos(np.clip(-up[1], -1, 1)))
    assert error < 3, f'{error:.1f} degrees off, start {start:.1f}'


def test_hha_of_a_room():
    up = tilted_up(20, 5)
    focal = 130
    depth = room_depth(120, 160, focal, up, camera_height=1.4)
    depth[:2] = 0
    hha = run(DepthToHHA(focal=(focal, focal)), depth)
    assert hha.dtype == np.float32
    assert not hha[:2].any()
    assert hha.min() >= 0
    assert hha.max() <= 255
    valid = depth > 0
    np.testing.assert_allclose(
        hha[..., 0][valid],
        np.minimum(310 / np.maximum(depth[valid], 1), 255),
        rtol=1e-5,
    )
    # the floor is where height is about 0, and its normal points upward
    v, u = np.mgrid[:120, :160]
    points = np.stack(
        [(u - 79.5) / focal, (v - 59.5) / focal, np.ones_like(u)], -1
    )
    height = (points * depth[..., None]) @ up + 1.4
    inside = np.zeros_like(valid)
    inside[8:-4, 4:-4] = True
    floor = inside & (height < 0.01)
    wall = inside & (height > 0.3) & (height < 2.3)
    assert floor.sum() > 500
    assert wall.sum() > 500
    assert hha[..., 1][floor].max() < 15
    np.testing.assert_allclose(hha[..., 1][wall], 100 * height[wall], atol=15)
    assert np.median(hha[..., 2][floor]) == pytest.approx(38, abs=3)
    assert np.median(hha[..., 2][wall]) == pytest.approx(128, abs=3)


def test_hha_without_floor_in_view_and_of_nothing():
    assert not encode_hha(np.zeros((8, 9), np.float32), (9, 9)).any()
    wall = np.full((24, 32), 2.0, np.float32)  # reaches 0.4 m below only
    hha = encode_hha(wall, (60, 60))
    middle = hha[11:13, :, 1].mean()
    assert middle == pytest.approx(130, abs=3)
    np.testing.assert_array_equal(
        estimate_up(np.zeros((4, 4, 3), np.float32)), [0, -1, 0]
    )
