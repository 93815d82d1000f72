"""Files that are there complete, or not at all."""

import contextlib
import errno
import os
import re
import shutil
from pathlib import Path

_PART = '.{name}.{pid}.part'
_PARTS = re.compile(r'^\.(?P<name>.+)\.(?P<pid>\d+)\.part$')


def write_bytes(path, content, sync=False):
    """Write a file at once: it is there complete, or not at all.

    The content goes to a file beside it first, which then takes its name.

    Args:
        path (str | Path): Where to; folders are made.
        content (bytes): What.
        sync (bool): Whether to wait until it is on the disk, so that it
            survives a loss of power, too. Defaults to False.

    Raises:
        OSError: It could not be written; what was there before is as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(_PART.format(name=path.name, pid=os.getpid()))
    try:
        with open(part, 'wb') as file:
            file.write(content)
            if sync:
                file.flush()
                os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(part)
        raise
    if sync:
        _sync_folder(path.parent)


def write_text(path, text, sync=False):
    """Write a text file at once, see :func:`write_bytes`."""
    write_bytes(path, text.encode(), sync)


def remove_parts(folder, pattern):
    """Remove what processes that were killed while writing left behind.

    Args:
        folder (str | Path): Where to look.
        pattern (re.Pattern): Names of files whose parts are meant.

    Returns:
        list[str]: Names of the files that were not finished.
    """
    unfinished = []
    if not os.path.isdir(folder):
        return unfinished
    for entry in os.scandir(folder):
        match = _PARTS.match(entry.name)
        if not match or not pattern.search(match['name']):
            continue
        if _is_running(int(match['pid'])):
            continue
        # Another run, which resumes the same, may have been faster.
        with contextlib.suppress(FileNotFoundError):
            os.unlink(entry.path)
            unfinished.append(match['name'])
    return unfinished


def describe_failure(error, folder, size=None):
    """Say why a file could not be written, with the space that is left.

    Args:
        error (OSError): What the system said.
        folder (str | Path): Of the file.
        size (int, optional): Bytes that were to be written.

    Returns:
        str: E.g. 'No space left on device: needs 90.1 MB, 3.2 MB are free'.
    """
    reason = os.strerror(error.errno) if error.errno else str(error)
    if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return reason
    space = [] if size is None else [f'needs {size / 1e6:.1f} MB']
    with contextlib.suppress(OSError):  # the folder may be gone
        free = shutil.disk_usage(folder).free
        space.append(f'{free / 1e6:.1f} MB are free')
    return ': '.join(filter(None, [reason, ', '.join(space)]))


def _is_running(pid):
    """Whether the process that writes a part may still be at it."""
    if pid == os.getpid():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _sync_folder(folder):
    """Bring a new name to the disk; not every system can."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
