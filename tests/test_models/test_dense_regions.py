"""What a distiller predicts of the locations that it compares."""

import copy

import pytest
import torch
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from mmpretrain.structures import DataSample

from mmcmcd.registry import MODELS

CMC = dict(type='mmcmcd.CMCLoss', temperature=0.1)
CELLS = dict(
    loss=CMC,
    projector=dict(
        type='Conv2d', in_channels=64, out_channels=64, kernel_size=1
    ),
    source_norm=dict(type='mmcmcd.Center', num_features=64),
)
STAGE = dict(loss=dict(type='mmcmcd.CMDLoss'), stage=0, grid=(1, 2))


@pytest.fixture(autouse=True)
def _scope():
    init_default_scope('mmpretrain')
    torch.manual_seed(0)


def resnet(**kwargs):
    return dict(
        type='ResNet',
        depth=18,
        base_channels=8,
        stem_channels=8,
        out_indices=(2, 3),
        **kwargs,
    )


@pytest.fixture
def build(tmp_path):
    """Build a distiller in evaluation, its running means away from zero."""
    path = tmp_path / 'teacher.pth'
    net = MODELS.build(resnet())
    torch.save({f'backbone.{k}': v for k, v in net.state_dict().items()}, path)
    init = dict(type='Pretrained', checkpoint=str(path), prefix='backbone.')

    def build(**dense):
        cfg = dict(
            type='mmcmcd.CrossModalDistiller',
            teacher=resnet(init_cfg=init),
            student=resnet(in_channels=1),
            losses=dict(cmc=dict(type='mmcmcd.CMCLoss')),
            dense=dense,
            data_preprocessor=dict(
                type='mmcmcd.PairedDataPreprocessor', source={}, target={}
            ),
        )
        model = MODELS.build(copy.deepcopy(cfg))
        model.init_weights()
        for each in model.dense.values():
            if each.source_norm is not None:
                each.source_norm.running_mean.normal_()
        return model.eval()

    return build


def batch(valid=None, num=4, size=(64, 96)):
    samples = [
        DataSample(metainfo=dict(pair_id=f'p{i}', group_index=i))
        for i in range(num)
    ]
    if valid is not None:
        for sample, mask in zip(samples, valid, strict=True):
            sample.set_field(PixelData(data=mask), 'target_valid')
    return dict(
        inputs=dict(
            source=torch.randn(num, 3, *size),
            target=torch.randn(num, 1, *size),
        ),
        data_samples=samples,
    )


def with_holes():
    """An image without a valid pixel, one with two cells of six, two full."""
    valid = torch.ones(4, 1, 64, 96, dtype=torch.bool)
    valid[0] = False
    valid[1, :, :32], valid[1, :, :, :32] = False, False
    return valid


@torch.no_grad()
def predict(model, data):
    return [s.regions for s in model(**data, mode='predict')]


def test_rows_are_those_of_the_maps(build):
    model = build(cells=CELLS)
    data = batch(with_holes())
    found = predict(model, data)
    dense = model.dense['cells']
    with torch.no_grad():
        target = dense.projector(model.student(data['inputs']['target'])[-1])
        source = model.teacher.module['teacher'](data['inputs']['source'])[-1]
    source = source - dense.source_norm.running_mean[:, None, None]
    full = [[y, x] for y in range(2) for x in range(3)]
    cells = [[], [[1, 1], [1, 2]], full, full]
    for i, (regions, expected) in enumerate(zip(found, cells, strict=True)):
        (regions,) = regions.values()
        assert regions['grid'] == (2, 3)
        assert regions['places_student']
        assert regions['cells'].tolist() == expected
        assert regions['source'].shape == (len(expected), 64)
        for row, (y, x) in enumerate(expected):
            for side, features in (('source', source), ('target', target)):
                torch.testing.assert_close(
                    regions[side][row], features[i, :, y, x]
                )


def test_they_are_what_the_loss_compares(build):
    """Also of a few locations, of which training alone draws some."""
    model = build(cells=dict(CELLS, locations_per_image=2), third=STAGE)
    data = batch(with_holes())
    found = predict(model, data)
    seen = {}
    for name, dense in model.dense.items():
        dense.loss.register_forward_hook(
            lambda _, rows, __, name=name: seen.update({name: rows})
        )
    model.loss(**data)
    assert seen.keys() == found[0].keys() == {'cells', 'third'}
    for name, (student, teacher) in seen.items():
        for side, rows in (('target', student), ('source', teacher)):
            predicted = torch.cat([image[name][side] for image in found])
            torch.testing.assert_close(predicted, rows)
    assert [len(image['cells']['cells']) for image in found] == [0, 2, 6, 6]
    assert found[3]['third']['grid'] == (1, 2)
    assert not found[3]['third']['places_student']
    model.train().loss(**data)
    assert len(seen['cells'][0]) == 6


def test_nothing_else_changes(build):
    model = build(cells=CELLS)
    data = batch()
    state = copy.deepcopy(model.state_dict())
    passes = []
    for net in (model.student, model.teacher.module['teacher']):
        net.register_forward_hook(lambda *_: passes.append(1))
    predict(model, data)
    assert len(passes) == 2
    torch.testing.assert_close(model.state_dict(), state, rtol=0, atol=0)
    with_dense = data['data_samples']
    alone = build()
    alone.student.load_state_dict(model.student.state_dict())
    data['data_samples'] = batch()['data_samples']
    without = alone(**data, mode='predict')
    for one, other in zip(with_dense, without, strict=True):
        assert 'regions' not in other
        for field in ('source_embedding', 'target_embedding'):
            torch.testing.assert_close(one.get(field), other.get(field))
