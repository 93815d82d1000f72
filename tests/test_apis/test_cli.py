import numpy as np
import pytest
import torch
from mmcv.transforms import BaseTransform

from mmcmcd.apis import load_config, run_tool, user_message
from mmcmcd.datasets.transforms import SharedGeometry
from mmcmcd.engine import TrainingStopped
from mmcmcd.errors import (
    CheckpointError,
    ConfigError,
    DatasetError,
    PairConfigError,
    UnreadableFileError,
)
from mmcmcd.registry import TRANSFORMS


def run(main, capsys):
    with pytest.raises(SystemExit) as stop:
        run_tool(main)
    return stop.value.code, capsys.readouterr().err


def raiser(error):
    def main():
        raise error

    return main


class Unreadable(torch.utils.data.Dataset):
    def __len__(self):
        return 2

    def __getitem__(self, index):
        raise UnreadableFileError('a.png: truncated.\nCopy it again: see doc')


@pytest.mark.parametrize(('returned', 'code'), [(None, None), (0, 0), (1, 1)])
def test_status_of_main_is_the_exit_status(returned, code, capsys):
    assert run(lambda: returned, capsys) == (code, '')


@pytest.mark.parametrize(
    'cls', [CheckpointError, ConfigError, DatasetError, UnreadableFileError]
)
def test_user_error_is_one_line_without_traceback(cls, capsys):
    assert run(raiser(cls('x is 3: set it to 4.')), capsys) == (
        2,
        'error: x is 3: set it to 4.\n',
    )


def test_program_errors_keep_their_traceback():
    with pytest.raises(ZeroDivisionError):
        run_tool(lambda: 1 / 0)


def test_interrupt(capsys):
    assert run(raiser(KeyboardInterrupt()), capsys) == (130, 'interrupted\n')


def test_stopped_training(capsys):
    """What was saved is in the log."""
    stop = TrainingStopped(15, 'Saved iter_3.pth.')
    assert str(stop) == 'Saved iter_3.pth.'
    assert run(raiser(stop), capsys) == (143, '')


def test_registry_wrapping_is_stripped(capsys):
    inner = CheckpointError('file x: class `A` in it is odd.')
    # What mmengine 0.10.7 does around every constructor that it calls.
    outer = CheckpointError(
        'class `EncoderDecoder` in mmseg/models/segmentors/e.py: class '
        f'`ResNet` in mmseg/models/backbones/resnet.py: {inner}'
    )
    assert run(raiser(outer), capsys) == (2, f'error: {inner}\n')


def worker_error():
    loader = torch.utils.data.DataLoader(Unreadable(), num_workers=1)
    try:
        next(iter(loader))
    except UnreadableFileError as error:
        # The traceback would keep the worker alive.
        return error.with_traceback(None)


def test_worker_wrapping_is_stripped(capsys):
    error = worker_error()
    assert 'Original Traceback' in str(error)
    message = 'a.png: truncated.\nCopy it again: see doc'
    assert user_message(error) == message
    assert run(raiser(error), capsys) == (2, f'error: {message}\n')


@pytest.mark.parametrize('cls', [CheckpointError, ConfigError])
def test_what_all_ranks_meet_is_reported_by_the_first(
    cls, capsys, monkeypatch
):
    monkeypatch.setenv('RANK', '1')
    assert run(raiser(cls('x')), capsys) == (2, '')
    monkeypatch.setenv('RANK', '0')
    assert run(raiser(cls('x')), capsys) == (2, 'error: x\n')


@pytest.mark.parametrize(
    'cls', [DatasetError, PairConfigError, UnreadableFileError]
)
def test_data_faults_are_reported_by_every_rank(cls, capsys, monkeypatch):
    monkeypatch.setenv('RANK', '0')
    assert run(raiser(cls('x')), capsys) == (2, 'error: x\n')
    monkeypatch.setenv('RANK', '3')
    assert run(raiser(cls('x')), capsys) == (2, '[rank 3] error: x\n')


def test_pair_that_rejects_a_config_is_reported_by_its_rank(
    capsys, monkeypatch
):
    """A draw that depends on content shows in some pairs only."""

    @TRANSFORMS.register_module(name='CoinIfGrey', force=True)
    class CoinIfGrey(BaseTransform):
        moves_pixels_only = True

        def transform(self, results):
            if results['img'].ndim == 2:
                np.random.random()
            return results

    pair = dict(
        pair_id='a',
        source=dict(img=np.zeros((4, 4, 3))),
        target=dict(img=np.zeros((4, 4))),
    )
    shared = SharedGeometry([dict(type='mmcmcd.CoinIfGrey')])
    monkeypatch.setenv('RANK', '1')
    status, error = run(lambda: shared(pair), capsys)
    assert status == 2
    assert error.startswith("[rank 1] error: SharedGeometry: 'target' of ")


def test_missing_config_file():
    with pytest.raises(ConfigError, match=r"'nowhere\.py' does not exist"):
        load_config('nowhere.py')


def test_missing_base_of_config_file(tmp_path):
    config = tmp_path / 'child.py'
    config.write_text("_base_ = './parent.py'")
    with pytest.raises(ConfigError, match=r'does not exist: .*parent\.py'):
        load_config(str(config))


@pytest.mark.parametrize('name', ['mmcmcd::x.py', 'numpy::a/x.py'])
def test_name_that_is_no_packaged_config(name):
    with pytest.raises(ConfigError, match=f"'{name}' names no packaged"):
        load_config(name)
