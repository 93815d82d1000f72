"""A file is there complete or not at all, whatever ends its writing."""

import errno
import multiprocessing
import os
import re
import resource
import signal
import subprocess
import sys
import time

import pytest

from mmcmcd import atomic_files
from mmcmcd.atomic_files import (
    describe_failure,
    remove_parts,
    write_bytes,
    write_text,
)

FORK = multiprocessing.get_context('fork')
# More than fits into one page, so that a write can end within it.
LARGE = 1 << 20


def dead_process():
    process = subprocess.Popen([sys.executable, '-c', ''])
    process.wait()
    return process.pid


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize('sync', [False, True])
def test_a_file_is_written(tmp_path, sync):
    path = tmp_path / 'new' / 'folder' / 'x.bin'
    write_bytes(path, b'old', sync)
    write_bytes(str(path), b'new', sync)
    assert path.read_bytes() == b'new'
    write_text(path, 'grün\n', sync)
    assert path.read_bytes() == 'grün\n'.encode()
    assert names(path.parent) == ['x.bin']


def test_content_is_on_the_disk_before_it_is_named(tmp_path, monkeypatch):
    calls = []
    for name in ('fsync', 'replace'):
        call = getattr(os, name)

        def note(*args, name=name, call=call):
            calls.append(name)
            return call(*args)

        monkeypatch.setattr(os, name, note)
    write_bytes(tmp_path / 'x', b'content')
    assert calls == ['replace']
    calls.clear()
    write_bytes(tmp_path / 'x', b'content', sync=True)
    # The second one brings the name there.
    assert calls == ['fsync', 'replace', 'fsync']


def write_with_limit(path, size):
    """The kernel refuses to write more than half of it, as on a full disk."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, size // 2))
    try:
        write_bytes(path, bytes(size))
    except OSError as error:
        os._exit(error.errno)
    os._exit(0)


def test_what_does_not_fit_leaves_the_old_file(tmp_path):
    path = tmp_path / 'x.bin'
    write_bytes(path, b'old')
    process = FORK.Process(target=write_with_limit, args=(path, LARGE))
    process.start()
    process.join(30)
    assert process.exitcode == errno.EFBIG
    assert path.read_bytes() == b'old'
    assert names(tmp_path) == ['x.bin']


@pytest.mark.parametrize('call', ['fsync', 'replace'])
@pytest.mark.parametrize(
    'error', [OSError(errno.ENOSPC, 'full'), KeyboardInterrupt()]
)
def test_failed_write_leaves_the_old_file(tmp_path, monkeypatch, call, error):
    def fail(*args):
        raise error

    path = tmp_path / 'x.bin'
    write_bytes(path, b'old')
    monkeypatch.setattr(os, call, fail)
    with pytest.raises(type(error)):
        write_bytes(path, b'new content', sync=True)
    assert path.read_bytes() == b'old'
    assert names(tmp_path) == ['x.bin']


def test_file_system_that_cannot_sync_folders(tmp_path, monkeypatch):
    def refuse(*args):
        raise OSError(errno.EINVAL, 'Invalid argument')

    monkeypatch.setattr(os, 'open', refuse)
    write_bytes(tmp_path / 'x', b'content', sync=True)
    assert (tmp_path / 'x').read_bytes() == b'content'


def keep_writing(path):
    for byte in range(256):
        write_bytes(path, bytes([byte]) * LARGE)


def test_killed_process_leaves_a_complete_file(tmp_path):
    path = tmp_path / 'x.bin'
    unfinished = []
    for i in range(10):
        process = FORK.Process(target=keep_writing, args=(path,))
        process.start()
        while process.is_alive() and not path.exists():
            time.sleep(0.001)
        time.sleep(0.003 * i)
        while i % 2 and process.is_alive() and names(tmp_path) == ['x.bin']:
            pass  # every other one is hit while it writes
        process.kill()
        process.join(30)
        content = path.read_bytes()
        assert content == content[:1] * LARGE
        unfinished += remove_parts(tmp_path, re.compile(r'\.bin$'))
        assert names(tmp_path) == ['x.bin']
    assert set(unfinished) == {'x.bin'}  # some were hit while they wrote


def test_parts_of_dead_processes_are_removed(tmp_path):
    dead, alive = dead_process(), os.getppid()
    for name in (
        f'.a.pth.{dead}.part',
        f'.b.pth.{os.getpid()}.part',  # of a former process of this number
        f'.c.pth.{alive}.part',
        f'.d.txt.{dead}.part',
        f'a.pth.{dead}.part',
        f'.pth.{dead}.part',
        '.e.pth.part',
        'f.pth',
    ):
        (tmp_path / name).touch()
    kept = set(names(tmp_path)) - {
        f'.a.pth.{dead}.part',
        f'.b.pth.{os.getpid()}.part',
    }
    removed = remove_parts(tmp_path, re.compile(r'\.pth$'))
    assert sorted(removed) == ['a.pth', 'b.pth']
    assert set(names(tmp_path)) == kept
    assert remove_parts(str(tmp_path), re.compile(r'\.pth$')) == []
    assert remove_parts(tmp_path / 'none', re.compile('')) == []


def test_process_of_another_user_may_be_alive(tmp_path, monkeypatch):
    def refuse(pid, signum):
        raise PermissionError

    (tmp_path / '.a.1.part').touch()
    monkeypatch.setattr(os, 'kill', refuse)
    assert remove_parts(tmp_path, re.compile('')) == []
    assert names(tmp_path) == ['.a.1.part']


def test_part_that_another_process_removed_first(tmp_path, monkeypatch):
    (tmp_path / f'.a.{dead_process()}.part').touch()
    unlink = os.unlink

    def second(path):
        unlink(path)
        unlink(path)

    monkeypatch.setattr(os, 'unlink', second)
    assert remove_parts(tmp_path, re.compile('')) == []


@pytest.mark.parametrize('code', [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_failure_for_want_of_space_tells_it(tmp_path, monkeypatch, code):
    class Usage:
        free = 3_210_000

    monkeypatch.setattr(
        atomic_files.shutil, 'disk_usage', lambda folder: Usage
    )
    error = OSError(code, 'as the system says')
    reason = os.strerror(code)
    assert describe_failure(error, tmp_path, 90_123_456) == (
        f'{reason}: needs 90.1 MB, 3.2 MB are free'
    )
    assert describe_failure(error, tmp_path) == f'{reason}: 3.2 MB are free'


def test_other_failures_do_not_speak_of_space(tmp_path):
    error = PermissionError(errno.EACCES, 'Permission denied')
    assert describe_failure(error, tmp_path, 5) == 'Permission denied'
    assert describe_failure(OSError('odd'), tmp_path, 5) == 'odd'


def test_space_of_a_folder_that_is_gone(tmp_path):
    error = OSError(errno.ENOSPC, '')
    reason = describe_failure(error, tmp_path / 'none', 5_000_000)
    assert reason == f'{os.strerror(errno.ENOSPC)}: needs 5.0 MB'
