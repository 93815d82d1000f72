"""What every benchmark shares: peak memory, new processes, and its page."""

import ctypes
import gc
import importlib.metadata
import multiprocessing
import os
import platform
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from fractions import Fraction
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


def in_new_process(function: Callable, *arguments):
    """Call a function in a process that has imported us and computed nothing.

    Args:
        function (Callable): What a new process can import, or find in the
            tool that is run.
        *arguments: Likewise; the first one names what is measured.

    Returns:
        What the function returns.

    Raises:
        ConfigError: The process was killed.
    """
    # Processes are forked off one that has the imports done and never
    # computes, so that they are as good as new.
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload(['mmcmcd.apis', 'mmcmcd.models'])
    # Else each of them prints again what the imports printed.
    os.environ['PYTHONUNBUFFERED'] = '1'
    with ProcessPoolExecutor(1, context) as pool:
        try:
            return pool.submit(function, *arguments).result()
        except BrokenProcessPool as error:
            raise ConfigError(
                f'the process of {arguments[0]} was killed: does it fit into '
                'memory? Leave it out by --only.'
            ) from error


def judged(ratio: float, limit: Fraction | float | None) -> str:
    """Format a ratio for a page; bold where it is above its limit."""
    if limit is None:
        return f'{ratio:.3g}'
    if ratio <= limit:
        return f'{ratio:.3g} ≤ {limit}'
    return f'**{ratio:.3g} > {limit}**'


def check_args(args) -> None:
    """Complain of values before anything is measured.

    Args:
        args (Namespace): With ``repeats``, ``threads``, ``shrink`` and
            ``out``, the page to write or None.

    Raises:
        ConfigError: A number is not positive, or the page is no FILE.md in an
            existing folder.
    """
    for name in ('repeats', 'threads', 'shrink'):
        if getattr(args, name) < 1:
            raise ConfigError(
                f'--{name} must be positive, got {getattr(args, name)}.'
            )
    path = args.out
    if path is None:
        return
    if Path(path).suffix != '.md' or not Path(path).parent.is_dir():
        raise ConfigError(
            f"--out '{path}': expected a file NAME.md in an existing folder."
        )


def select_rows(everything: Sequence, only: str, shrink: int) -> list:
    """Find the rows that --only names, in the sizes of --shrink.

    Args:
        everything (Sequence): All rows, each with a ``label`` and
            ``shrunk(by)``.
        only (str): Regular expression that is searched in the labels.
        shrink (int): What sizes are divided by.

    Raises:
        ConfigError: ``only`` is no regular expression, or in no label.
    """
    try:
        pattern = re.compile(only)
    except re.error as error:
        raise ConfigError(
            f'--only {only!r} is no regular expression: {error}.'
        ) from error
    rows = [row for row in everything if pattern.search(row.label)]
    if not rows:
        labels = ''.join(f'\n  {row.label}' for row in everything)
        raise ConfigError(f'--only {only!r} is in none of:{labels}')
    return [row.shrunk(shrink) for row in rows] if shrink > 1 else rows


def tables(kinds: dict, rows: Sequence, results: dict) -> str:
    """Format rows as Markdown, a table for each kind.

    Args:
        kinds (dict[type, tuple]): Of every kind of row what formats it,
            ``cells(row, results)``, and the heads of its columns.
        rows (Sequence): What was measured.
        results (dict): What came out.
    """
    parts = []
    for kind, (cells, head) in kinds.items():
        lines = [
            f'| {" | ".join(cells(row, results))} |'
            for row in rows
            if isinstance(row, kind)
        ]
        if lines:
            rule = '| ' + ' | '.join(['---'] * len(head.split(' | '))) + ' |'
            parts.append('\n'.join([f'| {head} |', rule, *lines]))
    return '\n\n'.join(parts)


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
