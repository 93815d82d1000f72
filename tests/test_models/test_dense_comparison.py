"""Dense distillation: locations of feature maps in place of images."""

import copy

import numpy as np
import pytest
import torch
from mmcv.transforms import Compose
from mmengine.dataset import pseudo_collate
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from mmpretrain.structures import DataSample
from torch import nn
from torch.nn.functional import normalize

from mmcmcd.errors import ConfigError
from mmcmcd.models.distillers import Center, DenseComparison
from mmcmcd.models.distillers.batch import valid_pixels
from mmcmcd.models.distillers.dense_comparison import neighbours, resample
from mmcmcd.models.utils import export_student
from mmcmcd.registry import MODELS, TRANSFORMS

CMC = dict(type='mmcmcd.CMCLoss', temperature=0.1)
CELL = 4


@pytest.fixture(autouse=True)
def _scope():
    init_default_scope('mmpretrain')
    torch.manual_seed(0)


def dense(loss=CMC, **kwargs):
    return DenseComparison('cells', loss, **kwargs)


def maps(shape=(3, 5, 2, 3), other=None):
    student = torch.randn(shape, dtype=torch.double, requires_grad=True)
    teacher = torch.randn(other or shape, dtype=torch.double)
    return student, teacher


def cells_of(chosen):
    return [tuple(cell) for cell in chosen.nonzero().tolist()]


def is_candidate(own, other, candidates, radius, groups):
    """Whether a location is compared with another one, by the words."""
    if own == other:
        return True
    (i, *place), (j, *there) = own, other
    if i == j:
        near = max(abs(a - b) for a, b in zip(place, there, strict=True))
        return candidates != 'others' and near > radius
    same_group = groups is not None and groups[i] == groups[j]
    return candidates != 'image' and not same_group


def naive_cmc(student, teacher, cells, *rule, temperature=0.1):
    """Two-way contrast of locations, one after the other."""
    s = {(b, y, x): normalize(student[b, :, y, x], dim=0) for b, y, x in cells}
    t = {(b, y, x): normalize(teacher[b, :, y, x], dim=0) for b, y, x in cells}
    total = 0
    for own in cells:
        kept = [other for other in cells if is_candidate(own, other, *rule)]
        for anchor, others in ((s[own], t), (t[own], s)):
            scores = [anchor @ others[other] / temperature for other in kept]
            scores = torch.stack(scores)
            total = total - scores.log_softmax(0)[kept.index(own)]
    return total / (2 * len(cells))


@pytest.mark.parametrize('groups', [None, [0, 1, 2], [4, 7, 4]])
@pytest.mark.parametrize('radius', [0, 1, 2, 9])
@pytest.mark.parametrize('candidates', ['batch', 'image', 'others'])
@pytest.mark.parametrize('with_holes', [False, True])
def test_options_equal_loops(candidates, radius, groups, with_holes):
    if candidates == 'others' and radius:
        return
    student, teacher = maps()
    chosen = torch.ones(3, 2, 3, dtype=torch.bool)
    valid = None
    if with_holes:
        chosen[0, 1], chosen[1, 0, 2], chosen[2, :, 0] = False, False, False
        valid = chosen[:, None].repeat_interleave(4, 2).repeat_interleave(4, 3)
    compare = dense(candidates=candidates, exclusion_radius=radius)
    (value,) = compare(
        student,
        teacher,
        None if groups is None else torch.tensor(groups),
        valid,
    ).values()
    expected = naive_cmc(
        student, teacher, cells_of(chosen), candidates, radius, groups
    )
    torch.testing.assert_close(value, expected)
    ours, theirs = (
        torch.autograd.grad(v, student)[0] for v in (value, expected)
    )
    torch.testing.assert_close(ours, theirs)
    # Nothing comes of locations that are not compared.
    assert not ours.movedim(1, -1)[~chosen].any()


@pytest.mark.parametrize('radius', [1, 2, 5])
def test_neighbours_are_those_within_the_radius(radius):
    chosen = torch.rand(3, 4, 5) > 0.3
    cells = cells_of(chosen)
    expected = {
        (i, j)
        for i, a in enumerate(cells)
        for j, b in enumerate(cells)
        if i != j and not is_candidate(a, b, 'image', radius, None)
        if a[0] == b[0]
    }
    pairs = [tuple(pair) for pair in neighbours(chosen, radius).tolist()]
    assert len(pairs) == len(set(pairs))
    assert set(pairs) == expected


def test_cells_with_less_than_half_of_their_pixels_are_left_out():
    student, teacher = maps((1, 5, 2, 2))
    valid = torch.ones(1, 1, 4, 4, dtype=torch.bool)
    valid[0, 0, :2, :2] = torch.tensor([[1, 0], [0, 0]])  # a quarter
    valid[0, 0, :2, 2:] = torch.tensor([[1, 1], [0, 0]])  # a half
    rule = ('batch', 0, None)
    cells = [(0, 0, 0), (0, 0, 1), (0, 1, 0), (0, 1, 1)]
    for min_valid, kept in ((0.5, cells[1:]), (0.25, cells), (1, cells[2:])):
        compare = dense(min_valid=min_valid)
        value = compare(student, teacher, None, valid)['loss_cells']
        expected = naive_cmc(student, teacher, kept, *rule)
        torch.testing.assert_close(value, expected)


def test_both_sides_are_brought_to_one_grid():
    student, teacher = maps((2, 3, 4, 6), (2, 3, 2, 9))
    loss = dict(type='mmcmcd.FeatureL2Loss')
    for grid, shape in (
        ('student', (4, 6)),
        ('teacher', (2, 9)),
        ((3, 3), (3, 3)),
    ):
        value = dense(loss, grid=grid)(student, teacher, None)['loss_cells']
        s, t = resample(student, shape), resample(teacher, shape)
        assert s.shape[2:] == t.shape[2:] == shape
        torch.testing.assert_close(value, nn.functional.mse_loss(s, t))
    assert resample(student, (4, 6)) is student
    # Blocks are averaged downwards, ramps stay ramps upwards.
    ramp = torch.arange(6.0).expand(1, 1, 4, 6)
    assert resample(ramp, (2, 3))[0, 0, 1].tolist() == [0.5, 2.5, 4.5]
    between = resample(ramp, (4, 12))[0, 0, 0].diff()
    assert torch.equal(between[1:-1], torch.full((9,), 0.5))


class Recorder(nn.Module):
    """A loss of one's own, which knows nothing of locations."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, student, teacher):
        self.seen.append((student.detach(), teacher))
        return student.sum()


def test_some_locations_are_drawn_alike_on_both_sides():
    """The rows of both sides are equal where the maps are."""
    student, _ = maps((4, 5, 3, 4))
    valid = torch.ones(4, 1, 3, 4, dtype=torch.bool)
    valid[0], valid[1, 0, 0, 1:] = False, False
    compare = dense(locations_per_image=5)
    compare.loss = recorder = Recorder()
    for _ in range(20):
        compare(student, student.detach(), None, valid)
    where = student.detach().movedim(1, -1).flatten(1, 2)
    counts = torch.zeros(4, 12)
    for s, t in recorder.seen:
        assert torch.equal(s, t)
        is_row = (where[:, :, None] == s).all(-1).any(-1)
        assert is_row.sum(1).tolist() == [0, 5, 5, 5]
        assert not is_row.view(4, 3, 4)[~valid[:, 0]].any()
        counts += is_row
    # Another draw each time, from all valid ones.
    assert (counts[2:] > 0).all() and (counts[2:] < 20).all()


def test_centring_takes_the_mean_of_compared_locations_away():
    student, teacher = maps()
    valid = torch.ones(3, 1, 2, 3, dtype=torch.bool)
    valid[0] = False
    teacher[0] = 1e6  # never seen
    compare = dense(
        source_norm=dict(type='mmcmcd.Center', num_features=5, momentum=0.5)
    ).double()
    rows = teacher[1:].movedim(1, -1).flatten(0, 2)
    value = compare(student, teacher, None, valid)['loss_cells']
    mean = rows.mean(0)
    torch.testing.assert_close(compare.source_norm.running_mean, mean / 2)
    expected = dense()(student, teacher - mean[:, None, None], None, valid)
    torch.testing.assert_close(value, expected['loss_cells'])
    value = compare.eval()(student, teacher, None, valid)['loss_cells']
    expected = dense()(student, teacher - mean[:, None, None] / 2, None, valid)
    torch.testing.assert_close(value, expected['loss_cells'])


def test_center_keeps_scales():
    rows = torch.randn(50, 3) * torch.tensor([1.0, 10.0, 0.0]) + 7
    centred = Center(3)(rows)
    torch.testing.assert_close(centred.std(0), rows.std(0))
    assert centred.mean(0).abs().max() < 1e-5


def test_an_overflow_does_not_stay_in_the_center():
    center = Center(2, momentum=0.5)
    center(torch.tensor([[1.0, torch.inf], [3.0, 4.0]]))
    assert center.running_mean.tolist() == [1, 0]


def test_samples_of_which_nothing_is_known_are_valid():
    data = batch(num=2, size=(4, 4))
    known, unknown = data['data_samples']
    mask = torch.zeros(1, 4, 2, dtype=torch.bool)
    known.set_field(PixelData(data=mask), 'target_valid')
    # A side of another size knows, too.
    corner = torch.ones(1, 2, 2, dtype=torch.bool)
    corner[0, 1, 1] = False
    unknown.set_field(PixelData(data=corner), 'source_valid')
    inputs = dict(
        target=torch.zeros(2, 1, 4, 4), source=torch.zeros(2, 3, 2, 2)
    )
    for samples in ([known, unknown], [unknown, known]):
        valid = valid_pixels(samples, inputs)
        first, second = (
            valid[:, 0] if samples[0] is known else valid.flip(0)[:, 0]
        )
        assert not first.any()
        assert second.sum() == 12 and not second[2:, 2:].any()
    assert valid_pixels(samples, dict(other=inputs['target'])) is None


def test_an_inherited_comparison_can_be_left_out(teacher_cfg):
    cells = dict(loss=CMC, projector=conv())
    model = distiller(teacher_cfg, dense=dict(cells=cells, inherited=None))
    assert {*model.dense} == {'cells'}


def test_terms_of_a_composite_are_logged_apart():
    student, teacher = maps()
    both = dict(type='mmcmcd.CMCDLoss', cmd=dict(), cmc=dict(temperature=0.1))
    terms = dense(both)(student, teacher, None)
    assert set(terms) == {'loss_cells_cmd', 'loss_cells_cmc'}
    alone = dense()(student, teacher, None)['loss_cells']
    assert terms['loss_cells_cmc'] == alone


# What follows needs a distiller.


@MODELS.register_module()
class CoordinateFeatures(nn.Module):
    """Mean coordinates of cells, as waves: near cells differ, too."""

    def forward(self, images):
        means = nn.functional.avg_pool2d(images, CELL)
        waves = [
            f(means * k) for k in (0.4, 0.7) for f in (torch.sin, torch.cos)
        ]
        return (torch.cat(waves, dim=1),)


def resnet(in_channels=3, **kwargs):
    return dict(
        type='ResNet',
        depth=18,
        base_channels=8,
        stem_channels=8,
        in_channels=in_channels,
        **kwargs,
    )


def conv(in_channels=64, out_channels=64):
    return dict(
        type='Conv2d',
        in_channels=in_channels,
        out_channels=out_channels,
        kernel_size=1,
    )


@pytest.fixture
def teacher_cfg(tmp_path):
    return save_teacher(tmp_path, resnet(out_indices=(2, 3)))


def save_teacher(folder, cfg):
    path = folder / 'teacher.pth'
    net = MODELS.build(copy.deepcopy(cfg))
    torch.save({f'backbone.{k}': v for k, v in net.state_dict().items()}, path)
    init = dict(type='Pretrained', checkpoint=str(path), prefix='backbone.')
    return dict(cfg, init_cfg=init)


def distiller(teacher_cfg, **kwargs):
    cfg = dict(
        type='mmcmcd.CrossModalDistiller',
        teacher=teacher_cfg,
        student=resnet(1, out_indices=(2, 3)),
        losses=dict(cmcd=dict(type='mmcmcd.CMCDLoss', cmd=dict(), cmc=dict())),
        dense=dict(cells=dict(loss=CMC, projector=conv())),
        data_preprocessor=dict(
            type='mmcmcd.PairedDataPreprocessor', source={}, target={}
        ),
    )
    cfg.update(kwargs)
    torch.manual_seed(1)
    model = MODELS.build(copy.deepcopy(cfg))
    model.init_weights()
    return model


def batch(num=4, size=(64, 96), valid=None):
    gen = torch.Generator().manual_seed(0)
    samples = [
        DataSample(metainfo=dict(pair_id=f'p{i}', group_index=i))
        for i in range(num)
    ]
    if valid is not None:
        for sample, mask in zip(samples, valid, strict=True):
            sample.set_field(PixelData(data=mask), 'target_valid')
    return dict(
        inputs=dict(
            source=torch.randn(num, 3, *size, generator=gen),
            target=torch.randn(num, 1, *size, generator=gen),
        ),
        data_samples=samples,
    )


def test_global_and_dense_terms_share_one_forward_pass(teacher_cfg):
    stage = dict(loss=dict(type='mmcmcd.CMDLoss'), stage=0, teacher_stage=0)
    model = distiller(
        teacher_cfg,
        dense=dict(cells=dict(loss=CMC, projector=conv()), third=stage),
    )
    passes = []
    for net in (model.student, model.teacher.module['teacher']):
        net.register_forward_hook(lambda *_: passes.append(1))
    losses = model.loss(**batch())
    assert len(passes) == 2
    assert set(losses) == {
        'loss_cmd',
        'loss_cmc',
        'loss_cells',
        'loss_third',
    }
    sum(losses.values()).backward()
    assert all(
        p.grad is not None and p.grad.isfinite().all()
        for p in model.parameters()
    )
    names = dict(model.named_parameters())
    assert 'dense.cells.projector.weight' in names
    # The terms beside it do not change the global one.
    alone = distiller(teacher_cfg, dense=None)
    alone.student.load_state_dict(model.student.state_dict())
    for key, value in alone.loss(**batch()).items():
        torch.testing.assert_close(losses[key], value)


def test_value_is_that_of_the_maps(teacher_cfg):
    model = distiller(teacher_cfg, losses=None)
    data = batch()
    losses = model.loss(**data)
    assert set(losses) == {'loss_cells'}
    model.dense['cells'].projector.double()
    with torch.no_grad():
        student = model.student(data['inputs']['target'])[-1].double()
        student = model.dense['cells'].projector(student)
        teacher = model.teacher.module['teacher'](data['inputs']['source'])
    cells = cells_of(torch.ones(4, *student.shape[2:]))
    expected = naive_cmc(
        student, teacher[-1].double(), cells, 'batch', 0, range(4)
    )
    torch.testing.assert_close(losses['loss_cells'].double(), expected)


@pytest.mark.parametrize('size', [2, 3])
def test_chunks_give_the_same(teacher_cfg, size):
    results = []
    for chunk in (None, size):
        model = distiller(teacher_cfg, forward_chunk_size=chunk)
        model.eval()  # batch statistics would be those of a chunk
        losses = model.loss(**batch(7))
        sum(losses.values()).backward()
        gradients = {n: p.grad for n, p in model.named_parameters()}
        results.append((losses, gradients))
    torch.testing.assert_close(*results)


def test_what_is_exported_is_the_student_alone(teacher_cfg, tmp_path):
    model = distiller(teacher_cfg)
    path = export_student(model, str(tmp_path / 'student.pth'))
    weights = torch.load(path)['state_dict']
    assert weights.keys() == {
        f'backbone.{key}' for key in model.student.state_dict()
    }


def test_invalid_locations_teach_nothing(teacher_cfg):
    """Of images whose right half is invalid only the left one counts."""
    model = distiller(teacher_cfg, losses=None).eval()
    # Locations see no more than their own pixels.
    model.student = MODELS.build(dict(type='mmcmcd.CoordinateFeatures'))
    model.dense['cells'].projector = nn.Conv2d(4, 64, 1)
    model.dense['cells'].grid = (2, 3)
    valid = torch.ones(4, 1, 64, 96, dtype=torch.bool)
    valid[..., 64:] = False
    data = batch(valid=valid)
    value = model.loss(**data)['loss_cells']
    data['inputs']['target'][..., 64:] += 3
    assert torch.equal(model.loss(**data)['loss_cells'], value)
    data['inputs']['target'][..., 32:64] += 3
    assert not torch.equal(model.loss(**data)['loss_cells'], value)


def test_pixels_that_a_preprocessor_pads_are_invalid(teacher_cfg):
    valid = torch.ones(4, 1, 64, 64, dtype=torch.bool)
    value, expected = (
        distiller(teacher_cfg, losses=None)
        .eval()
        .loss(**batch(size=(64, 96), valid=mask))['loss_cells']
        for mask in (valid, nn.functional.pad(valid, [0, 32]))
    )
    assert torch.equal(value, expected)


def test_vision_transformers_give_maps_of_their_tokens(tmp_path):
    vit = dict(
        type='VisionTransformer',
        arch=dict(
            embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=16
        ),
        img_size=32,
        patch_size=8,
    )
    cfg = save_teacher(tmp_path, dict(vit, out_type='featmap'))
    swin = dict(
        type='SwinTransformer',
        arch=dict(embed_dims=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2]),
        img_size=64,
        pad_small_map=True,
        in_channels=1,
        out_indices=(1, 3),
    )
    data = batch(size=(32, 32))
    data['inputs']['target'] = torch.randn(4, 1, 64, 64)
    cells = dict(loss=CMC, stage=0, teacher_stage=-1, projector=conv(16, 16))
    model = distiller(
        cfg,
        student=swin,
        student_projector=dict(
            type='LinearNeck', in_channels=64, out_channels=16
        ),
        dense=dict(cells=dict(cells, grid='teacher')),
    )
    model.loss(**data)['loss_cells'].backward()
    model = distiller(
        save_teacher(tmp_path, vit),
        student=swin,
        dense=dict(cells=dict(cells, grid='teacher')),
    )
    with pytest.raises(ConfigError, match="teacher.out_type='featmap'"):
        model.loss(**data)


def coordinate_pair(height=60, width=80):
    """Both sides show where a pixel was in the file."""
    places = np.stack(np.mgrid[:height, :width], axis=-1).astype(np.float32)
    return dict(
        pair_id='p',
        source=dict(img=places, img_shape=(height, width)),
        target=dict(
            img=places.copy(), img_shape=(height, width), modality='depth'
        ),
    )


@pytest.mark.parametrize('name', ['CMCLoss', 'CMDLoss', 'FeatureL2Loss'])
def test_shared_geometry_holds_at_every_location(name):
    """A shift by one cell in any direction is worse than none."""
    pipeline = Compose(
        [
            TRANSFORMS.build(cfg)
            for cfg in (
                dict(
                    type='mmcmcd.SharedGeometry',
                    interpolation='nearest',
                    transforms=[
                        dict(type='RandomResizedCrop', scale=(32, 40)),
                        dict(type='RandomFlip', prob=0.5),
                    ],
                ),
                dict(type='mmcmcd.PackPairedInputs'),
            )
        ]
    )
    loss = dict(type=f'mmcmcd.{name}')
    if name == 'CMDLoss':
        loss.update(form='cross', student_temperature=0.1)
    model = MODELS.build(
        dict(
            type='mmcmcd.CrossModalDistiller',
            teacher=dict(type='mmcmcd.CoordinateFeatures'),
            student=dict(type='mmcmcd.CoordinateFeatures'),
            dense=dict(
                cells=dict(
                    loss=loss,
                    candidates='batch' if 'L2' in name else 'image',
                )
            ),
            data_preprocessor=dict(
                type='mmcmcd.PairedDataPreprocessor', source={}, target={}
            ),
        )
    )
    np.random.seed(0)
    data = pseudo_collate([pipeline(coordinate_pair()) for _ in range(4)])
    data = model.data_preprocessor(data)
    target = data['inputs']['target']
    aligned = model.loss(**data)['loss_cells']
    for shift in ((CELL, 0), (-CELL, 0), (0, CELL), (0, -CELL)):
        data['inputs']['target'] = target.roll(shift, (2, 3))
        assert model.loss(**data)['loss_cells'] > 1.1 * aligned + 0.01
    if name == 'FeatureL2Loss':
        assert aligned == 0
    if name == 'CMDLoss':
        # Equal rows: no student has a smaller cross-entropy.
        data['inputs']['target'] = target
        rows = CoordinateFeatures()(target)[0].flatten(2).mT
        rows = normalize(rows, dim=2)
        entropy = torch.distributions.Categorical(logits=rows @ rows.mT / 0.1)
        torch.testing.assert_close(aligned, entropy.entropy().mean())


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (
            dict(stage=2, teacher_stage=1),
            "no stage 2 of the student's backbone.*2 stage",
        ),
        (dict(stage=-3, teacher_stage=1), "no stage -3 of the student's"),
        (dict(teacher_stage=9), "no stage 9 of the teacher's backbone"),
        (dict(stage=0, teacher_stage=1), r'has 4x6 cells.*2x3.*cells.grid='),
        (
            dict(projector=dict(conv(), stride=2)),
            r'projector must keep the grid',
        ),
        (
            dict(source_norm=dict(type='BN1d', num_features=32, affine=False)),
            r'dense.cells.source_norm has num_features=32',
        ),
    ],
)
def test_what_does_not_fit_the_maps_is_told(teacher_cfg, change, message):
    model = distiller(
        teacher_cfg,
        dense=dict(cells={'loss': CMC, 'projector': conv(), **change}),
    )
    with pytest.raises(ConfigError, match=message):
        model.loss(**batch())


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(grid='both'), 'cells.grid must be'),
        (dict(grid=(3, 0)), 'cells.grid must be'),
        (dict(candidates='all'), "candidates must be one of.*'all'"),
        (dict(exclusion_radius=-1), 'exclusion_radius must be an integer'),
        (dict(exclusion_radius=1.5), 'exclusion_radius must be an integer'),
        (dict(locations_per_image=0), 'locations_per_image must be None or'),
        (dict(min_valid=1.5), 'min_valid must be a share'),
        (
            dict(candidates='others', exclusion_radius=1),
            "candidates='others' has none",
        ),
        (dict(lose=CMC), 'Expected the arguments of DenseComparison'),
        (
            dict(source_norm=dict(type='BN1d', num_features=64)),
            'cells.source_norm has trained parameters',
        ),
    ],
)
def test_what_is_no_option_is_told(teacher_cfg, change, message):
    with pytest.raises(ConfigError, match=message):
        distiller(teacher_cfg, dense=dict(cells={'loss': CMC, **change}))


def test_parts_that_nothing_uses_are_told(teacher_cfg):
    with pytest.raises(ConfigError, match='model.student_projector serves'):
        distiller(teacher_cfg, losses=None, student_projector=conv())
    with pytest.raises(ConfigError, match='losses is empty'):
        distiller(teacher_cfg, losses=None, dense=None)
    with pytest.raises(ConfigError, match="'a.b' cannot be a name"):
        distiller(teacher_cfg, dense={'a.b': dict(loss=CMC)})
    with pytest.raises(ConfigError, match='Expected the arguments'):
        distiller(teacher_cfg, dense=dict(cells="{'loss': 1}"))
    with pytest.raises(ConfigError, match='losses is empty'):
        distiller(teacher_cfg, losses=None, dense=dict(inherited=None))
    with pytest.raises(ConfigError, match='would not be trained'):
        distiller(
            teacher_cfg, losses=None, dense=dict(c=dict(loss=CMC, stage=0))
        )
    with pytest.raises(ConfigError, match='compares no location with others'):
        l2 = dict(loss=dict(type='mmcmcd.FeatureL2Loss'), exclusion_radius=1)
        distiller(teacher_cfg, dense=dict(c=l2))
    with pytest.raises(ConfigError, match='dense.cmc logs'):
        distiller(teacher_cfg, dense=dict(cmc=dict(loss=CMC))).loss(**batch())


def test_a_batch_without_any_valid_location_is_told(teacher_cfg):
    valid = torch.zeros(4, 1, 64, 96, dtype=torch.bool)
    with pytest.raises(ConfigError, match=r'50% valid.*pairs p0, p1, p2, p3'):
        distiller(teacher_cfg).loss(**batch(valid=valid))
