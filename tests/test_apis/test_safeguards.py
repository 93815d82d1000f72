"""Any configuration gets what a run needs to be stopped and trusted."""

import pytest
from mmengine.config import Config
from mmengine.hooks import CheckpointHook

from mmcmcd.apis.safeguards import add_safeguards, find_checkpoint

OURS = [
    'mmcmcd.ExactResumeHook',
    'mmcmcd.NonFiniteGuardHook',
    'mmcmcd.StopOnSignalHook',
]


def config(**changes):
    return Config(
        {
            'train_cfg': dict(by_epoch=True, max_epochs=3),
            'optim_wrapper': dict(optimizer=dict(type='SGD', lr=0.1)),
            **changes,
        }
    )


def guarded(**changes):
    cfg = config(**changes)
    add_safeguards(cfg)
    return cfg


def hook_types(cfg):
    return [hook['type'] for hook in cfg.custom_hooks]


def test_stock_configuration():
    cfg = guarded()
    assert hook_types(cfg) == OURS
    assert cfg.default_hooks.checkpoint == dict(
        type='mmcmcd.AtomicCheckpointHook', interval=1
    )
    assert cfg.train_cfg == dict(
        type='mmcmcd.ResumableEpochLoop', max_epochs=3
    )


def test_it_can_be_dumped_and_guarded_again():
    cfg = guarded()
    again = Config.fromstring(cfg.pretty_text, '.py')
    add_safeguards(again)
    assert again.to_dict() == cfg.to_dict()


def test_settings_of_the_configuration_stay():
    cfg = guarded(
        default_hooks=dict(
            logger=dict(type='LoggerHook'),
            checkpoint=dict(type='CheckpointHook', interval=7, by_epoch=False),
        ),
        train_cfg=dict(type='IterBasedTrainLoop', max_iters=9),
        custom_hooks=[
            dict(type='EMAHook'),
            dict(type='mmcmcd.NonFiniteGuardHook', max_skipped=4),
        ],
    )
    assert cfg.default_hooks.checkpoint == dict(
        type='mmcmcd.AtomicCheckpointHook', interval=7, by_epoch=False
    )
    assert 'logger' in cfg.default_hooks
    assert cfg.train_cfg.type == 'IterBasedTrainLoop'
    assert hook_types(cfg) == ['EMAHook', OURS[1], OURS[0], OURS[2]]
    assert cfg.custom_hooks[1].max_skipped == 4


@pytest.mark.parametrize(
    'kind', ['EpochBasedTrainLoop', 'mmengine.EpochBasedTrainLoop']
)
def test_epoch_loops(kind):
    cfg = guarded(train_cfg=dict(type=kind, max_epochs=2, val_begin=2))
    assert cfg.train_cfg == dict(
        type='mmcmcd.ResumableEpochLoop', max_epochs=2, val_begin=2
    )


def test_other_classes_are_left_alone():
    checkpoint = dict(type='mine.CheckpointHook')
    cfg = guarded(
        train_cfg=dict(type='mine.EpochBasedTrainLoop'),
        default_hooks=dict(checkpoint=checkpoint),
    )
    assert cfg.default_hooks.checkpoint == checkpoint
    assert cfg.train_cfg.type == 'mine.EpochBasedTrainLoop'
    assert guarded(default_hooks=dict(checkpoint=None)).default_hooks == dict(
        checkpoint=None
    )


def test_classes_instead_of_names():
    cfg = guarded(default_hooks=dict(checkpoint=dict(type=CheckpointHook)))
    assert cfg.default_hooks.checkpoint.type == 'mmcmcd.AtomicCheckpointHook'


def test_several_optimizers_are_not_watched():
    assert OURS[1] not in hook_types(
        guarded(optim_wrapper=dict(constructor='Mine', a=dict(), b=dict()))
    )


def test_a_runner_of_ones_own_is_left_alone():
    cfg = guarded(runner_type='FlexibleRunner')
    assert cfg.to_dict() == config(runner_type='FlexibleRunner').to_dict()


def checkpoints(folder, *names, pointer=None):
    folder.mkdir()
    for name in names:
        (folder / name).write_bytes(b'')
    if pointer is not None:
        (folder / 'last_checkpoint').write_text(pointer)
    return str(folder)


def test_checkpoint_that_is_named(tmp_path):
    other = tmp_path / 'elsewhere.pth'
    other.write_bytes(b'')
    work_dir = checkpoints(tmp_path / 'w', 'epoch_2.pth', pointer=str(other))
    assert find_checkpoint(work_dir) == str(other)


def test_work_directory_that_was_moved(tmp_path):
    work_dir = checkpoints(
        tmp_path / 'w', 'epoch_1.pth', 'epoch_2.pth', pointer='old/epoch_1.pth'
    )
    assert find_checkpoint(work_dir) == f'{work_dir}/epoch_1.pth'


@pytest.mark.parametrize('pointer', [None, '', 'gone.pth'])
def test_latest_step_without_a_name(tmp_path, pointer):
    work_dir = checkpoints(
        tmp_path / 'w',
        'epoch_9.pth',
        'epoch_10.pth',
        'best_acc_epoch_11.pth',
        'student-00000000.pth',
        pointer=pointer,
    )
    assert find_checkpoint(work_dir) == f'{work_dir}/epoch_10.pth'


def test_nothing_to_resume(tmp_path):
    assert find_checkpoint(str(tmp_path)) is None
    assert find_checkpoint(str(tmp_path / 'none')) is None
