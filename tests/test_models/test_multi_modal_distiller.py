import copy
import hashlib
from functools import partial

import pytest
import torch
from mmengine.registry import init_default_scope
from mmpretrain.structures import DataSample

from mmcmcd.datasets.transforms import PackPairedInputs, SelectSide
from mmcmcd.errors import CheckpointError, ConfigError, DatasetError
from mmcmcd.models.utils import load_backbone_strict
from mmcmcd.registry import MODELS

CHANNELS = dict(skeleton=12, inertial=6, depth=2)
WIDTH, LENGTH = 16, 20


@pytest.fixture(autouse=True)
def _scope():
    init_default_scope('mmpretrain')


def net(side, **kwargs):
    return dict(
        type='mmcmcd.TemporalConvNet',
        in_channels=CHANNELS[side],
        channels=(8, WIDTH),
        **kwargs,
    )


@pytest.fixture
def files(tmp_path):
    """A checkpoint of a random backbone for every side."""
    paths = {}
    for seed, side in enumerate(CHANNELS):
        torch.manual_seed(seed)
        state = MODELS.build(net(side)).state_dict()
        paths[side] = str(tmp_path / f'{side}.pth')
        torch.save({f'backbone.{k}': v for k, v in state.items()}, paths[side])
    return paths


def pretrained(path):
    return dict(type='Pretrained', checkpoint=path, prefix='backbone.')


def teacher(files, side='skeleton', **kwargs):
    return dict(backbone=net(side, init_cfg=pretrained(files[side])), **kwargs)


def neck():
    return dict(
        type='NonLinearNeck',
        in_channels=WIDTH,
        hid_channels=WIDTH,
        out_channels=WIDTH,
        num_layers=2,
        norm_cfg=dict(type='BN1d'),
    )


CMCD = dict(
    cmcd=dict(
        type='mmcmcd.CMCDLoss',
        cmd=dict(),
        cmc=dict(learnable_temperature=True),
    )
)
CMD = dict(cmd=dict(type='mmcmcd.CMDLoss'))
NORM = dict(type='BN1d', num_features=WIDTH, affine=False)
QUEUE = dict(
    type='mmcmcd.FeatureQueue',
    size=6,
    teacher_dim=WIDTH,
    student_dim=WIDTH,
)


def config(files, **kwargs):
    """One teacher with two students that learn in different ways."""
    cfg = dict(
        type='mmcmcd.MultiModalDistiller',
        data_preprocessor=dict(
            type='mmcmcd.PairedDataPreprocessor',
            **{side: dict() for side in CHANNELS},
        ),
        teachers=dict(skeleton=teacher(files, norm=NORM)),
        students=dict(inertial=net('inertial'), depth=net('depth')),
        lessons=dict(
            inertial=dict(
                teacher='skeleton',
                student='inertial',
                projector=neck(),
                losses=CMCD,
                queue=QUEUE,
            ),
            depth=dict(teacher='skeleton', student='depth', losses=CMD),
        ),
    )
    cfg.update(kwargs)
    return copy.deepcopy(cfg)


def two_teachers(files, losses=(CMCD, CMD)):
    """One student with two teachers."""
    return config(
        files,
        teachers={
            s: teacher(files, s, norm=NORM) for s in ('skeleton', 'depth')
        },
        students=dict(inertial=net('inertial')),
        lessons={
            f'from_{s}': dict(teacher=s, student='inertial', losses=each)
            for s, each in zip(('skeleton', 'depth'), losses, strict=True)
        },
    )


def build(cfg):
    torch.manual_seed(1)
    model = MODELS.build(cfg)
    model.init_weights()
    return model.train()


def make_batch(num=4, seed=0, sides=tuple(CHANNELS)):
    """Samples as the data set and PackPairedInputs give them, collated."""
    gen = torch.Generator().manual_seed(seed)
    packed = [
        PackPairedInputs().transform(
            dict(
                sides=sides,
                pair_id=f'{seed}_{i}',
                group_index=10 * seed + i,
                gt_label=i % 2,
                **{
                    side: dict(
                        img=torch.randn(CHANNELS[side], LENGTH, generator=gen),
                        img_path=f'{side}/{seed}_{i}.npy',
                    )
                    for side in sides
                },
            )
        )
        for i in range(num)
    ]
    return dict(
        inputs={
            side: torch.stack([p['inputs'][side] for p in packed])
            for side in sides
        },
        data_samples=[p['data_samples'] for p in packed],
    )


def backward(model, batch):
    """Return what is logged; gradients are added to those that are there."""
    data = model.data_preprocessor(copy.deepcopy(batch), True)
    loss, log = model.parse_losses(model(**data, mode='loss'))
    loss.backward()
    return log


def gradients(module):
    return {name: p.grad for name, p in module.named_parameters()}


def separate(files, model, lesson):
    """The distiller of two sides that has the weights of one lesson."""
    own = model.lessons[lesson]
    cfg = dict(
        type='mmcmcd.CrossModalDistiller',
        teacher=net(own.teacher, init_cfg=pretrained(files[own.teacher])),
        source_norm=NORM,
        student=net(own.student),
        student_projector=None if own.projector is None else neck(),
        losses=CMCD if 'cmcd' in own.losses else CMD,
        queue=None if own.queue is None else QUEUE,
        data_preprocessor=dict(
            type='mmcmcd.PairedDataPreprocessor', source={}, target={}
        ),
    )
    single = build(copy.deepcopy(cfg))
    single.student = copy.deepcopy(model.students[own.student])
    single.student_projector = copy.deepcopy(own.projector)
    single.losses = copy.deepcopy(own.losses)
    single.queue = copy.deepcopy(own.queue)
    single.source_norm = copy.deepcopy(model.norms[own.teacher])
    return single


def for_two_sides(batch, lesson):
    inputs = batch['inputs']
    return dict(
        inputs=dict(
            source=inputs[lesson.teacher], target=inputs[lesson.student]
        ),
        data_samples=batch['data_samples'],
    )


def test_students_learn_as_in_separate_runs(files):
    model = build(config(files))
    singles = {name: separate(files, model, name) for name in model.lessons}
    # Twice, so that queue and statistics have a past.
    for seed in range(2):
        batch = make_batch(seed=seed)
        model.zero_grad()
        log = backward(model, batch)
        for name, single in singles.items():
            single.zero_grad()
            lesson = model.lessons[name]
            alone = backward(single, for_two_sides(batch, lesson))
            del alone['loss']
            for key, value in alone.items():
                assert log[key.replace('loss_', f'loss_{name}_')] == value
            for ours, theirs in (
                (model.students[lesson.student], single.student),
                (lesson.projector, single.student_projector),
                (lesson.losses, single.losses),
            ):
                if ours is None:
                    continue
                expected = gradients(theirs)
                for key, grad in gradients(ours).items():
                    assert torch.equal(grad, expected[key]), (name, key)
    assert set(log) == {
        'loss',
        'loss_inertial_cmd',
        'loss_inertial_cmc',
        'loss_depth_cmd',
    }
    parts = sum(log[key] for key in log if key != 'loss')
    torch.testing.assert_close(log['loss'], parts)
    assert len(model.lessons['inertial'].queue) == 6
    for key, value in model.norms['skeleton'].state_dict().items():
        assert torch.equal(
            value, singles['depth'].source_norm.state_dict()[key]
        )


def test_every_network_runs_once_per_batch(files):
    for each in (build(two_teachers(files)), build(config(files))):
        calls = []
        networks = {
            **{
                f'teacher {side}': frozen.module['teacher']
                for side, frozen in each.teachers.items()
            },
            **{f'student {s}': net for s, net in each.students.items()},
        }
        for name, network in networks.items():
            network.register_forward_hook(partial(_note, calls, name))
        backward(each, make_batch())
        assert sorted(calls) == sorted(networks)


def _note(calls, name, *_):
    calls.append(name)


def test_two_teachers_add_their_gradients(files):
    model = build(two_teachers(files))
    singles = [separate(files, model, name) for name in model.lessons]
    batch = make_batch()
    log = backward(model, batch)
    for single, lesson in zip(singles, model.lessons.values(), strict=True):
        backward(single, for_two_sides(batch, lesson))
    first, second = (gradients(single.student) for single in singles)
    for key, grad in gradients(model.students['inertial']).items():
        assert not torch.allclose(grad, first[key])
        torch.testing.assert_close(grad, first[key] + second[key])
    assert {'loss_from_skeleton_cmc', 'loss_from_depth_cmd'} < log.keys()


def test_teachers_are_frozen_and_unseen(files):
    model = build(two_teachers(files))
    before = model.teachers.state_hash()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for seed in range(3):
        backward(model, make_batch(seed=seed))
        optimizer.step()
    assert model.teachers.state_hash() == before
    assert not any('teacher' in key for key in model.state_dict())
    layers = [*model.teachers.module.modules()]
    assert not any(layer.training for layer in layers)
    assert not any(p.requires_grad for p in model.teachers.module.parameters())
    for side, frozen in model.teachers.items():
        other = MODELS.build(net(side))
        load_backbone_strict(other, files[side], prefix='backbone.')
        state = frozen.module['teacher'].state_dict()
        for key, value in other.state_dict().items():
            assert torch.equal(state[key], value)
    assert (
        next(copy.deepcopy(model).double().teachers.module.parameters()).dtype
        == torch.float64
    )


def test_hash_of_one_teacher_is_its_own(files):
    single = build(config(files))
    assert (
        single.teachers.state_hash()
        == single.teachers['skeleton'].state_hash()
    )
    model = build(two_teachers(files))
    hashes = {s: t.state_hash() for s, t in model.teachers.items()}
    text = ''.join(f'{s}|{hashes[s]}\n' for s in ('depth', 'skeleton'))
    expected = hashlib.sha256(text.encode()).hexdigest()
    assert model.teachers.state_hash() == expected
    weight = model.teachers['depth'].module['teacher'].state_dict()
    next(iter(weight.values())).add_(1)
    assert model.teachers.state_hash() != expected


def test_checkpoint_roundtrip(files):
    model = build(config(files))
    backward(model, make_batch())
    other = build(config(files))
    other.load_state_dict(model.state_dict(), strict=True)
    batch = make_batch(seed=1)
    assert backward(other, batch) == backward(model, batch)


def test_students_are_initialised_by_their_configs(files):
    students = dict(
        inertial=net('inertial', init_cfg=pretrained(files['inertial'])),
        depth=net(
            'depth', init_cfg=dict(type='Constant', layer='Conv1d', val=3)
        ),
    )
    model = build(config(files, students=students))
    saved = torch.load(files['inertial'])
    for key, value in model.students['inertial'].state_dict().items():
        assert torch.equal(value, saved[f'backbone.{key}'])
    weights = [
        m.weight
        for m in model.students['depth'].modules()
        if isinstance(m, torch.nn.Conv1d)
    ]
    assert weights and all((w == 3).all() for w in weights)
    necks = model.lessons['inertial'].projector
    assert necks.is_init


def test_stem_of_one_student_is_adapted(files, tmp_path):
    resnet = dict(type='ResNet', depth=18, base_channels=8, stem_channels=8)
    path = str(tmp_path / 'rgb.pth')
    state = MODELS.build(resnet).state_dict()
    torch.save({f'backbone.{k}': v for k, v in state.items()}, path)
    model = build(
        config(
            files,
            students=dict(
                inertial=net('inertial'),
                depth=dict(resnet, in_channels=1, init_cfg=pretrained(path)),
            ),
            student_stems=dict(depth='sum'),
        )
    )
    torch.testing.assert_close(
        model.students['depth'].conv1.weight.data,
        state['conv1.weight'].sum(1, keepdim=True),
    )


def test_tensor_mode_is_the_students_alone(files):
    model = build(config(files)).eval()
    inputs = make_batch()['inputs']
    expected = {
        side: student(inputs[side])[-1]
        for side, student in model.students.items()
    }
    for out in (
        model(inputs['inertial']),
        model.extract_feat(inputs['inertial']),
    ):
        assert torch.equal(out[-1], expected['inertial'])
    found = model(inputs)
    assert list(found) == ['inertial', 'depth']
    for side, features in found.items():
        assert torch.equal(features[-1], expected[side])
    assert list(model(dict(depth=inputs['depth']))) == ['depth']
    other = build(config(files, main_student='depth')).eval()
    assert other(inputs['depth'])[-1].shape == (4, WIDTH, 1, LENGTH // 4)
    with pytest.raises(ConfigError, match=r"see \['depth', 'inertial'\]"):
        model(dict(skeleton=inputs['skeleton']))


def test_predict_embeds_both_sides_of_every_lesson(files):
    model = build(config(files)).eval()
    data = model.data_preprocessor(make_batch(3))
    samples = model(**data, mode='predict')
    sources = model.embed_sources(data['inputs'])
    targets = model.embed_targets(data['inputs'])
    for i, sample in enumerate(samples):
        assert set(sample.lessons) == {'inertial', 'depth'}
        depth = sample.lessons['depth']
        assert torch.equal(depth['source_embedding'], sources['skeleton'][i])
        assert torch.equal(depth['target_embedding'], targets['depth'][i])
        assert depth['source_path'] == f'skeleton/0_{i}.npy'
        assert depth['target_path'] == f'depth/0_{i}.npy'
        projected = model.lessons['inertial'].project(targets['inertial'])
        row = sample.lessons['inertial']['target_embedding']
        assert torch.equal(row, projected[i])
    assert isinstance(samples[0], DataSample) and 'gt_label' in samples[0]


def change(key, value):
    """A config that differs in one place, dots going down."""

    def apply(files):
        cfg = config(files)
        *parents, last = key.split('.')
        node = cfg
        for name in parents:
            node = node[name]
        if value is None:
            del node[last]
        else:
            node[last] = value
        return cfg

    return apply


@pytest.mark.parametrize(
    ('key', 'value', 'message'),
    [
        (
            'lessons.depth.teacher',
            'rgb',
            r"lessons.depth.teacher='rgb' is unknown: .*\['skeleton'\]",
        ),
        (
            'lessons.depth.student',
            'rgb',
            r"lessons.depth.student='rgb' .* \['depth', 'inertial'\]",
        ),
        ('lessons.depth', None, 'students: depth takes part in no lesson'),
        (
            'teachers.depth',
            dict(backbone=net('depth')),
            'teachers: depth takes part in no lesson',
        ),
        ('lessons', {}, 'model.lessons is empty'),
        ('students', {}, 'model.students is empty'),
        ('lessons.depth.losses', {}, 'lessons.depth.losses is empty'),
        ('lessons.depth.losses', None, r"lessons.depth lacks \['losses'\]"),
        ('lessons.rgb', {}, r"lessons.rgb lacks \['teacher', 'student'"),
        ('lessons.depth.loss', {}, r"unknown keys \['loss'\]"),
        ('teachers.skeleton.backbone', None, r"lacks \['backbone'\]"),
        ('teachers.skeleton.init_cfg', {}, r"unknown keys \['init_cfg'\]"),
        ('main_student', 'rgb', "main_student names 'rgb'"),
        ('student_stems', dict(rgb='sum'), "student_stems names 'rgb'"),
        ('students.training', {}, "'training' cannot be a name"),
        ('students.de/pth', {}, "'de/pth' cannot be a name"),
        ('lessons.glossary', {}, "'glossary' contains 'loss'"),
        (
            'teachers.skeleton.norm.affine',
            True,
            'teachers.skeleton.norm has trained parameters',
        ),
        (
            'teachers.skeleton.backbone.init_cfg',
            None,
            'model.teachers.skeleton.backbone.init_cfg=dict',
        ),
    ],
)
def test_bad_configs_are_named(files, key, value, message):
    with pytest.raises(ConfigError, match=message):
        build(change(key, value)(files))


def test_missing_teacher_is_named(files):
    cfg = config(files)
    cfg['teachers']['skeleton']['backbone']['init_cfg'] = pretrained('no.pth')
    with pytest.raises(
        CheckpointError, match=r"teachers.skeleton.backbone .*'no.pth'"
    ):
        build(cfg)


def test_bad_batches_are_named(files):
    model = build(config(files))
    batch = make_batch(sides=('skeleton', 'inertial'))
    for mode in ('loss', 'predict'):
        with pytest.raises(ConfigError, match=r'depth missing'):
            model(**batch, mode=mode)
        with pytest.raises(ConfigError, match='no named sides'):
            model(batch['inputs']['inertial'], [], mode=mode)
    with pytest.raises(DatasetError, match='depth'):
        model.data_preprocessor(batch)
    with pytest.raises(ConfigError, match='batch of 1 pair'):
        model(**make_batch(1), mode='loss')
    with pytest.raises(ConfigError, match="got 'losses'"):
        model(**make_batch(), mode='losses')


def test_norm_of_another_width_is_named(files):
    norm = dict(NORM, num_features=32)
    teachers = dict(skeleton=teacher(files, norm=norm))
    model = build(config(files, teachers=teachers))
    with pytest.raises(
        ConfigError, match='model.teachers.skeleton.norm.num_features=16'
    ):
        model(**make_batch(), mode='loss')


def test_two_terms_may_not_have_one_name(files):
    cfg = config(files)
    losses = cfg['lessons']['depth']['losses']
    losses.update(a=CMCD['cmcd'], b=CMCD['cmcd'])
    with pytest.raises(
        ConfigError, match=r"lessons.depth.losses.a .*'loss_cmd'"
    ):
        build(cfg)(**make_batch(), mode='loss')
    cfg = config(files)
    lessons = cfg['lessons']
    lessons['a'] = dict(lessons['depth'], losses=dict(b_c=CMD['cmd']))
    lessons['a_b'] = dict(lessons['depth'], losses=dict(c=CMD['cmd']))
    with pytest.raises(ConfigError, match=r"lessons.a_b .*'loss_a_b_c'"):
        build(cfg)(**make_batch(), mode='loss')


def test_sides_by_name_reach_the_stock_pipeline():
    sample = make_batch(1)['data_samples'][0]
    assert sample.img_shape == (CHANNELS['skeleton'], LENGTH)
    assert sample.depth_path == 'depth/0_0.npy'
    item = dict(
        sides=tuple(CHANNELS),
        gt_label=1,
        **{side: dict(img_path=side) for side in CHANNELS},
    )
    assert SelectSide('depth').transform(item) == dict(
        gt_label=1, img_path='depth'
    )
