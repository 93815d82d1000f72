"""What every benchmark shares: peak memory, and what it ran on."""

import ctypes
import gc
import importlib.metadata
import os
import platform
from pathlib import Path

import torch

from ..errors import ConfigError

_RESET = Path('/proc/self/clear_refs')
_STATUS = Path('/proc/self/status')
_CPU = Path('/proc/cpuinfo')


def require_peak_memory() -> None:
    """Complain where the peak memory of a process cannot be measured.

    Raises:
        ConfigError: Not on Linux, or its kernel does not reset peaks.
    """
    if not os.access(_RESET, os.W_OK):
        raise ConfigError(
            f'the peak memory is measured by {_RESET}, which this machine '
            'does not have: run it on Linux.'
        )


def reset_peak_memory() -> int:
    """Begin a new peak at what this process holds now.

    Returns:
        int: That much resident memory, in bytes.

    Raises:
        ConfigError: See :func:`require_peak_memory`.
    """
    require_peak_memory()
    # What is free but still held would hide as much of the peak.
    gc.collect()
    ctypes.CDLL('libc.so.6').malloc_trim(0)
    _RESET.write_text('5')  # proc(5): since Linux 4.0
    return peak_memory()


def peak_memory() -> int:
    """Largest resident memory, in bytes, since :func:`reset_peak_memory`."""
    return 1024 * int(_field(_STATUS, 'VmHWM').removesuffix(' kB'))


def machine_name() -> str:
    """Number of cores, processor and, where there is one, GPU."""
    processor = _field(_CPU, 'model name') or platform.machine()
    name = f'{os.cpu_count()} cores of {processor}'
    if torch.cuda.is_available():
        name += f', {torch.cuda.get_device_name()}'
    return name


def package_version(package: str) -> str:
    """Name and version of a package, or that it is not installed."""
    try:
        return f'{package} {importlib.metadata.version(package)}'
    except importlib.metadata.PackageNotFoundError:
        return f'{package} not installed'


def _field(path: Path, name: str) -> str:
    """Find the first ``name: value`` in a file of /proc; '' without one."""
    if path.exists():
        for line in path.read_text().splitlines():
            key, _, value = line.partition(':')
            if key.strip() == name:
                return value.strip()
    return ''
