import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config

from mmcmcd.apis.knn import knn_from_config
from mmcmcd.errors import ConfigError

CLASSES = ('ant', 'bat')
CONFIG = """
default_scope = 'mmpretrain'
custom_imports = dict(imports=['mmcmcd'], allow_failed_imports=False)
_dataset = dict(
    type='mmcmcd.SketchyImages', data_root='{root}', split='train',
    pipeline=[dict(type='mmcmcd.LoadSketch'), dict(type='PackInputs')])
train_dataloader = dict(
    batch_size=2, num_workers=0, dataset=_dataset,
    sampler=dict(type='DefaultSampler', shuffle=True))
test_dataloader = dict(
    batch_size=2, num_workers=0, dataset=dict(_dataset, split='test'),
    sampler=dict(type='DefaultSampler', shuffle=False))
train_cfg = dict(by_epoch=True, max_epochs=1)
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.01))
model = dict(
    type='ImageClassifier',
    data_preprocessor=dict(num_classes=2, mean=[245.], std=[40.]),
    backbone=dict(
        type='ResNet', depth=18, stem_channels=8, base_channels=8,
        in_channels=1),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=2, in_channels=64, topk=(1,)))
# Copied into the hook when a config is read; nothing looks here.
bank_dataloader = dict(
    batch_size=2, num_workers=0, dataset=dict(_dataset, split='none'))
default_hooks = dict(knn=dict(
    type='mmcmcd.KNNHook',
    bank_dataloader=dict(bank_dataloader, dataset=_dataset)))
"""


@pytest.fixture
def files(tmp_path):
    """A config, and a student; every test sketch is a training one, too."""
    from mmpretrain.models import ResNet

    rng = np.random.default_rng(0)
    lines = ['photo,sketch,class,split']
    for i in range(6):
        image = np.full((32, 32), 255, np.uint8)
        image[tuple(rng.integers(0, 32, (2, 60)))] = 0
        for split in ('train', 'test'):
            names = [f'{side}/{split}/{i}.png' for side in ('photo', 'sketch')]
            for name in names:
                (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(tmp_path / name), image)
            lines.append(','.join([*names, CLASSES[i % 2], split]))
    (tmp_path / 'pairs.csv').write_text('\n'.join(lines) + '\n')
    torch.manual_seed(0)
    net = ResNet(18, stem_channels=8, base_channels=8, in_channels=1)
    state = {f'backbone.{k}': v for k, v in net.state_dict().items()}
    torch.save(dict(state_dict=state), tmp_path / 'student.pth')
    config = tmp_path / 'tiny.py'
    config.write_text(CONFIG.replace('{root}', str(tmp_path)))
    return str(config), str(tmp_path / 'student.pth')


def run(files, num_knn, **options):
    config, student = files
    work_dir = config.replace('tiny.py', 'work')
    return knn_from_config(
        config,
        student,
        num_knn=num_knn,
        work_dir=work_dir,
        cfg_options=dict(experiment_name=work_dir, **options),
    )


BANK = 'default_hooks.knn.bank_dataloader.dataset'


def test_the_bank_is_that_of_the_hook(files):
    # The nearest neighbour of a sketch is its copy in the bank.
    assert run(files, [1])['knn/top1_1'] == 100
    with pytest.raises(ConfigError, match="split='sketches'"):
        run(files, [1], **{f'{BANK}.split': 'sketches'})


def test_a_number_that_was_asked_for_is_not_lowered(files):
    assert {'knn/top1_6', 'knn/top5_2'} <= run(files, [2, 6]).keys()
    with pytest.raises(ConfigError, match='k=7 neighbours of a bank of 6'):
        run(files, [2, 7])
    few = {f'{BANK}.labels_per_class': 1}
    with pytest.raises(ConfigError, match='k=6 neighbours of a bank of 2'):
        run(files, [2, 6], **few)


def test_without_a_hook_the_training_set_is_the_bank(files):
    cfg = Config.fromfile(files[0])
    cfg.pop('default_hooks')
    cfg.pop('bank_dataloader')
    cfg.dump(files[0])
    assert run(files, [1])['knn/top1_1'] == 100
