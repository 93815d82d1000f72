"""Read a checkpoint as data, or refuse it."""

import logging
import os
import re
import threading
import warnings
from pickle import UnpicklingError

import torch
from mmengine.logging import print_log
from mmengine.utils import digit_version

from ..errors import CheckpointError
from .allowed import ALLOWED
from .file_kinds import describe_file, may_hold_pickle
from .stand_ins import replace_stand_ins
from .stored_code import remove_stored_code
from .trust import TRUSTED_VARIABLE, is_trusted

# Before it, weights_only could be led to run code (CVE-2025-32434).
_OLDEST_TORCH = '2.6.0'
# As torch words it, since 2.6.
_WANTED = re.compile(r'GLOBAL (\S+) (?:was not an allowed|whose module)')
_REASON = re.compile(r'WeightsUnpickler error:(.*?)(?:Check the|$)', re.S)
_OTHER_CODE = {
    'TorchScript archives': 'the code of a TorchScript archive',
    'legacy .tar format': 'the pickles of a tar archive of before 2017',
    'Unsupported operand': 'a pickle of another protocol than torch writes',
}
# torch keeps its list of allowed names for the whole process.
_LOCK = threading.RLock()


class UnsafeCheckpointError(CheckpointError):
    """A checkpoint that cannot be read without running code of it."""


def read_file(path_or_buffer, map_location=None, names=()):
    """Read a file of ``torch.save`` without running anything that it holds.

    Tensors, plain containers and what :mod:`.allowed` lists are read.  A file
    that needs more is read only if it was named as trusted, by
    ``--trust-checkpoint`` or in ``MMCMCD_TRUSTED_CHECKPOINTS``; then a
    warning says so.  Stored configs, which mmengine would execute, are
    removed as :func:`.remove_stored_code` says, in trusted files too.

    Args:
        path_or_buffer (str | PathLike | file): A local file, or an open one.
        map_location (optional): As of ``torch.load``.
        names (Sequence[str]): What else the checkpoint is called, e.g. its
            URL; the first is used in messages.

    Returns:
        object: The content.

    Raises:
        FileNotFoundError: There is no such file.
        UnsafeCheckpointError: It cannot be read as data alone.
        CheckpointError: It is damaged or no checkpoint.
    """
    path = None
    if isinstance(path_or_buffer, (str, os.PathLike)):
        path = os.path.expanduser(os.fspath(path_or_buffer))
        if not os.path.isfile(path):
            raise FileNotFoundError(f'{path} can not be found.')
        names = (*names, path)
    name = names[0] if names else 'a stream'
    source = path_or_buffer if path is None else path
    try:
        content = _read_data(source, map_location)
    except Exception as error:  # a broken file can raise about anything
        if not is_trusted(*names):
            raise _refusal(error, name, path) from error
        content = _read_trusted(source, map_location, name, path, error)
    return remove_stored_code(content, name)


def _read_data(source, map_location):
    if digit_version(torch.__version__) < digit_version(_OLDEST_TORCH):
        raise CheckpointError(
            f'torch {torch.__version__} cannot read checkpoints safely: '
            f'install torch {_OLDEST_TORCH} or newer.'
        )
    with _LOCK:
        known = torch.serialization.get_safe_globals()
        # What others allowed must be so after us, too.
        own = [item for item in ALLOWED if item not in known]
        with (
            torch.serialization.safe_globals(own),
            warnings.catch_warnings(),
        ):
            # What is not read is said by the error.
            warnings.simplefilter('ignore', UserWarning)
            content = torch.load(
                source, map_location=map_location, weights_only=True
            )
    return replace_stand_ins(content)


def _read_trusted(source, map_location, name, path, error):
    """Read with all the code that the file names, because the user said so."""
    if path is None:
        source.seek(0)
    print_log(
        f"checkpoint '{name}' holds more than data "
        f'({_needed_code(error, path) or _reason(error)}). It was named as '
        'trusted, so that it is read nevertheless, and what it names is run.',
        logger='current',
        level=logging.WARNING,
    )
    try:
        return torch.load(
            source, map_location=map_location, weights_only=False
        )
    except Exception as failure:  # a broken file can raise about anything
        raise _unreadable(failure, name, path) from failure


def _refusal(error, name, path):
    """The error that tells the user what to do."""
    if isinstance(error, CheckpointError):
        return error
    code = _needed_code(error, path)
    if code is None:
        return _unreadable(error, name, path)
    return UnsafeCheckpointError(
        f"checkpoint '{name}' is refused: reading it would run code "
        f'({code}), so it is a program, not only weights. Ask its author for '
        'the weights alone (torch.save(model.state_dict(), FILE)), or convert '
        'it in a sandbox. If you trust it as you would trust a script, say '
        f'so: --trust-checkpoint {name}, or {TRUSTED_VARIABLE}={name} in the '
        'environment.'
    )


def _unreadable(error, name, path):
    kind = 'truncated, or not written by torch.save'
    if path is not None:
        kind = describe_file(path)
    return CheckpointError(
        f"checkpoint '{name}' cannot be read ({_reason(error)}): it is {kind}."
    )


def _needed_code(error, path):
    """What a file would have run; None of one that is broken instead."""
    text = str(error)
    wanted = _WANTED.search(text)
    if wanted:
        return _printable(wanted[1])
    # Bytes of no pickle look like one of another protocol.
    if path is None or may_hold_pickle(path):
        for words, code in _OTHER_CODE.items():
            if words in text:
                return code
    return None


def _reason(error):
    """An error's own words, in one line."""
    text = str(error)
    if isinstance(error, UnpicklingError):
        found = _REASON.search(text)
        text = found[1] if found else text
    return f'{type(error).__name__}: {_printable(text)}'.removesuffix(': ')


def _printable(text):
    """One short line; the file's author had a say in it."""
    line = ' '.join(text.split())[:200]
    return ''.join(c if c.isprintable() else '?' for c in line)
