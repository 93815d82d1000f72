"""Which checkpoints may run code: those that were named, no others."""

import os
import re

from ..errors import CheckpointError

# Files and URLs, separated as in PATH.
TRUSTED_VARIABLE = 'MMCMCD_TRUSTED_CHECKPOINTS'

_URL = re.compile(r'[A-Za-z][\w+.-]*://')
# A URL has colons of its own: after the scheme, and before a port.
_ENTRY = re.compile(
    rf'{_URL.pattern}[^/{os.pathsep}]*(?::\d+(?=/))?[^{os.pathsep}]*'
    rf'|[^{os.pathsep}]+'
)


def trust(name):
    """Trust one checkpoint, in this process and those that it starts.

    Args:
        name (str): File or URL, as it will be given to the loader.

    Raises:
        CheckpointError: The name cannot stand in the environment variable.
    """
    if not _URL.match(name):
        name = os.path.realpath(os.path.expanduser(name))
    if _ENTRY.findall(name) != [name]:
        raise CheckpointError(
            f"checkpoint '{name}' cannot be named as trusted, because "
            f"'{os.pathsep}' separates the names: rename it."
        )
    before = os.environ.get(TRUSTED_VARIABLE)
    os.environ[TRUSTED_VARIABLE] = (
        f'{before}{os.pathsep}{name}' if before else name
    )


def is_trusted(*names):
    """Tell whether any of a checkpoint's names was named as trusted.

    Args:
        *names (str): Files, compared by their real paths, and URLs.

    Returns:
        bool: Whether one of them is in ``MMCMCD_TRUSTED_CHECKPOINTS``.
    """
    entries = _ENTRY.findall(os.environ.get(TRUSTED_VARIABLE, ''))
    return bool({_identity(e) for e in entries} & {*map(_identity, names)})


def _identity(name):
    if _URL.match(name):
        return name
    return os.path.realpath(os.path.expanduser(name))
