"""Processes that train jointly take the steps that one would take."""

from datetime import timedelta

import pytest
import torch
from mmengine import dist
from mmengine.config import ConfigDict
from mmengine.dataset import BaseDataset, ConcatDataset
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from mmpretrain.structures import DataSample
from torch import multiprocessing
from torch.nn.parallel import DistributedDataParallel

from mmcmcd.datasets.samplers import MultiSourceSampler
from mmcmcd.registry import MODELS

RANKS, BATCH, SIZE = 2, 4, (32, 32)
NET = dict(type='ResNet', depth=18, stem_channels=8, base_channels=8)
NORM = dict(type='BN', requires_grad=True)
MODEL = dict(
    type='mmcmcd.JointDistiller',
    student=dict(
        type='mmseg.EncoderDecoder',
        data_preprocessor=dict(type='SegDataPreProcessor'),
        backbone=dict(NET, in_channels=1, norm_cfg=NORM),
        decode_head=dict(
            type='FCNHead',
            in_channels=64,
            in_index=3,
            channels=8,
            num_convs=1,
            concat_input=False,
            dropout_ratio=0,
            num_classes=3,
            norm_cfg=NORM,
        ),
        train_cfg=dict(),
        test_cfg=dict(mode='whole'),
    ),
    losses=dict(cmc=dict(type='mmcmcd.CMCLoss')),
    dense=dict(cells=dict(loss=dict(type='mmcmcd.CMCLoss'))),
)


class Pairs(BaseDataset):
    """Two of them have labels, or many of them none."""

    def __init__(self, first, size, labelled):
        self.content = first, size, labelled
        super().__init__()

    def load_data_list(self):
        first, size, labelled = self.content
        return [dict(seed=first + i, labelled=labelled) for i in range(size)]

    def prepare_data(self, idx):
        info = self.get_data_info(idx)
        gen = torch.Generator().manual_seed(info['seed'])
        sample = DataSample(metainfo=dict(group_index=info['seed']))
        if info['labelled']:
            label = torch.randint(0, 3, (1, *SIZE), generator=gen)
            sample.gt_sem_seg = PixelData(data=label)
        return (
            torch.rand(3, *SIZE, generator=gen),
            torch.rand(1, *SIZE, generator=gen),
            sample,
        )


def step(folder, batch_size):
    """Gradients of the first batch of this process."""
    init_default_scope('mmpretrain')
    dataset = ConcatDataset([Pairs(0, 2, True), Pairs(10, 6, False)])
    sampler = MultiSourceSampler(dataset, batch_size, (1, 3), seed=0)
    pairs = [dataset[i] for i in [*sampler][:batch_size]]
    sources, targets, samples = zip(*pairs, strict=True)
    torch.manual_seed(0)
    init_cfg = dict(type='Pretrained', checkpoint=f'{folder}/teacher.pth')
    model = MODELS.build(
        ConfigDict(MODEL, teacher=dict(NET, init_cfg=init_cfg))
    )
    # Batch statistics would be those of a process.
    model.eval()
    call = DistributedDataParallel(model) if dist.is_distributed() else model
    inputs = dict(source=torch.stack(sources), target=torch.stack(targets))
    loss, log = model.parse_losses(call(inputs, [*samples], mode='loss'))
    loss.backward()
    assert all(p.grad is not None for p in model.parameters())
    gradient = torch.cat([p.grad.flatten() for p in model.parameters()])
    return dict(gradient=gradient, **log)


def work(rank, folder):
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        'gloo',
        f'file://{folder}/meet',
        timedelta(seconds=60),
        rank=rank,
        world_size=RANKS,
    )
    torch.save(step(folder, BATCH), f'{folder}/{rank}.pth')
    torch.distributed.destroy_process_group()


@pytest.fixture
def folder(tmp_path):
    init_default_scope('mmpretrain')
    torch.manual_seed(1)
    torch.save(MODELS.build(NET).state_dict(), tmp_path / 'teacher.pth')
    return tmp_path


def test_gradients_are_those_of_one_process(folder):
    multiprocessing.set_forkserver_preload(['mmcmcd.models'])
    multiprocessing.start_processes(
        work, (folder,), RANKS, start_method='forkserver'
    )
    ranks = [torch.load(folder / f'{i}.pth') for i in range(RANKS)]
    expected = step(folder, BATCH * RANKS)
    assert expected['task.labelled'] == 2
    for rank in ranks:
        assert rank['task.labelled'] == 1
        torch.testing.assert_close(
            rank['gradient'], expected['gradient'], rtol=1e-3, atol=1e-5
        )
    mean = sum(rank['loss'] for rank in ranks) / RANKS
    torch.testing.assert_close(mean, expected['loss'])
