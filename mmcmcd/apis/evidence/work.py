"""Carry out the runs of a matrix, by any number of processes at once."""

import contextlib
import datetime
import fcntl
import gc
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import torch

from mmcmcd.atomic_files import write_text
from mmcmcd.engine import ProgressHook
from mmcmcd.errors import CheckpointError, UserError
from mmcmcd.version import __version__

from ..cli import user_message
from ..measuring import machine_name, package_version
from ..quiet_run import release, validated
from ..safeguards import find_checkpoint
from ..train import build_runner, prepare_train_config
from .format_once import format_once
from .job import OUTCOME, Job
from .tape import TapeHook, TapeStore

_RECORD, _FAILED = 'record.json', 'failed.json'
_STARTS, _LOCK = 'starts', 'lock'
# A run that ends its process so often without a word is not tried again.
_MAX_STARTS = 3
_PAUSE = 2.0
_PACKAGES = ('torch', 'onedl-mmengine', 'onedl-mmcv', 'onedl-mmpretrain')
# Not figures, though mmengine logs them as such.
_TIMES = ('data_time', 'time')
DONE, FAILED, OPEN = 'done', 'failed', 'open'


class Workplace:
    """What is known of the runs of a matrix, on disk.

    Args:
        work_dir (str | Path): Where everything goes.
    """

    def __init__(self, work_dir: str | Path) -> None:
        self.root = Path(work_dir)
        self._finished = {}

    def folder(self, job: Job) -> Path:
        """Where a run goes."""
        return self.root / job.folder

    def weights(self, job: Job) -> str:
        """The file of weights that a run leaves, or that is there already."""
        if job.kind == 'file':
            return job.config
        return str(self.folder(job) / OUTCOME)

    def record(self, job: Job) -> dict | None:
        """What a run has measured; None where it is not finished."""
        if job not in self._finished:
            try:
                text = (self.folder(job) / _RECORD).read_text()
            except FileNotFoundError:
                return None
            self._finished[job] = json.loads(text)
        return self._finished[job]

    def failure(self, job: Job) -> str | None:
        """Why a run, or one that it needs, failed; None if none has."""
        for need in job.needs:
            if need.kind != 'file' and (reason := self.failure(need)):
                return f'{need.title}: {reason}'
        try:
            text = (self.folder(job) / _FAILED).read_text()
        except FileNotFoundError:
            return None
        return json.loads(text)['reason']

    def state(self, job: Job) -> str:
        """DONE, FAILED, or OPEN."""
        if self.record(job) is not None:
            return DONE
        return FAILED if self.failure(job) else OPEN

    def is_ready(self, job: Job) -> bool:
        """Whether all that a run needs is there."""
        return all(
            need.kind == 'file' or self.record(need) is not None
            for need in job.needs
        )

    def forget_failures(self, jobs: Sequence[Job]) -> None:
        """Let those that failed be tried again, from the beginning."""
        for job in jobs:
            if not (self.folder(job) / _FAILED).exists():
                continue
            with self.claim(job, (FAILED,)) as ours:
                for path in self.folder(job).iterdir() if ours else ():
                    if path.name == _LOCK:
                        continue
                    if path.is_dir():
                        shutil.rmtree(path)
                    else:
                        path.unlink()

    @contextlib.contextmanager
    def claim(self, job: Job, states: Sequence[str] = (OPEN,)):
        """Keep other processes, on this or another machine, from a run.

        Args:
            job (Job): The run.
            states (Sequence[str]): In which it is wanted. Defaults to OPEN.

        Yields:
            bool: Whether it is ours now. The system takes it back when this
            process ends, however that happens.
        """
        folder = self.folder(job)
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / _LOCK).open('w') as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield self.state(job) in states


def work(
    place: Workplace, jobs: Sequence[Job], threads: int, tape_bytes: int
) -> None:
    """Carry out runs one after another, beside others that do the same.

    Args:
        place (Workplace): Where they go.
        jobs (Sequence[Job]): In the order that suits this process.
        threads (int): Of torch.
        tape_bytes (int): Memory for batches that several runs share.
    """
    torch.set_num_threads(threads)
    # mmengine collects garbage with every data set; what is imported is none.
    gc.freeze()
    store = TapeStore(tape_bytes)
    with _sigterm_exits():  # a run that trains handles it by itself
        _work_on(place, jobs, store)


def _work_on(place, jobs, store):
    while waiting := [job for job in jobs if place.state(job) == OPEN]:
        worked = False
        for job in waiting:
            if place.state(job) != OPEN or not place.is_ready(job):
                continue
            with place.claim(job) as ours:
                if ours:
                    _attempt(place, job, store)
                    worked = True
        if not worked:
            time.sleep(_PAUSE)


@contextlib.contextmanager
def _sigterm_exits():
    """Let SIGTERM end this process by way of all ``finally``."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _attempt(place, job, store):
    """Carry out one run; what goes wrong is written down, not raised."""
    folder = place.folder(job)
    starts = folder / _STARTS
    count = int(starts.read_text()) if starts.exists() else 0
    if count >= _MAX_STARTS:
        reason = (
            f'its process ended {count} times without a word: was it killed '
            'for want of memory?'
        )
        write_text(folder / _FAILED, json.dumps(dict(reason=reason)))
        return
    write_text(starts, str(count + 1))
    print(f'{job.title}: {folder}', flush=True)
    try:
        record = _carry_out(place, job, store)
    except (KeyboardInterrupt, SystemExit):
        write_text(starts, str(count))
        raise
    except Exception as error:
        known = isinstance(error, UserError)
        reason = user_message(error) if known else repr(error)
        text = json.dumps(
            dict(reason=reason, traceback=traceback.format_exc()), indent=1
        )
        write_text(folder / _FAILED, text)
        print(f'{job.title}: FAILED, {reason}', flush=True)
        if not known:
            _leave_a_broken_device()
        return
    write_text(folder / _RECORD, json.dumps(record, indent=1))


def _leave_a_broken_device():
    """After some errors of CUDA nothing works any more in this process."""
    if not torch.cuda.is_initialized():
        return
    try:
        torch.cuda.synchronize()
    except RuntimeError:
        sys.exit(1)


def _carry_out(place, job, store):
    folder = place.folder(job)
    cfg = job.make_config([place.weights(need) for need in job.needs])
    # Of the text that does not change with this directory.
    key = f'{job.seed} {cfg.train_dataloader} {cfg.train_cfg}'
    embedding = _embedding_key(job, cfg)
    prepare_train_config(
        cfg, f'{folder.name}.py', work_dir=str(folder), resume='auto'
    )
    cfg.experiment_name = job.fingerprint
    if job.kind == 'score':
        # Nobody needs its weights; one that is stopped saves them even so.
        cfg.default_hooks.checkpoint.update(
            interval=2 * cfg.train_cfg.val_interval, save_last=False
        )
    format_once(cfg)
    began = time.perf_counter()
    runner = build_runner(cfg)
    try:
        progress = ProgressHook(job.title)
        runner.register_hook(progress)
        # The data of a teacher are seldom those of another run.
        if store.limit and job.kind != 'teacher':
            runner.register_hook(TapeHook(store, key, embedding))
        runner.train()
        metrics = _figures(runner)
        if not metrics and runner.val_loop is not None:
            # It had been stopped between its last step and validation.
            runner.val_loop.run()
            metrics = _figures(runner)
    finally:
        release(runner)
    _keep_outcome(job, folder)
    return dict(
        title=job.title,
        kind=job.kind,
        fingerprint=job.fingerprint,
        seconds=time.perf_counter() - began,
        seconds_per_step=progress.seconds_per_step,
        metrics=metrics,
        date=datetime.date.today().isoformat(),
        **_surroundings(),
    )


def _embedding_key(job, cfg):
    """What the embeddings of a teacher depend on beside the batch."""
    if not job.needs or job.kind == 'score':
        return None
    parts = [
        cfg.model.get(name)
        for name in (
            'teacher',
            'teacher_projector',
            'data_preprocessor',
            'forward_chunk_size',
        )
    ]
    wrapper = cfg.optim_wrapper
    parts += [cfg.get('data_preprocessor'), wrapper.get('type')]
    return f'{job.needs[0].fingerprint} {parts} {wrapper.get("dtype")}'


def _figures(runner):
    return {
        name: value
        for name, value in validated(runner).items()
        if name not in _TIMES
    }


def _keep_outcome(job, folder):
    """Keep the weights that others need, and no other checkpoint."""
    if job.kind != 'score':
        exported = folder / 'last_student'
        if exported.exists():
            found = exported.read_text().strip()
        else:
            found = find_checkpoint(str(folder))
        if found is None:
            raise CheckpointError(
                f'{job.title} has left no checkpoint in {folder}.'
            )
        shutil.copyfile(found, folder / OUTCOME)
    for path in folder.glob('*.pth'):
        if path.name != OUTCOME:
            path.unlink()


@lru_cache
def _surroundings():
    """Where and with what it was measured."""
    return dict(
        machine=machine_name(),
        python=platform.python_version(),
        versions=[
            f'mmcmcd {__version__}{_commit()}',
            *map(package_version, _PACKAGES),
        ],
    )


def _commit():
    """State of the repository that this package is in, if it is in one."""
    here = Path(__file__).resolve().parent
    # Installed, it may lie in a repository of somebody else.
    in_ours = (here.parents[2] / '.git').exists()
    if not in_ours or not (git := shutil.which('git')):
        return ''
    try:
        found = subprocess.run(  # noqa: S603
            [git, 'describe', '--always', '--dirty', '--exclude=*'],
            cwd=here,
            capture_output=True,
            text=True,
            check=True,
        )
    except subprocess.CalledProcessError:
        return ''
    return f' ({found.stdout.strip()})'


def run_jobs(
    place: Workplace,
    jobs: Sequence[Job],
    command: Sequence[str],
    workers: int,
    gpus: Sequence[str] = (),
    threads: int = 1,
) -> None:
    """Start processes that carry out runs, and tell how far they are.

    Args:
        place (Workplace): Where the runs go.
        jobs (Sequence[Job]): All of them, for what is told.
        command (Sequence[str]): Of a process; its number is appended.
        workers (int): How many.
        gpus (Sequence[str]): Given to them in turn. Defaults to none.
        threads (int): Of each.
    """
    place.root.mkdir(parents=True, exist_ok=True)
    # Tasks of a slurm array begin at seeds of their own.
    first = workers * int(os.environ.get('SLURM_ARRAY_TASK_ID', 0))
    processes = {}

    def start(number):
        env = dict(os.environ, OMP_NUM_THREADS=str(threads))
        if gpus:
            env['CUDA_VISIBLE_DEVICES'] = gpus[number % len(gpus)]
        log = f'worker-{platform.node()}-{os.getpid()}-{number}.log'
        with (place.root / log).open('a') as file:
            processes[number] = subprocess.Popen(  # noqa: S603  (this tool)
                [*command, str(first + number)],
                env=env,
                stdout=file,
                stderr=subprocess.STDOUT,
            )

    began = time.monotonic()
    with _sigterm_exits(), _ended(processes):
        for number in range(workers):
            start(number)
        while True:
            states = Counter((j.kind, place.state(j)) for j in jobs)
            is_open = any(state == OPEN for _, state in states)
            for number, process in processes.items():
                # It was killed; what it did is not tried for ever.
                if process.poll() not in (None, 0, 2) and is_open:
                    start(number)
            alive = sum(p.poll() is None for p in processes.values())
            _tell(place, jobs, states, began, alive)
            if not alive:
                break
            time.sleep(_PAUSE)


@contextlib.contextmanager
def _ended(processes):
    """End processes, by number, whatever happens within this."""
    try:
        yield
    finally:
        for process in processes.values():
            process.terminate()
        for process in processes.values():
            process.wait()
        print()


def _tell(place, jobs, states, began, alive):
    """One line: what is done, what failed, how long it will take."""
    spent = time.monotonic() - began
    on_screen = sys.stdout.isatty()
    if not on_screen and alive and int(spent) % 60 >= _PAUSE:
        return
    costs = defaultdict(list)
    for job in jobs:
        record = place.record(job)
        if record:
            costs[job.kind].append(record['seconds'])
    parts, left = [], 0.0
    for kind in ('teacher', 'student', 'score'):
        done, failed, still = (
            states[kind, state] for state in (DONE, FAILED, OPEN)
        )
        if not done + failed + still:
            continue
        parts.append(f'{kind}s {done}/{done + failed + still}')
        if failed:
            parts[-1] += f' ({failed} failed)'
        if costs[kind]:
            left += still * sum(costs[kind]) / len(costs[kind])
        elif still:
            left = float('nan')
    eta = 'unknown'
    if left == left and alive:
        eta = str(datetime.timedelta(seconds=round(left / alive)))
    line = f'{", ".join(parts)}; {alive} at work, elapsed '
    line += f'{datetime.timedelta(seconds=round(spent))}, ETA {eta}'
    if on_screen:
        print(f'\r{line:<100}', end='', flush=True)
    else:
        print(line, flush=True)
