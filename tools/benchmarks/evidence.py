"""Compare many ways to a student, fairly: an experiment matrix.

  evidence.py tune MATRIX     choose a setting of every method on the split
                              for tuning; written to MATRIX with suffix .json
  evidence.py run MATRIX      run every cell with these settings
  evidence.py report MATRIX   write tables and pictures (--out)

A matrix is a file as those of configs/evidence. What is finished is kept, so
that all three may be stopped and called again, and called by several
processes or machines at once that share the work directory, such as the
tasks of a slurm array. A run that fails is written down and shown as failed;
the others go on.
"""

import argparse
import sys
from pathlib import Path

from mmcmcd.apis import add_trust_flag, run_tool
from mmcmcd.apis.evidence import (
    Workplace,
    read_matrix,
    read_settings,
    run_jobs,
    work,
    write_report,
    write_settings,
)
from mmcmcd.apis.evidence.matrix import unique_jobs
from mmcmcd.apis.evidence.results import Results
from mmcmcd.apis.evidence.settings import default_settings_file
from mmcmcd.apis.evidence.work import OPEN
from mmcmcd.apis.train import require_data_roots
from mmcmcd.errors import ConfigError

GIGABYTE = 2**30


def parse_args(argv=None):
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('action', choices=['tune', 'run', 'report'])
    parser.add_argument('matrix', help='a file as in configs/evidence')
    parser.add_argument(
        '--work-dir', help='default: work_dirs/evidence/NAME of the matrix'
    )
    parser.add_argument(
        '--settings',
        type=Path,
        help='chosen settings; default: MATRIX with suffix .json, and without '
        'that file the first setting of every method',
    )
    parser.add_argument(
        '--jobs', type=int, default=1, help='runs at a time (default 1)'
    )
    parser.add_argument(
        '--gpus',
        nargs='+',
        default=[],
        help='device numbers, given to the runs in turn',
    )
    parser.add_argument(
        '--threads', type=int, default=1, help='of each run (default 1)'
    )
    parser.add_argument('--seeds', type=int, nargs='+', help='these alone')
    parser.add_argument('--methods', nargs='+', help='these alone')
    parser.add_argument(
        '--sweeps',
        action='store_true',
        help='run the sweeps of the matrix, not its cells',
    )
    parser.add_argument(
        '--known',
        type=Path,
        metavar='FILE.jsonl',
        help='of an earlier report: cells that it has are not run',
    )
    parser.add_argument(
        '--retry-failed', action='store_true', help='try these again'
    )
    parser.add_argument(
        '--tape',
        type=float,
        default=1.0,
        metavar='GB',
        help='of each process, for batches that several runs share (default '
        "1; 0: every run reads for itself); teachers' embeddings of them stay "
        'on their device',
    )
    parser.add_argument(
        '--out', type=Path, help='of report: the page, NAME.md'
    )
    parser.add_argument('--worker', type=int, help=argparse.SUPPRESS)
    add_trust_flag(parser)
    args = parser.parse_args(argv)
    if args.jobs < 1 or args.threads < 1 or args.tape < 0:
        raise ConfigError(
            '--jobs and --threads must be 1 or more, --tape 0 or more.'
        )
    if args.action == 'report':
        out = args.out
        if out is None or out.suffix != '.md' or not out.parent.is_dir():
            raise ConfigError(
                f'report needs --out NAME.md in an existing folder, got '
                f"'{out}'."
            )
    return args


def wanted_cells(matrix, args, settings):
    """The cells that the command line asks for."""
    if args.sweeps:
        cells = [
            cell
            for sweep in matrix.sweeps.values()
            for cell in matrix.sweep_cells(sweep, settings['settings'])
        ]
    elif args.action == 'tune':
        cells = matrix.cells('tune', {})
    else:
        cells = matrix.cells('test', settings['settings'])
    for name in ('seed', 'method'):
        asked = getattr(args, f'{name}s')
        if asked is None:
            continue
        known = {getattr(cell, name) for cell in cells}
        if unknown := set(asked) - known:
            raise ConfigError(
                f'--{name}s {sorted(unknown)}: there are {sorted(known)}.'
            )
        cells = [cell for cell in cells if getattr(cell, name) in asked]
    done = Results(matrix.metric, ())
    if args.known is not None:
        if not args.known.is_file():
            raise ConfigError(f"--known '{args.known}' does not exist.")
        done.read(args.known)
    return [cell for cell in cells if not done.has(cell)]


def check_data(jobs):
    """Stop at once where the data of a config are missing."""
    for job in {job.config: job for job in jobs}.values():
        weights = ['WEIGHTS.pth' for _ in job.needs]
        require_data_roots(job.make_config(weights))


def commands(matrix, args):
    """The lines that lead to a page."""
    tool = f'python tools/benchmarks/evidence.py {{}} {args.matrix}'
    settings = f' --settings {args.settings}' if args.settings else ''
    lines = [tool.format('tune'), tool.format('run') + settings]
    if matrix.sweeps:
        lines.append(f'{lines[1]} --sweeps')
    lines.append(f'{tool.format("report")}{settings} --out {args.out}')
    return '\n'.join(lines)


def in_turn(jobs, worker):
    """Jobs in the order of a worker, so that each begins at its own seed."""
    seeds = list(dict.fromkeys(job.seed for job in jobs))
    first = worker % len(seeds)
    order = [*seeds[first:], *seeds[:first]]
    return sorted(jobs, key=lambda job: order.index(job.seed))


def main():
    """Tune, run or report."""
    args = parse_args()
    matrix = read_matrix(args.matrix)
    name = matrix.path.stem
    place = Workplace(args.work_dir or f'work_dirs/evidence/{name}')
    chosen = args.settings or default_settings_file(matrix)
    if args.action == 'tune' and not args.sweeps:
        settings = dict(settings={})
    else:
        settings = read_settings(matrix, args.settings)
    if args.action == 'report':
        write_report(matrix, place, settings, args.out, commands(matrix, args))
        print(args.out)
        return
    jobs = unique_jobs(wanted_cells(matrix, args, settings))
    if not jobs:
        print('nothing to run: all cells are known')
        return
    if args.worker is not None:
        work(
            place,
            in_turn(jobs, args.worker),
            args.threads,
            int(args.tape * GIGABYTE),
        )
        return
    check_data(jobs)
    if args.retry_failed:
        place.forget_failures(jobs)
    run_jobs(
        place,
        jobs,
        [sys.executable, *sys.argv, '--worker'],
        args.jobs,
        args.gpus,
        args.threads,
    )
    failed = [job for job in jobs if place.failure(job)]
    unfinished = [job for job in jobs if place.state(job) == OPEN]
    for job in failed:
        print(f'FAILED: {job.title}: {place.failure(job)}', file=sys.stderr)
    if unfinished:
        raise ConfigError(
            f'{len(unfinished)} runs are not finished: see worker-*.log in '
            f'{place.root}, and call this again.'
        )
    part = args.sweeps or args.seeds or args.methods or args.known
    if args.action == 'tune' and not part:
        content = write_settings(matrix, place, chosen)
        for method, index in content['settings'].items():
            print(f'{method}: setting {index}')
        print(f'Chosen settings: {chosen}; of ours: {content["contender"]}')
    if failed:
        sys.exit(1)


if __name__ == '__main__':
    run_tool(main)
