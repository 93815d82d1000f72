"""A batch that cannot be stacked says which side, and what to do."""

import pytest
import torch
from conftest import REPO
from mmengine.config import Config
from mmengine.dataset import default_collate
from torch.utils.data import DataLoader
from utd_mhad_sample import write_sample

from mmcmcd.apis import train_from_config, user_message
from mmcmcd.apis.collate import NamedCollate
from mmcmcd.errors import PairConfigError


def pair(length):
    return dict(
        inputs=dict(source=torch.zeros(3, 4, 4), target=torch.zeros(6, length))
    )


def collate(*samples):
    return NamedCollate(default_collate)(list(samples))


def test_equal_shapes_are_stacked():
    batch = collate(pair(5), pair(5))
    assert batch['inputs']['target'].shape == (2, 6, 5)


@pytest.mark.parametrize(
    'make, name',
    [
        (pair, "side 'target'"),
        (lambda n: dict(inputs=torch.zeros(6, n)), 'img'),
        (lambda n: dict(inputs=[torch.zeros(6, n)] * 2), 'view 0'),
    ],
)
def test_unequal_lengths_are_named(make, name):
    with pytest.raises(PairConfigError) as caught:
        collate(make(50), make(61), make(50))
    message = str(caught.value)
    assert f'{name} has the shapes (6, 50) and (6, 61)' in message
    assert 'mmcmcd.ResampleArray or mmcmcd.CenterTimeCrop' in message


def test_other_errors_stay():
    def fail(batch):
        raise RuntimeError('out of memory')

    with pytest.raises(RuntimeError, match='out of memory'):
        NamedCollate(fail)([pair(5), pair(5)])


def test_from_a_worker():
    loader = DataLoader(
        [pair(5), pair(6)],
        batch_size=2,
        num_workers=1,
        collate_fn=NamedCollate(default_collate),
    )
    with pytest.raises(PairConfigError) as caught:
        next(iter(loader))
    assert user_message(caught.value).startswith('A batch cannot be stacked')


def test_training_without_resampling(tmp_path, monkeypatch):
    """The mistake that is made first."""
    write_sample(tmp_path / 'utd_mhad')
    monkeypatch.setenv('MMCMCD_REALDATA', str(tmp_path))
    cfg = Config.fromfile(REPO / 'configs/downstream/inertial_utdmhad_ft.py')
    data = cfg.train_dataloader.dataset
    data.pipeline = [
        step
        for step in data.pipeline
        if step['type'] != 'mmcmcd.ResampleArray'
    ]
    cfg.model.backbone.init_cfg = None
    cfg.dump(tmp_path / 'config.py')
    with pytest.raises(PairConfigError, match=r'img has the shapes \(6, '):
        train_from_config(
            str(tmp_path / 'config.py'), work_dir=str(tmp_path / 'work')
        )
