"""What every tool shares: reading the configuration, ending cleanly."""

import argparse
import atexit
import os
import re
import sys

from ..checkpoints import TRUSTED_VARIABLE, trust
from ..errors import ConfigError, DatasetError, UserError

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130

# mmengine's registries re-raise ``type(e)('class `X` in mmcmcd/x.py: ...')``.
_REGISTRY_WRAP = re.compile(r'^class `[^`]+` in [^:]+: ')
# A DataLoader worker re-raises ``type(e)('Caught ... Original Traceback')``.
_WORKER_WRAP = re.compile(r'^Caught \w+ in DataLoader worker process \d+\.')


def run_tool(main):
    """Run a tool's ``main`` and exit with a status a script can test.

    A :class:`~mmcmcd.errors.UserError` ends in one line on stderr and status
    2, without a traceback; any other exception keeps its traceback, because
    it is a fault of the program.  In a distributed run all processes exit
    with 2.  What all of them meet (configuration, checkpoints) is printed by
    rank 0 alone; a fault of the data, which one process may be the only one
    to meet, by each that met it, behind ``[rank N]``.

    Args:
        main (callable): Takes no argument; returns an exit status or None.

    Raises:
        SystemExit: Always.
    """
    try:
        status = main()
    except UserError as error:
        rank = _rank()
        if rank == 0 or isinstance(error, DatasetError):
            who = f'[rank {rank}] ' if rank else ''
            print(f'{who}error: {user_message(error)}', file=sys.stderr)
        _leave(EXIT_USER_ERROR)
    except KeyboardInterrupt:
        print('interrupted', file=sys.stderr)
        _leave(EXIT_INTERRUPTED)
    except SystemExit as error:
        # The code of a training that was stopped.
        if not isinstance(error.code, int):
            raise
        _leave(error.code)
    _leave(status)


def user_message(error):
    """Dig out the message that was written for the user.

    mmengine's registries and DataLoader workers wrap an error into another
    of the same class, with a longer text around the first one's.

    Args:
        error (UserError): The error as caught.

    Returns:
        str: The innermost error's own message.
    """
    text = str(error)
    if _WORKER_WRAP.match(text):
        # The text ends with the worker's traceback, whose last part is
        # 'package.module.Class: message'.
        start = rf'^(?:\w+\.)*{type(error).__name__}: '
        text = re.split(start, text, flags=re.MULTILINE)[-1].strip()
    while _REGISTRY_WRAP.match(text):
        text = _REGISTRY_WRAP.sub('', text, count=1)
    return text


def add_trust_flag(parser):
    """Give a tool that reads checkpoints the flag ``--trust-checkpoint``.

    A file that is named so may run code when it is read, in this process and
    those that it starts; see :func:`mmcmcd.checkpoints.read_file`.

    Args:
        parser (ArgumentParser): Of the tool; changed in place.
    """
    parser.add_argument(
        '--trust-checkpoint',
        action=_Trust,
        dest=argparse.SUPPRESS,
        metavar='FILE',
        help='file or URL of a checkpoint that may run code when it is read; '
        f'can be repeated, and adds to the variable {TRUSTED_VARIABLE}',
    )


def add_cfg_options_flag(parser):
    """Give a tool the flag ``--cfg-options``, a dict of dotted keys.

    Args:
        parser (ArgumentParser): Of the tool; changed in place.
    """
    from mmengine.config import DictAction

    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        help='override settings of the config, as key=value; lists as '
        'key="[a,b]" or key=a,b, nested ones as key="[(a,b),(c,d)]", '
        'without white space',
    )


def at_least(least):
    """Make the type of an argument that has a lowest value.

    Args:
        least (int): That value.

    Returns:
        callable: Turns a word into an integer, or complains as argparse does.
    """

    def integer(text):
        value = int(text)
        if value < least:
            raise argparse.ArgumentTypeError(f'{text} is not {least} or more')
        return value

    return integer


class _Trust(argparse.Action):
    def __call__(self, parser, namespace, values, option_string=None):
        trust(values)


def load_config(path):
    """Read a configuration named on the command line.

    Args:
        path (str): A file, or ``'package::relative/path.py'`` for one that
            an installed package ships, e.g. ``'mmcmcd::cmcd/depth_nyu.py'``.

    Returns:
        mmengine.Config: The configuration.

    Raises:
        ConfigError: The file, or one that it inherits from, is missing.
    """
    from mmengine.config import Config
    from mmengine.config.utils import MODULE2PACKAGE

    package, shipped, name = path.partition('::')
    if shipped and (package not in MODULE2PACKAGE or '/' not in name):
        raise ConfigError(
            f"config '{path}' names no packaged config: expected "
            "'PACKAGE::FOLDER/FILE.py' with a package of OpenMMLab, e.g. "
            "'mmcmcd::cmcd/depth_nyu.py'."
        )
    if not shipped and not os.path.isfile(path):
        raise ConfigError(
            f"config file '{path}' does not exist. Give the path of a file, "
            'or a config of an installed package, e.g. '
            "'mmcmcd::cmcd/depth_nyu.py'."
        )
    try:
        if shipped:
            return Config.fromstring(f'_base_ = {path!r}\n', '.py')
        return Config.fromfile(path)
    except FileNotFoundError as error:
        raise ConfigError(
            f"config '{path}', or one that it inherits from, does not exist: "
            f'{error}'
        ) from error


def _rank():
    from mmengine.dist import get_rank

    return int(os.environ.get('RANK', get_rank()))


def _leave(status):
    """Exit, without Python's teardown where gloo's threads are alive.

    DDP keeps them alive when the process group has been destroyed. A thread
    that asks for the interpreter's lock too late, to release its last
    message, is unwound by CPython and aborts the process: torch 2.13, seen
    about once in 30 tests on two processes.
    """
    import torch.distributed as dist

    if not (dist.is_available() and dist.is_initialized()):
        sys.exit(status)
    on_gloo = dist.get_backend() == 'gloo'
    if not status:
        # Torch warns about groups that are left open; after an error others
        # may still wait in this one.
        dist.destroy_process_group()
    if on_gloo:
        atexit._run_exitfuncs()  # loggers and visualizers close their files
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status or 0)
    sys.exit(status)
