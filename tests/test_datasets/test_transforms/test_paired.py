"""A pair is never broken: all sides get the same geometry.

Images carry their own coordinates, so that a transformed pixel tells where
it came from.
"""

import importlib.util
import os
import pickle
import random
from collections import Counter
from itertools import pairwise

import cv2
import numpy as np
import pytest
import torch
from mmcv.transforms import BaseTransform, Compose
from mmengine.registry import DefaultScope

from mmcmcd.datasets.transforms import OnSide, SharedGeometry, paired
from mmcmcd.errors import ConfigError, DatasetError, UnreadableFileError
from mmcmcd.registry import TRANSFORMS

NYU = os.path.join(os.environ.get('MMCMCD_REALDATA', ''), 'nyuv2')
HAS_MMSEG = importlib.util.find_spec('mmseg') is not None
SEG_BASE = 256  # label codes stay clear of 255, the padding


@pytest.fixture(autouse=True)
def scope():
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        yield


@pytest.fixture
def register():
    """Register transforms for one test."""
    names = []

    def add(cls):
        TRANSFORMS.register_module(module=cls, force=True)
        names.append(cls.__name__)
        return cls

    yield add
    for name in names:
        TRANSFORMS.module_dict.pop(name)


def grid_pair(height=32, width=40, seg=True):
    """Source holds (x + 1, y + 1, 1), target and label the pixel's index."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    index = (y * width + x).astype(np.int64)
    results = dict(
        pair_id='a',
        source=dict(img=np.stack([x + 1, y + 1, np.ones_like(x)], axis=-1)),
        target=dict(img=(index + 1).astype(np.float32), modality='depth'),
    )
    if seg:
        results['gt_seg_map'] = (index + SEG_BASE).astype(np.uint16)
    return results


def decode(results, width):
    """Per field: x, y and whether the pixel is real, not padding."""
    source = results['source']['img']
    index = results['target']['img'].astype(np.int64) - 1
    fields = dict(
        source=(source[..., 0] - 1, source[..., 1] - 1, source[..., 2]),
        target=(index % width, index // width, index >= 0),
    )
    if 'gt_seg_map' in results:
        seg = results['gt_seg_map'].astype(np.int64)
        index = seg - SEG_BASE
        fields['seg'] = (index % width, index // width, seg != 255)
    return fields


def compare_exactly(a, b):
    """Compare two decoded fields that were both resampled by nearest."""
    real = a[2].astype(bool)
    np.testing.assert_array_equal(real, b[2].astype(bool))
    for i in range(2):
        np.testing.assert_array_equal(a[i][real], b[i][real])
    return real.sum()


# --------------------------------------------------------------------------
# Random pipelines
# --------------------------------------------------------------------------
def random_step(rng, depth=0):
    """A random geometric transform of mmcv, mmpretrain or mmseg."""
    size = lambda: int(rng.integers(14, 56))  # noqa: E731
    interpolation = dict(interpolation='bilinear')
    warp = dict(
        prob=0.7,
        pad_val=0,
        interpolation=str(rng.choice(['nearest', 'bilinear'])),
    )
    direction = str(rng.choice(['horizontal', 'vertical']))
    keep_ratio = bool(rng.integers(2))
    seg = 'mmseg.' if HAS_MMSEG and rng.integers(2) else 'mmcv.'
    makers = dict(
        flip=lambda: dict(
            type=f'{seg}RandomFlip', prob=0.5, direction=direction
        ),
        flips=lambda: dict(
            type='RandomFlip',
            prob=[0.3, 0.3, 0.3],
            direction=['horizontal', 'vertical', 'diagonal'],
        ),
        resize=lambda: dict(
            type=f'{seg}Resize',
            scale=(size(), size()),
            keep_ratio=keep_ratio,
            **interpolation,
        ),
        resize_factor=lambda: dict(
            type='Resize', scale_factor=float(rng.uniform(0.5, 1.6))
        ),
        random_resize=lambda: dict(
            type='RandomResize',
            scale=[(16, 20), (50, 48)],
            keep_ratio=keep_ratio,
        ),
        random_ratio=lambda: dict(
            type='RandomResize',
            scale=(40, 32),
            ratio_range=(0.6, 1.4),
            resize_type=f'{seg}Resize',
        ),
        choice_resize=lambda: dict(
            type='RandomChoiceResize',
            scales=[(size(), size()) for _ in range(3)],
            keep_ratio=keep_ratio,
        ),
        resize_edge=lambda: dict(
            type='ResizeEdge',
            scale=size(),
            edge=str(rng.choice(['short', 'long', 'width', 'height'])),
        ),
        center_crop=lambda: dict(
            type='CenterCrop',
            crop_size=(size(), size()),
            auto_pad=bool(rng.integers(2)),
        ),
        random_crop=lambda: dict(
            type='RandomCrop',
            crop_size=(size(), size()),
            padding=int(rng.integers(1, 5)) if rng.integers(2) else None,
            pad_if_needed=bool(rng.integers(2)),
            padding_mode=str(rng.choice(['constant', 'edge', 'reflect'])),
        ),
        seg_crop=lambda: dict(
            type='mmseg.RandomCrop' if HAS_MMSEG else 'RandomCrop',
            crop_size=(size(), size()),
        ),
        random_resized_crop=lambda: dict(
            type=str(
                rng.choice(
                    ['RandomResizedCrop', 'mmpretrain.RandomResizedCrop']
                )
            ),
            scale=(size(), size()),
            crop_ratio_range=(0.3, 1.0),
            **interpolation,
        ),
        rotate=lambda: dict(type='Rotate', angle=25.0, **warp),
        rotate_range=lambda: dict(
            type='mmpretrain.Rotate', magnitude_range=(0, 60), **warp
        ),
        translate=lambda: dict(
            type='Translate',
            magnitude=float(rng.uniform(0, 0.3)),
            direction=direction,
            **warp,
        ),
        shear=lambda: dict(
            type='Shear',
            magnitude_range=(0, 0.4),
            magnitude_std='inf',
            direction=direction,
            **warp,
        ),
        pad=lambda: dict(type='Pad', size_divisor=int(rng.integers(5, 17))),
        pad_square=lambda: dict(type='Pad', pad_to_square=True),
    )
    if depth < 2:
        nested = lambda: random_steps(rng, 1, 2, depth + 1)  # noqa: E731
        makers['apply'] = lambda: dict(
            type='RandomApply', transforms=nested(), prob=0.6
        )
        makers['choice'] = lambda: dict(
            type='mmcv.RandomChoice', transforms=[nested(), nested()]
        )
    return makers[str(rng.choice(list(makers)))]()


def random_steps(rng, low=1, high=4, depth=0):
    steps = []
    for _ in range(rng.integers(low, high + 1)):
        steps += [random_step(rng, depth), dict(type='mmcmcd.Track')]
    return steps


def types_of(node, counter):
    if isinstance(node, list):
        for n in node:
            types_of(n, counter)
    elif isinstance(node, dict):
        counter[node['type'].split('.')[-1]] += 1
        types_of(node.get('transforms'), counter)
    return counter


class Track(BaseTransform):
    """Record how many source pixels one pixel of the grid image spans."""

    moves_pixels_only = True

    def transform(self, results):
        img = results['img']
        if img.ndim == 3:
            results.setdefault('spans', []).append(pixel_span(img))
        return results


def pixel_span(img):
    real = img[..., 2] > 0.999
    span = 1.0
    for c in range(2):
        total = 0
        for axis in range(2):
            step = np.abs(np.diff(img[..., c], axis=axis))
            first = np.delete(real, -1, axis)
            second = np.delete(real, 0, axis)
            step = step[first & second]
            total += step.max() if step.size else 1
        span = max(span, total)
    return span


def worst_shift(spans):
    """Bound on nearest against bilinear after several resamplings.

    Each resampling picks a pixel at most half an input and half an output
    pixel away from the interpolated position.
    """
    spans = [1.0, *spans]
    return sum((a + b) / 2 for a, b in pairwise(spans)) + 0.01


@pytest.mark.parametrize('block', range(4))
def test_1000_random_pipelines_keep_pairs_aligned(block, register):
    register(Track)
    exact = compared = changed = 0
    seen = Counter()
    for seed in range(block * 250, block * 250 + 250):
        rng = np.random.default_rng(seed)
        steps = random_steps(rng)
        height, width = rng.integers(24, 44, 2)
        nearest_everywhere = seed % 2
        shared = SharedGeometry(
            steps, interpolation='nearest' if nearest_everywhere else None
        )
        np.random.seed(seed)
        random.seed(seed)
        results = shared(grid_pair(height, width))
        fields = decode(results, width)
        note = f'seed {seed}: {steps}'

        exact += compare_exactly(fields['target'], fields['seg'])
        source, target = fields['source'], fields['target']
        if nearest_everywhere:
            compare_exactly(source, target)
        both = (source[2] > 0.999) & target[2]
        bound = worst_shift(results['source'].get('spans', []))
        for i in range(2):
            shift = np.abs(source[i][both] - target[i][both])
            assert shift.max(initial=0) <= bound, note
        compared += both.sum()
        same = target[0].shape == (height, width) and target[2].all()
        changed += not (same and (np.diff(target[0]) == 1).all())
        seen += types_of(steps, Counter())
    assert exact > 80_000
    assert compared > 60_000
    assert changed > 200
    expected = {'RandomFlip', 'Resize', 'RandomResize', 'ResizeEdge', 'Pad'}
    expected |= {'RandomChoiceResize', 'CenterCrop', 'RandomCrop', 'Rotate'}
    expected |= {'RandomResizedCrop', 'Translate', 'Shear'}
    expected |= {'RandomApply', 'RandomChoice'}
    assert not expected - set(seen)


def test_the_check_can_fail(register):
    """The same pipelines run side by side without sharing misalign."""
    register(Track)
    broken = draws = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        nearest = SharedGeometry(random_steps(rng), 'nearest')
        np.random.seed(seed)
        results = grid_pair(seg=False)
        before = np.random.get_state()[2]
        results['source'] = nearest.image(results['source'])
        if np.random.get_state()[2] == before:
            continue  # nothing random in it
        draws += 1
        results['target'] = nearest.nearest(results['target'])
        fields = decode(results, 40)
        try:
            compare_exactly(fields['source'], fields['target'])
        except (AssertionError, IndexError):
            broken += 1
    assert draws > 120
    assert broken > 0.6 * draws


def test_one_bilinear_resampling_is_within_one_pixel():
    shared = SharedGeometry(
        [dict(type='RandomResizedCrop', scale=16, crop_ratio_range=(0.5, 1))]
    )
    for seed in range(50):
        np.random.seed(seed)
        fields = decode(shared(grid_pair(64, 64)), 64)
        for i, axis in ((0, 1), (1, 0)):
            source = fields['source'][i]
            step = np.diff(source, axis=axis).max()
            shift = np.abs(source - fields['target'][i])
            assert step > 2.5
            assert shift.max() <= (step + 1) / 2 + 1e-3 < step


# --------------------------------------------------------------------------
# Random numbers
# --------------------------------------------------------------------------
PIPELINE = [
    dict(type='RandomResizedCrop', scale=(20, 24)),
    dict(type='RandomFlip', prob=0.5),
    dict(type='RandomApply', transforms=[dict(type='Rotate', angle=9.0)]),
]


def seed_all(seed):
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def test_source_is_what_the_stock_pipeline_makes():
    shared = SharedGeometry(PIPELINE)
    stock = Compose([TRANSFORMS.build(t) for t in PIPELINE])
    for seed in range(20):
        seed_all(seed)
        expected = stock(grid_pair()['source'])
        seed_all(seed)
        got = shared(grid_pair())['source']
        np.testing.assert_array_equal(got.pop('img'), expected.pop('img'))
        assert got == expected


def test_generators_advance_as_for_one_run():
    shared = SharedGeometry(PIPELINE)
    stock = Compose([TRANSFORMS.build(t) for t in PIPELINE])
    after = []
    for run in (
        lambda: (stock(grid_pair()['source']), paired.rng_probe()),
        lambda: shared(grid_pair(seg=False)),
        lambda: shared(grid_pair(seg=True)),
    ):
        seed_all(3)
        run()
        after.append((random.random(), np.random.rand(), torch.rand(1)))
    assert after[0] == after[1] == after[2]
    other = (random.random(), np.random.rand(), torch.rand(1))
    assert other != after[0]


def test_python_and_torch_generators_are_shared(register):
    @register
    class RollEverywhere(BaseTransform):
        moves_pixels_only = True

        def transform(self, results):
            shift = random.randrange(32) + int(torch.randint(32, (1,)))
            results['img'] = np.roll(results['img'], shift, axis=0)
            results['shift'] = shift
            return results

    shared = SharedGeometry([dict(type='mmcmcd.RollEverywhere')])
    shifts = set()
    for _ in range(20):
        results = shared(grid_pair())
        fields = decode(results, 40)
        compare_exactly(fields['source'], fields['target'])
        compare_exactly(fields['source'], fields['seg'])
        shifts.add(results['source']['shift'])
    assert len(shifts) > 5


def test_draws_that_depend_on_content_are_refused(register):
    @register
    class PeekingCrop(BaseTransform):
        moves_pixels_only = True

        def transform(self, results):
            for _ in range(results['img'].ndim):
                np.random.rand()
            return results

    shared = SharedGeometry([dict(type='mmcmcd.PeekingCrop')])
    with pytest.raises(ConfigError, match=r"'target' of pair 'a' consumed"):
        shared(grid_pair())


def test_without_rewinding_the_guard_speaks(monkeypatch):
    monkeypatch.setattr(paired, 'set_rng_state', lambda state: None)
    with pytest.raises(ConfigError, match='consumed other random'):
        SharedGeometry(PIPELINE)(grid_pair())


# --------------------------------------------------------------------------
# Depth and labels
# --------------------------------------------------------------------------
def test_photo_keeps_its_interpolation_and_padding():
    shared = SharedGeometry(
        [
            dict(type='Resize', scale=(17, 13), interpolation='bicubic'),
            dict(type='Rotate', angle=30.0, prob=1.0, pad_val=(9, 9, 9)),
            dict(type='CenterCrop', crop_size=40, auto_pad=True),
        ]
    )
    seed_all(0)
    results = shared(grid_pair())
    stock = Compose(
        [
            TRANSFORMS.build(t)
            for t in [
                dict(type='Resize', scale=(17, 13), interpolation='bicubic'),
                dict(type='Rotate', angle=30.0, prob=1.0, pad_val=(9, 9, 9)),
                dict(type='CenterCrop', crop_size=40, auto_pad=True),
            ]
        ]
    )
    seed_all(0)
    expected = stock(grid_pair()['source'])
    np.testing.assert_array_equal(results['source']['img'], expected['img'])
    assert (results['source']['img'] == 9).any()
    original = set(np.unique(grid_pair()['target']['img'])) | {0}
    assert set(np.unique(results['target']['img'])) <= original
    assert results['target']['img'][0, 0] == 0
    labels = set(np.unique(grid_pair()['gt_seg_map'])) | {255}
    assert set(np.unique(results['gt_seg_map'])) <= labels
    assert results['gt_seg_map'][0, 0] == 255


def test_pillow_backend_and_uint8_photo():
    pair = grid_pair()
    pair['source']['img'] = pair['source']['img'].astype(np.uint8)
    shared = SharedGeometry(
        [dict(type='RandomResizedCrop', scale=16, backend='pillow')]
    )
    results = shared(pair)
    assert results['source']['img'].dtype == np.uint8
    assert results['target']['img'].dtype == np.float32


@pytest.mark.parametrize('modality', ['normals', 'hha'])
def test_other_depth_like_sides_are_not_mixed(modality):
    pair = grid_pair(seg=False)
    values = np.random.default_rng(0).random((32, 40, 3), np.float32)
    pair['target'] = dict(img=values, modality=modality)
    shared = SharedGeometry(
        [dict(type='Resize', scale=(60, 50))], depth_interpolation='masked'
    )
    out = shared(pair)['target']['img']
    assert out.shape == (50, 60, 3)
    assert set(np.unique(out)) <= set(np.unique(values))


def test_masked_depth_is_bilinear_inside_and_clean_at_holes():
    y, x = np.mgrid[:40, :40].astype(np.float32)
    depth = 2 + 0.05 * x + 0.02 * y
    holed = depth.copy()
    holed[10:20, 12:30] = 0
    steps = [dict(type='Resize', scale=(64, 56))]
    shared = SharedGeometry(steps, depth_interpolation='masked')
    outs = []
    for target in (depth, holed):
        pair = grid_pair(40, 40, seg=False)
        pair['target']['img'] = target
        outs.append(shared(pair)['target']['img'])
    smooth = cv2.resize(depth, (64, 56), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_allclose(outs[0], smooth, rtol=1e-5)
    real = outs[1] > 0
    assert 0 < (~real).sum() < 0.2 * real.size
    # nothing between a surface and 0 appears beside a hole
    np.testing.assert_allclose(outs[1][real], smooth[real], atol=0.04)
    assert outs[1].dtype == np.float32


def test_masked_runs_one_draw_with_padding():
    shared = SharedGeometry(PIPELINE, depth_interpolation='masked')
    for seed in range(30):
        seed_all(seed)
        pair = grid_pair()
        pair['target']['img'] = pair['source']['img'][..., 0].copy()
        results = shared(pair)
        source, target = (results[s]['img'] for s in ('source', 'target'))
        inner = (source[..., 2] > 0.999) & (target > 0)
        # the same resampling on both sides: the very same numbers, except
        # where the photo's Rotate is 'nearest' by default
        if not np.isclose(source[..., 0] % 1, 0).all():
            shift = np.abs(source[..., 0] - target)[inner]
            assert shift.max() < 1.01
            assert inner.mean() > 0.5


def test_all_invalid_depth_stays_invalid():
    for mode in ('nearest', 'masked'):
        pair = grid_pair()
        pair['target']['img'][:] = 0
        out = SharedGeometry(PIPELINE, depth_interpolation=mode)(pair)
        assert not out['target']['img'].any()


UNSAFE = [
    dict(type='ColorJitter', brightness=0.4),
    dict(type='torchvision/RandomRotation', degrees=10),
    dict(type='RandomErasing'),
]
if HAS_MMSEG:
    UNSAFE += [
        dict(type='mmseg.RandomRotate', prob=1.0, degree=10),
        dict(type='mmseg.ResizeShortestEdge', scale=20, max_size=60),
        dict(type='mmseg.PhotoMetricDistortion'),
    ]


@pytest.mark.parametrize('nested', [False, True])
@pytest.mark.parametrize('cfg', UNSAFE, ids=lambda c: c['type'])
def test_what_may_mix_pixels_is_refused_for_depth(cfg, nested):
    cfg = dict(
        dict(erase_prob=1.0, fill_color=(0, 0, 0))
        if cfg['type'] == 'RandomErasing'
        else {},
        **cfg,
    )
    steps = [cfg]
    if nested:
        steps = [
            dict(
                type='RandomChoice',
                transforms=[[dict(type='RandomApply', transforms=[cfg])]],
            )
        ]
    shared = SharedGeometry(steps)
    message = f'{cfg["type"]} may mix'
    with pytest.raises(ConfigError, match=message):
        shared(grid_pair())
    pair = grid_pair(seg=True)
    pair['target'].pop('modality')
    with pytest.raises(ConfigError, match='gt_seg_map'):
        shared(pair)


def test_two_photos_may_use_anything():
    pair = grid_pair(seg=False)
    photo = np.random.default_rng(0).integers(0, 255, (32, 40, 3))
    photo = photo.astype(np.uint8)
    pair['source'], pair['target'] = dict(img=photo), dict(img=photo)
    shared = SharedGeometry([dict(type='ColorJitter', brightness=0.9)])
    results = shared(pair)
    assert (results['source']['img'] != photo).any()
    np.testing.assert_array_equal(
        results['source']['img'], results['target']['img']
    )


def test_a_subclass_of_a_safe_class_is_not_trusted(register):
    from mmcv.transforms import RandomFlip

    @register
    class SmoothFlip(RandomFlip):
        pass

    shared = SharedGeometry([dict(type='mmcmcd.SmoothFlip', prob=0.5)])
    with pytest.raises(ConfigError, match='SmoothFlip'):
        shared(grid_pair())


# --------------------------------------------------------------------------
# Sides, sizes, arguments
# --------------------------------------------------------------------------
def test_more_than_two_sides():
    pair = grid_pair()
    pair['thermal'] = dict(img=pair['source']['img'].copy())
    pair['sides'] = ('thermal', 'source', 'target')
    results = SharedGeometry(PIPELINE)(pair)
    np.testing.assert_array_equal(
        results['thermal']['img'], results['source']['img']
    )


def test_sizes_that_differ():
    pair = grid_pair(32, 40)
    pair['target'] = grid_pair(24, 30)['target']
    with pytest.raises(
        DatasetError, match=r"before .*'a': source 40x32, target 30x24"
    ):
        SharedGeometry(PIPELINE)(pair)
    pair = grid_pair(32, 40)
    pair['gt_seg_map'] = pair['gt_seg_map'][:-1]
    with pytest.raises(DatasetError, match='gt_seg_map 40x31'):
        SharedGeometry(PIPELINE)(pair)


def test_sizes_that_differ_afterwards(register):
    @register
    class CropColour(BaseTransform):
        moves_pixels_only = True

        def transform(self, results):
            if results['img'].ndim == 3:
                results['img'] = results['img'][1:]
            return results

    with pytest.raises(DatasetError, match='differ after'):
        SharedGeometry([dict(type='mmcmcd.CropColour')])(grid_pair())


def test_a_transform_that_drops_the_sample(register):
    @register
    class Drop(BaseTransform):
        moves_pixels_only = True

        def transform(self, results):
            return None

    for mode in ('nearest', 'masked'):
        with pytest.raises(DatasetError, match="None for 'source'"):
            SharedGeometry(
                [dict(type='mmcmcd.Drop')], depth_interpolation=mode
            )(grid_pair())


def test_side_without_image_and_bad_arguments():
    pair = grid_pair()
    del pair['target']['img']
    with pytest.raises(DatasetError, match="'target' of pair 'a' has no"):
        SharedGeometry(PIPELINE)(pair)
    with pytest.raises(ConfigError, match='depth_interpolation'):
        SharedGeometry(PIPELINE, depth_interpolation='linear')
    with pytest.raises(ConfigError, match='config dicts'):
        SharedGeometry([lambda r: r])
    with pytest.raises(ConfigError, match='NoSuchThing'):
        SharedGeometry([dict(type='NoSuchThing')])


def test_crop_by_label_statistics_is_refused():
    crop = dict(type='RandomCrop', crop_size=(8, 8), cat_max_ratio=0.75)
    with pytest.raises(ConfigError, match='cat_max_ratio=0.75 draws by'):
        SharedGeometry([dict(type='RandomApply', transforms=[crop])])


def test_pickled_copy_works_the_same():
    """As in loader workers that are spawned."""
    shared = SharedGeometry(PIPELINE, depth_interpolation='masked')
    outs = []
    for transform in (shared, pickle.loads(pickle.dumps(shared))):
        seed_all(0)
        outs.append(transform(grid_pair()))
    for side in ('source', 'target'):
        np.testing.assert_array_equal(
            outs[0][side]['img'], outs[1][side]['img']
        )


def test_configs_are_not_changed_and_repr_is_readable():
    steps = [dict(type='CenterCrop', crop_size=8, auto_pad=True)]
    shared = SharedGeometry(steps)
    assert steps == [dict(type='CenterCrop', crop_size=8, auto_pad=True)]
    assert 'CenterCrop' in repr(shared)


@pytest.mark.skipif(not HAS_MMSEG, reason='needs mmseg')
def test_default_scope_mmseg():
    with DefaultScope.overwrite_default_scope('mmseg'):
        shared = TRANSFORMS.build(
            dict(
                type='mmcmcd.SharedGeometry',
                interpolation='nearest',
                transforms=[
                    dict(
                        type='RandomResize',
                        scale=(40, 32),
                        ratio_range=(0.5, 2.0),
                        keep_ratio=True,
                    ),
                    dict(type='RandomCrop', crop_size=(16, 20)),
                    dict(type='RandomFlip', prob=0.5),
                ],
            )
        )
    assert type(shared.image.pipeline.transforms[1]).__module__.startswith(
        'mmseg'
    )
    for _ in range(20):
        fields = decode(shared(grid_pair()), 40)
        compare_exactly(fields['source'], fields['target'])
        compare_exactly(fields['source'], fields['seg'])


# --------------------------------------------------------------------------
# OnSide
# --------------------------------------------------------------------------
def files_pair(tmp_path):
    photo = np.random.default_rng(0).integers(0, 255, (24, 32, 3))
    cv2.imwrite(str(tmp_path / 'a.jpg'), photo.astype(np.uint8))
    depth = np.full((24, 32), 2500, np.uint16)
    cv2.imwrite(str(tmp_path / 'a.png'), depth)
    return dict(
        pair_id='a',
        source=dict(img_path=str(tmp_path / 'a.jpg')),
        target=dict(img_path=str(tmp_path / 'a.png')),
    )


STOCK = dict(type='LoadImageFromFile')
STRICT = dict(type='mmcmcd.LoadImageStrict')
DEPTH = dict(type='mmcmcd.LoadDepthFromFile', depth_scale=1000)


def test_on_side_loads_each_side(tmp_path):
    results = files_pair(tmp_path)
    results = OnSide('source', [STRICT])(results)
    assert 'img' not in results['target']
    results = OnSide(['target'], [DEPTH])(results)
    assert results['source']['img'].shape == (24, 32, 3)
    assert (results['target']['img'] == 2.5).all()
    before = results['target']['img']
    double = lambda r: dict(r, img=r['img'] * 2)  # noqa: E731
    results = OnSide('target', [double])(results)
    assert (results['target']['img'] == 5).all()
    assert (before == 2.5).all()
    assert 'OnSide' in repr(OnSide('source', [STRICT]))


@pytest.mark.skipif(
    not os.path.isdir(NYU), reason='MMCMCD_REALDATA/nyuv2 is not there'
)
def test_real_frames_load_and_align():
    with open(f'{NYU}/val.txt') as file:
        frame = file.read().split()[0]
    results = dict(
        pair_id=frame,
        source=dict(img_path=f'{NYU}/rgb/{frame}.jpg'),
        target=dict(img_path=f'{NYU}/depth/{frame}.png'),
        gt_seg_map=cv2.imread(f'{NYU}/label/{frame}.png', 0),
    )
    depth = dict(DEPTH, depth_scale=25.5, expected_dtype='uint8')
    results = OnSide('source', [STRICT])(results)
    results = OnSide('target', [depth])(results)
    metres = results['target']['img']
    assert 0.5 < metres[metres > 0].min() < np.median(metres) < 10.01
    stored = set(np.unique(metres))
    seed_all(0)
    results = SharedGeometry(PIPELINE)(results)
    assert results['source']['img'].shape == (20, 24, 3)
    assert results['gt_seg_map'].shape == (20, 24)
    assert set(np.unique(results['target']['img'])) <= stored | {0}
    with pytest.raises(UnreadableFileError, match='stores uint8'):
        OnSide('target', [dict(DEPTH, expected_dtype='uint16')])(
            dict(target=dict(img_path=f'{NYU}/depth/{frame}.png'))
        )


def test_on_side_draws_anew_for_every_side():
    jitter = dict(
        type='mmcmcd.RandomDepthJitter', scale_range=(0.5, 2), prob=1.0
    )
    depth = np.ones((4, 4), np.float32)
    results = dict(source=dict(img=depth), target=dict(img=depth))
    np.random.seed(0)
    results = OnSide(('source', 'target'), [jitter])(results)
    assert results['source']['img'][0, 0] != results['target']['img'][0, 0]


@pytest.mark.parametrize(
    ('side', 'loader', 'break_file', 'words'),
    [
        ('source', STOCK, 'missing', 'FileNotFoundError'),
        ('source', STOCK, 'empty', 'error'),
        ('source', STOCK, 'text', 'failed to load'),
        ('source', STRICT, 'missing', 'does not exist'),
        ('source', STRICT, 'empty', '0 bytes'),
        ('source', STRICT, 'truncated', 'truncated'),
        ('target', DEPTH, 'missing', 'does not exist'),
        ('target', DEPTH, 'empty', '0 bytes'),
        ('target', DEPTH, 'truncated', 'truncated'),
        ('target', DEPTH, 'text', 'damaged'),
        ('target', dict(DEPTH, expected_dtype='float32'), '', 'bit depth'),
        ('target', dict(STOCK, ignore_empty=True), 'empty', 'returned None'),
    ],
)
def test_broken_files_name_side_pair_and_path(
    tmp_path, side, loader, break_file, words
):
    results = files_pair(tmp_path)
    path = results[side]['img_path']
    with open(path, 'rb') as file:
        content = file.read()
    new = dict(
        empty=b'', text=b'<html>', truncated=content[: len(content) // 2]
    )
    if break_file == 'missing':
        results[side]['img_path'] = path = path + '.gone'
    elif break_file:
        with open(path, 'wb') as file:
            file.write(new[break_file])
    with pytest.raises(UnreadableFileError) as caught:
        OnSide(side, [loader])(results)
    message = str(caught.value)
    assert message.startswith(f"Cannot load side '{side}' of pair 'a'")
    assert path in message
    assert words in message


def test_on_side_faults_after_loading_are_no_file_errors(tmp_path):
    results = files_pair(tmp_path)

    def fail(results):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        OnSide('source', [STRICT, fail])(results)
    results = files_pair(tmp_path)
    with pytest.raises(DatasetError, match="None for side 'source'"):
        OnSide('source', [STRICT, lambda r: None])(results)
    with pytest.raises(ConfigError, match="no side 'thermal'"):
        OnSide('thermal', [STRICT])(results)


def test_on_side_lets_configuration_errors_through(tmp_path):
    def misconfigured(results):
        raise ConfigError('wrong setting')

    with pytest.raises(ConfigError, match='wrong setting'):
        OnSide('source', [misconfigured])(files_pair(tmp_path))


def test_shared_geometry_is_not_for_arrays():
    shared = SharedGeometry([dict(type='RandomFlip', prob=0.5)])
    pair = dict(
        source=dict(img=np.zeros((40, 6, 3), np.uint8)),
        target=dict(img=torch.zeros(6, 40)),
    )
    with pytest.raises(ConfigError) as caught:
        shared(pair)
    assert "side 'target' is an array" in str(caught.value)
    assert 'SharedTemporalCrop' in str(caught.value)
