"""The example of docs/your_own_modality.md, on data as it describes them."""

import re
import sys

import cv2
import numpy as np
import torch
from conftest import REPO, run_command
from mmpretrain.registry import MODELS

import mmcmcd  # noqa: F401

IDS = [f'{i:04d}' for i in range(8)]


def write_data(root):
    rng = np.random.default_rng(0)
    (root / 'rgb').mkdir(parents=True)
    radar = {}
    for name in IDS:
        image = rng.integers(0, 256, (40, 60, 3), np.uint8)
        cv2.imwrite(str(root / 'rgb' / f'{name}.jpg'), image)
        length = int(rng.integers(50, 90))
        radar[name] = rng.normal(5.0, 2.0, (length, 8)).astype(np.float32)
    np.savez_compressed(root / 'radar.npz', **radar)
    (root / 'train.txt').write_text('\n'.join(IDS))
    (root / 'val.txt').write_text('\n'.join(IDS[:4]))


def write_labelled(root):
    rng = np.random.default_rng(1)
    for part in ('train', 'val'):
        for name in ('walk', 'run', 'fall'):
            folder = root / part / name
            folder.mkdir(parents=True)
            for number in range(3):
                table = rng.normal(5.0, 2.0, (60 + number, 8))
                path = folder / f'{number}.csv'
                header = ','.join('abcdefgh')
                np.savetxt(path, table, '%.4f', ',', header=header)


def run_in(folder, words):
    return run_command(
        ['env', '-C', folder, sys.executable, '-m', *words],
        PYTHONPATH=str(REPO),
    )


def test_the_documented_commands_run(tmp_path):
    write_data(tmp_path / 'data/mine')
    net = dict(type='ResNet', depth=18, stem_channels=8, base_channels=8)
    teacher = MODELS.build(dict(net, type='mmpretrain.ResNet'))
    state = {f'backbone.{k}': v for k, v in teacher.state_dict().items()}
    torch.save(dict(state_dict=state), tmp_path / 'teacher.pth')
    page = (REPO / 'docs/your_own_modality.md').read_text()
    pair, classes, _ = re.findall(r'^```python\n(.*?)^```$', page, re.M | re.S)
    (tmp_path / 'radar.py').write_text(pair)
    (tmp_path / 'radar_classes.py').write_text(classes)
    small = [
        'model.teacher.init_cfg.checkpoint=teacher.pth',
        *(f'model.teacher.{k}={v}' for k, v in net.items() if k != 'type'),
        'model.source_norm.num_features=64',
        *(f'model.student_projector.{k}=64' for k in
          ('hid_channels', 'out_channels')),
        'train_dataloader.batch_size=4',
        'train_dataloader.num_workers=0',
        'val_dataloader.num_workers=0',
        'train_cfg.max_epochs=1',
        'train_cfg.val_interval=1',
    ]  # fmt: skip
    commands = re.findall(r'^python -m (mmcmcd .*radar\.py.*)$', page, re.M)
    assert [c.split()[1] for c in commands] == [
        'array_statistics',
        'audit_pairs',
        'browse_dataset',
        'train',
    ]
    for command in commands:
        words = command.split()
        if words[1] == 'train':
            words += ['--cfg-options', *small]
        result = run_in(tmp_path, words)
        assert result.returncode == 0, (command, result.stderr[-2000:])
    assert 'retrieval/target2source_R@1' in result.stdout
    (student,) = (tmp_path / 'work_dirs/radar').glob('student-*.pth')
    pictures = list((tmp_path / 'work_dirs/browse/radar').glob('*.png'))
    assert len(pictures) == len(IDS) + 1
    # Fewer labels, and no pairs.
    write_labelled(tmp_path / 'data/labelled')
    words = ['mmcmcd', 'train', 'radar_classes.py', '--cfg-options']
    words += [
        f'model.backbone.init_cfg.checkpoint={student}',
        'train_cfg.max_iters=2',
        'train_cfg.val_interval=2',
        'train_dataloader.batch_size=8',
    ]
    result = run_in(tmp_path, words)
    assert result.returncode == 0, result.stderr[-2000:]
    assert 'accuracy/top1' in result.stdout
