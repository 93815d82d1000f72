import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

import mmcmcd  # noqa: F401  (repairs what test modules import next)

REPO = Path(__file__).resolve().parents[1]

# A distillation of small networks on small pairs, about a second an epoch.
TINY_CONFIG = """
default_scope = 'mmpretrain'
custom_imports = dict(imports=['mmcmcd'], allow_failed_imports=False)
_backbone = dict(type='ResNet', depth=18, stem_channels=8, base_channels=8)
_load = [
    dict(type='mmcmcd.OnSide', sides='source',
         transforms=[dict(type='LoadImageFromFile')]),
    dict(type='mmcmcd.OnSide', sides='target',
         transforms=[dict(type='mmcmcd.LoadDepthFromFile', depth_scale=1000.,
                          expected_dtype='uint16')]),
]
_flip = dict(type='mmcmcd.SharedGeometry',
             transforms=[dict(type='RandomFlip', prob=0.5)])
_pack = dict(type='mmcmcd.PackPairedInputs')
_dataset = dict(
    type='mmcmcd.PairedModalityDataset',
    data_root='{root}/data',
    sides=dict(source=dict(folder='rgb', suffix='.png'),
               target=dict(folder='depth', suffix='.png')),
    pipeline=[*_load, _pack])
train_dataloader = dict(
    batch_size=4, num_workers=0, drop_last=True,
    dataset=dict(_dataset, pipeline=[*_load, _flip, _pack]),
    sampler=dict(type='DefaultSampler', shuffle=True))
val_dataloader = dict(
    batch_size=4, num_workers=0, dataset=_dataset,
    sampler=dict(type='DefaultSampler', shuffle=False))
val_evaluator = dict(type='mmcmcd.CrossModalRetrieval')
val_cfg = dict(type='ValLoop')
test_dataloader = val_dataloader
test_evaluator = val_evaluator
test_cfg = dict(type='TestLoop')
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=2, val_interval=2)
optim_wrapper = dict(
    type='OptimWrapper', optimizer=dict(type='SGD', lr=0.01, momentum=0.9))
model = dict(
    type='mmcmcd.CrossModalDistiller',
    data_preprocessor=dict(
        type='mmcmcd.PairedDataPreprocessor',
        source=dict(mean=[127.], std=[64.]),
        target=dict(mean=[2.], std=[1.])),
    teacher=dict(
        **_backbone,
        init_cfg=dict(type='Pretrained', checkpoint='{root}/teacher.pth',
                      prefix='backbone.')),
    student=dict(**_backbone, in_channels=1),
    losses=dict(cmcd=dict(type='mmcmcd.CMCDLoss', cmd=dict(), cmc=dict())))
default_hooks = dict(
    checkpoint=dict(type='CheckpointHook', interval=1),
    logger=dict(type='LoggerHook', interval=1))
custom_hooks = [
    dict(type='mmcmcd.VerifyPretrainedHook'),
    dict(type='mmcmcd.TeacherFrozenHook', interval=1),
    dict(type='mmcmcd.SkippedPairsHook'),
    dict(type='mmcmcd.StudentExportHook'),
]
randomness = dict(seed=0)
"""

# A stock segmentor on the same depth maps; its backbone is the student's.
TINY_SEG_CONFIG = """
default_scope = 'mmseg'
custom_imports = dict(imports=['mmcmcd'], allow_failed_imports=False)
_dataset = dict(
    type='BaseSegDataset',
    metainfo=dict(classes=('a', 'b', 'c'),
                  palette=[[0, 0, 0], [255, 0, 0], [0, 255, 0]]),
    data_root='{root}/data',
    data_prefix=dict(img_path='depth', seg_map_path='label'),
    img_suffix='.png',
    pipeline=[
        dict(type='mmcmcd.LoadDepthFromFile', depth_scale=1000.),
        dict(type='LoadAnnotations'),
        dict(type='PackSegInputs'),
    ])
train_dataloader = dict(
    batch_size=4, num_workers=0, dataset=_dataset,
    sampler=dict(type='InfiniteSampler', shuffle=True))
test_dataloader = dict(
    batch_size=1, num_workers=0, dataset=_dataset,
    sampler=dict(type='DefaultSampler', shuffle=False))
test_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_cfg = dict(type='TestLoop')
train_cfg = dict(type='IterBasedTrainLoop', max_iters=2)
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.01))
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(
        type='SegDataPreProcessor', mean=[2.], std=[1.], size=(32, 32)),
    backbone=dict(
        type='ResNet', depth=18, stem_channels=8, base_channels=8,
        in_channels=1,
        init_cfg=dict(type='Pretrained', checkpoint='none.pth',
                      prefix='backbone.')),
    decode_head=dict(type='FCNHead', in_channels=64, in_index=3, channels=8,
                     num_convs=1, num_classes=3),
    train_cfg=dict(), test_cfg=dict(mode='whole'))
default_hooks = dict(
    checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=2))
custom_hooks = [dict(type='mmcmcd.VerifyPretrainedHook')]
log_processor = dict(by_epoch=False)
randomness = dict(seed=0)
"""


class TinyRun:
    """A folder with data, a random teacher and a config to train from."""

    def __init__(self, root, num_pairs=8):
        import torch
        from mmpretrain.models import ResNet

        self.root = root
        self.config = root / 'tiny.py'
        self.config.write_text(TINY_CONFIG.replace('{root}', str(root)))
        self.seg_config = root / 'tiny_seg.py'
        self.seg_config.write_text(
            TINY_SEG_CONFIG.replace('{root}', str(root))
        )
        self.work_dir = root / 'work'
        self.teacher = root / 'teacher.pth'
        rng = np.random.default_rng(0)
        for folder in ('rgb', 'depth', 'label'):
            (root / 'data' / folder).mkdir(parents=True)
        for i in range(num_pairs):
            rgb = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
            depth = rng.integers(500, 9000, (32, 32), dtype=np.uint16)
            label = rng.integers(0, 3, (32, 32), dtype=np.uint8)
            cv2.imwrite(str(root / f'data/label/{i}.png'), label)
            cv2.imwrite(str(root / f'data/rgb/{i}.png'), rgb)
            cv2.imwrite(str(root / f'data/depth/{i}.png'), depth)
        torch.manual_seed(0)
        net = ResNet(18, stem_channels=8, base_channels=8)
        state = {f'backbone.{k}': v for k, v in net.state_dict().items()}
        torch.save(dict(state_dict=state), self.teacher)

    def tool(self, name, *args, **env):
        """Run a tool in its own process."""
        return run_command(
            [sys.executable, REPO / 'tools' / name, *args], **env
        )

    def train(self, *args, **env):
        return self.tool(
            'train.py', self.config, '--work-dir', self.work_dir, *args, **env
        )


def process_env(**env):
    """The environment of a process that uses the repository's package."""
    own = dict(
        OMP_NUM_THREADS='1', PYTHONPATH=str(REPO), PYTHON=sys.executable
    )
    return {**os.environ, **own, **env}


def run_command(command, timeout=120, **env):
    return subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        env=process_env(**env),
        timeout=timeout,
    )


@pytest.fixture
def tiny_run(tmp_path):
    return TinyRun(tmp_path)
