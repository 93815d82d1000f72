import pytest
import torch

from mmcmcd.apis import load_config, run_tool, user_message
from mmcmcd.errors import (
    CheckpointError,
    ConfigError,
    DatasetError,
    UnreadableFileError,
)


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


def test_other_ranks_fail_silently(capsys, monkeypatch):
    monkeypatch.setenv('RANK', '1')
    assert run(raiser(ConfigError('x')), capsys) == (2, '')


def test_other_ranks_report_their_own_files(capsys, monkeypatch):
    monkeypatch.setenv('RANK', '1')
    assert run(raiser(UnreadableFileError('f')), capsys) == (2, 'error: f\n')


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
