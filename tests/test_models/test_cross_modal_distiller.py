import copy

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.registry import init_default_scope
from mmpretrain.structures import DataSample

from mmcmcd.errors import CheckpointError, ConfigError, DatasetError
from mmcmcd.registry import MODELS

SIZE = (32, 40)


@pytest.fixture(autouse=True)
def _scope():
    init_default_scope('mmpretrain')


def resnet(in_channels=3, **kwargs):
    return dict(
        type='ResNet',
        depth=18,
        base_channels=8,
        stem_channels=8,
        in_channels=in_channels,
        **kwargs,
    )


@pytest.fixture
def teacher_file(tmp_path):
    torch.manual_seed(0)
    backbone = MODELS.build(resnet())
    path = tmp_path / 'teacher.pth'
    torch.save(
        dict(
            state_dict={
                f'backbone.{k}': v for k, v in backbone.state_dict().items()
            }
        ),
        path,
    )
    return str(path)


def pretrained(path, prefix='backbone.'):
    return dict(type='Pretrained', checkpoint=path, prefix=prefix)


def neck(out_channels=64, in_channels=64):
    return dict(
        type='NonLinearNeck',
        in_channels=in_channels,
        hid_channels=32,
        out_channels=out_channels,
        num_layers=2,
        with_avg_pool=True,
        norm_cfg=dict(type='BN1d'),
    )


def config(teacher_file, **kwargs):
    cfg = dict(
        type='mmcmcd.CrossModalDistiller',
        data_preprocessor=dict(
            type='mmcmcd.PairedDataPreprocessor',
            source=dict(mean=[120.0] * 3, std=[60.0] * 3, to_rgb=True),
            target=dict(mean=[0.5], std=[0.25]),
        ),
        teacher=resnet(init_cfg=pretrained(teacher_file)),
        student=resnet(1),
        student_projector=neck(),
        losses=dict(cmcd=dict(type='mmcmcd.CMCDLoss', cmd=dict(), cmc=dict())),
    )
    cfg.update(kwargs)
    return ConfigDict(copy.deepcopy(cfg))


def build(teacher_file, **kwargs):
    torch.manual_seed(1)
    model = MODELS.build(config(teacher_file, **kwargs))
    model.init_weights()
    return model


def make_batch(num=4, target_channels=1, seed=0):
    gen = torch.Generator().manual_seed(seed)
    return dict(
        inputs=dict(
            source=torch.randint(
                0, 256, (num, 3, *SIZE), generator=gen, dtype=torch.uint8
            ),
            target=torch.rand(num, target_channels, *SIZE, generator=gen),
        ),
        data_samples=[
            DataSample(metainfo=dict(pair_id=str(i), group_index=i))
            for i in range(num)
        ],
    )


def step(model, batch, optimizer):
    data = model.data_preprocessor(batch, True)
    loss, log = model.parse_losses(model(**data, mode='loss'))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return log


def test_teacher_is_frozen_and_unseen(teacher_file):
    model = build(teacher_file)
    before = model.teacher.state_hash()
    model.train()
    assert not any('teacher' in key for key in model.state_dict())
    names = [name for name, _ in model.named_parameters()]
    assert names and all(name.startswith('student') for name in names)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for seed in range(3):
        log = step(model, make_batch(seed=seed), optimizer)
    assert {'loss', 'loss_cmd', 'loss_cmc'} == set(log)
    assert model.teacher.state_hash() == before
    assert all(not m.training for m in model.teacher.module.modules())
    assert all(not p.requires_grad for p in model.teacher.module.parameters())


def test_teacher_weights_are_those_of_the_file(teacher_file):
    model = build(teacher_file)
    saved = torch.load(teacher_file)['state_dict']
    loaded = model.teacher.module['teacher'].state_dict()
    assert all(
        torch.equal(loaded[k.removeprefix('backbone.')], v)
        for k, v in saved.items()
    )


def test_teacher_output_ignores_train_mode(teacher_file):
    model = build(
        teacher_file,
        teacher=dict(
            type='VisionTransformer',
            arch=dict(
                embed_dims=16,
                num_layers=2,
                num_heads=2,
                feedforward_channels=32,
            ),
            img_size=32,
            patch_size=8,
            drop_rate=0.5,
            drop_path_rate=0.5,
            init_cfg=pretrained(_vit_file(teacher_file)),
        ),
        student_projector=neck(16),
    )
    images = torch.randn(2, 3, 32, 32)
    model.eval()
    expected = model.teacher(images)
    model.train()
    torch.testing.assert_close(model.teacher(images), expected)
    assert not expected.requires_grad


def _vit_file(teacher_file):
    vit = MODELS.build(
        dict(
            type='VisionTransformer',
            arch=dict(
                embed_dims=16,
                num_layers=2,
                num_heads=2,
                feedforward_channels=32,
            ),
            img_size=32,
            patch_size=8,
        )
    )
    path = teacher_file.replace('teacher.pth', 'vit.pth')
    torch.save({f'backbone.{k}': v for k, v in vit.state_dict().items()}, path)
    return path


def test_training_lowers_the_loss_and_permuting_raises_it(teacher_file):
    model = build(teacher_file)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    batch = make_batch(8)
    # The target holds the source's content, so that it can be matched.
    batch['inputs']['target'] = (
        batch['inputs']['source'].float().mean(1, keepdim=True) / 255
    )
    first = step(model, batch, optimizer)['loss']
    for _ in range(15):
        last = step(model, batch, optimizer)['loss']
    assert last < first - 0.3
    data = model.data_preprocessor(batch, True)
    with torch.no_grad():
        matched, _ = model.parse_losses(model(**data, mode='loss'))
        data['inputs']['target'] = data['inputs']['target'].roll(1, 0)
        permuted, _ = model.parse_losses(model(**data, mode='loss'))
    assert permuted > matched + 0.3


def test_tensor_mode_is_the_student_alone(teacher_file):
    model = build(teacher_file).eval()
    images = torch.randn(2, 1, *SIZE)
    expected = model.student(images)[-1]
    for out in (
        model(images),
        model.extract_feat(images),
        model(dict(source=None, target=images)),
    ):
        assert torch.equal(out[-1], expected)


def test_predict_embeds_both_sides(teacher_file):
    model = build(teacher_file).eval()
    data = model.data_preprocessor(make_batch(3))
    samples = model(**data, mode='predict')
    teacher = model.teacher(data['inputs']['source'])
    for sample, row in zip(samples, teacher, strict=True):
        assert torch.equal(sample.source_embedding, row)
        assert sample.target_embedding.shape == (64,)


def test_group_ids_reach_the_losses(teacher_file):
    model = build(teacher_file, losses=dict(cmc=dict(type='mmcmcd.CMCLoss')))
    batch = make_batch(4)
    data = model.data_preprocessor(batch, True)
    apart = model(**data, mode='loss')['loss_cmc']
    for sample in data['data_samples']:
        sample.set_metainfo(dict(group_index=7))
    assert apart > 0.01
    # No negatives are left, so nothing is left to lose.
    assert model(**data, mode='loss')['loss_cmc'].abs() < 1e-6


def test_queue_is_used_saved_and_restored(teacher_file):
    queue = dict(
        type='mmcmcd.FeatureQueue', size=6, teacher_dim=64, student_dim=64
    )
    model = build(teacher_file, queue=queue)
    data = model.data_preprocessor(make_batch(4), True)
    assert model.queue.view() is None
    first = model(**data, mode='loss')['loss_cmc']
    assert len(model.queue) == 4
    data['data_samples'] = make_batch(4)['data_samples']
    for sample in data['data_samples']:
        sample.set_metainfo(dict(group_index=sample.group_index + 100))
    assert model(**data, mode='loss')['loss_cmc'] > first
    assert len(model.queue) == 6
    other = build(teacher_file, queue=queue)
    other.load_state_dict(model.state_dict())
    assert torch.equal(other.queue.view().teacher, model.queue.view().teacher)


def test_queue_is_read_but_not_filled_in_evaluation(teacher_file):
    queue = dict(
        type='mmcmcd.FeatureQueue', size=6, teacher_dim=64, student_dim=64
    )
    model = build(teacher_file, queue=queue)
    first, second = (
        model.data_preprocessor(make_batch(4, seed=seed), True)
        for seed in range(2)
    )
    for sample in second['data_samples']:
        sample.set_metainfo(dict(group_index=sample.group_index + 100))
    model.eval()
    alone = model(**second, mode='loss')['loss_cmc']
    assert model.queue.view() is None
    model.train()(**first, mode='loss')
    before = copy.deepcopy(model.queue.state_dict())
    model.eval()
    values = [model(**second, mode='loss')['loss_cmc'] for _ in range(2)]
    assert values[0] == values[1] > alone
    for key, value in model.queue.state_dict().items():
        assert torch.equal(value, before[key])
    model.train()(**second, mode='loss')
    assert len(model.queue) == 6


def test_learnable_temperature_is_in_the_optimizer(teacher_file):
    model = build(
        teacher_file,
        losses=dict(
            cmc=dict(type='mmcmcd.CMCLoss', learnable_temperature=True)
        ),
    )
    assert 'losses.cmc.log_scale' in dict(model.named_parameters())


@pytest.mark.parametrize(
    'student,projector',
    [
        (
            dict(
                type='VisionTransformer',
                arch=dict(
                    embed_dims=16,
                    num_layers=2,
                    num_heads=2,
                    feedforward_channels=32,
                ),
                img_size=SIZE,
                patch_size=8,
                in_channels=1,
            ),
            neck(64, 16),
        ),
        (
            dict(
                type='SwinTransformer',
                arch=dict(
                    embed_dims=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2]
                ),
                img_size=SIZE,
                in_channels=1,
                window_size=2,
                pad_small_map=True,
            ),
            neck(64, 64),
        ),
        (
            dict(
                type='mmseg.ResNetV1c',
                depth=18,
                base_channels=8,
                stem_channels=8,
                in_channels=1,
            ),
            neck(64, 64),
        ),
    ],
)
def test_other_students_run(teacher_file, student, projector):
    model = build(teacher_file, student=student, student_projector=projector)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    assert step(model, make_batch(), optimizer)['loss'] > 0


@pytest.mark.parametrize('mode', ['sum', 'mean'])
def test_three_channel_weights_fit_a_one_channel_student(teacher_file, mode):
    model = build(
        teacher_file,
        student=resnet(1, init_cfg=pretrained(teacher_file)),
        student_stem=mode,
    )
    weight = torch.load(teacher_file)['state_dict']['backbone.conv1.weight']
    expected = getattr(weight, mode)(dim=1, keepdim=True)
    torch.testing.assert_close(model.student.conv1.weight.data, expected)


@pytest.mark.parametrize(
    'change,error,message',
    [
        (
            dict(teacher=resnet()),
            ConfigError,
            'random teacher teaches nothing',
        ),
        (dict(losses=dict()), ConfigError, 'losses is empty'),
        (dict(teacher_projector=neck()), ConfigError, 'teacher_projector'),
        (
            dict(teacher=resnet(init_cfg=pretrained('/no/file.pth'))),
            CheckpointError,
            'no/file.pth',
        ),
    ],
)
def test_bad_configs_are_named(teacher_file, change, error, message):
    with pytest.raises(error, match=message):
        build(teacher_file, **change)


@pytest.mark.parametrize(
    'prefix,message', [('', 'backbone.'), ('teacher.', 'backbone.')]
)
def test_wrong_prefix_is_told(teacher_file, prefix, message):
    with pytest.raises(CheckpointError, match=message):
        build(
            teacher_file,
            teacher=resnet(init_cfg=pretrained(teacher_file, prefix)),
        )


def test_partial_and_other_teachers_are_refused(teacher_file):
    saved = torch.load(teacher_file)
    saved['state_dict'].pop('backbone.layer3.0.conv1.weight')
    torch.save(saved, teacher_file)
    with pytest.raises(CheckpointError, match='layer3.0.conv1.weight'):
        build(teacher_file)
    with pytest.raises(CheckpointError):
        build(
            teacher_file,
            teacher=dict(
                type='ResNet',
                depth=34,
                base_channels=8,
                stem_channels=8,
                init_cfg=pretrained(teacher_file),
            ),
        )


def test_a_missing_side_is_named(teacher_file):
    model = build(teacher_file)
    batch = make_batch()
    del batch['inputs']['source']
    with pytest.raises(DatasetError, match='source'):
        model.data_preprocessor(batch)


def test_two_losses_may_not_log_one_key(teacher_file):
    term = dict(type='mmcmcd.CMCDLoss', cmc=dict())
    model = build(teacher_file, losses=dict(a=term, b=term))
    data = model.data_preprocessor(make_batch(), True)
    with pytest.raises(ConfigError, match='loss_cmc'):
        model(**data, mode='loss')


def test_copy_and_cast_take_the_teacher_along(teacher_file):
    model = copy.deepcopy(build(teacher_file)).double()
    dtype = next(model.teacher.module.parameters()).dtype
    assert dtype == torch.float64


def test_other_side_names_are_refused(teacher_file):
    model = build(teacher_file)
    data = model.data_preprocessor(make_batch(), True)
    data['inputs'] = dict(photo=data['inputs']['source'])
    for mode in ('loss', 'predict'):
        with pytest.raises(ConfigError, match=r"has \['photo'\]"):
            model(**data, mode=mode)


def test_source_norm_spreads_the_teachers_cosines(teacher_file):
    norm = dict(type='BN1d', num_features=64, affine=False)
    plain = build(teacher_file)
    model = build(teacher_file, source_norm=norm)
    data = model.data_preprocessor(make_batch(16), True)

    def mean_cosine(m):
        rows = m.embed_source(data['inputs']['source'])
        rows = torch.nn.functional.normalize(rows, dim=1)
        cosines = rows @ rows.T
        return cosines[~torch.eye(16, dtype=torch.bool)].mean()

    assert mean_cosine(plain) > 0.8
    assert mean_cosine(model.train()).abs() < 0.1
    for _ in range(50):
        model(**data, mode='loss')
    # Validation uses the statistics of training, and they are saved.
    assert mean_cosine(model.eval()).abs() < 0.1
    assert 'source_norm.running_mean' in model.state_dict()
    assert not any('teacher' in key for key in model.state_dict())


def test_source_norm_may_not_be_trained(teacher_file):
    with pytest.raises(ConfigError, match='affine=False'):
        build(teacher_file, source_norm=dict(type='BN1d', num_features=64))


def test_source_norm_of_another_width_is_named(teacher_file):
    norm = dict(type='BN1d', num_features=32, affine=False)
    model = build(teacher_file, source_norm=norm)
    data = model.data_preprocessor(make_batch(), True)
    with pytest.raises(ConfigError, match='source_norm.num_features=64'):
        model(**data, mode='loss')


def test_a_batch_of_one_is_named(teacher_file):
    model = build(teacher_file)
    data = model.data_preprocessor(make_batch(1), True)
    with pytest.raises(ConfigError, match='batch of 1 pair'):
        model(**data, mode='loss')


def test_samples_without_groups(teacher_file):
    model = build(teacher_file)
    data = model.data_preprocessor(make_batch(), True)
    expected = model(**data, mode='loss')['loss_cmc']
    data['data_samples'] = None
    assert torch.equal(model(**data, mode='loss')['loss_cmc'], expected)
    queue = dict(
        type='mmcmcd.FeatureQueue', size=6, teacher_dim=64, student_dim=64
    )
    with pytest.raises(ConfigError, match='group_index'):
        build(teacher_file, queue=queue)(**data, mode='loss')
