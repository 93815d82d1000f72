"""Mean and 95 % interval of metrics over runs, as a Markdown table.

Each run is a file that `tools/test.py --out FILE --out-item metrics` wrote.
"""

import argparse

import mmengine

from mmcmcd.analysis import plus_minus
from mmcmcd.apis import run_tool
from mmcmcd.errors import ConfigError


def parse_args():
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        'runs',
        nargs='+',
        metavar='NAME=FILE,FILE,...',
        help='the runs of one row, usually one file a seed',
    )
    parser.add_argument('--metrics', nargs='+', required=True)
    return parser.parse_args()


def read_runs(entry):
    """Return the name and the metrics of each run of a row."""
    name, _, files = entry.partition('=')
    try:
        return name, [mmengine.load(file) for file in files.split(',')]
    # A file without a known suffix, or without JSON.
    except (FileNotFoundError, TypeError, ValueError) as error:
        raise ConfigError(
            f'{entry!r}: expected NAME=FILE,FILE,... with files that '
            f'tools/test.py --out-item metrics wrote ({error}).'
        ) from error


def format_cell(runs, metric):
    """Format mean and interval of one metric."""
    missing = [sorted(run) for run in runs if metric not in run]
    if missing:
        raise ConfigError(f'{metric!r} is not among the metrics {missing[0]}.')
    return plus_minus([run[metric] for run in runs], digits=1)


def main():
    """Print the table."""
    args = parse_args()
    print('| run | ' + ' | '.join(args.metrics) + ' | runs |')
    print('| --- |' + ' --- |' * (len(args.metrics) + 1))
    for entry in args.runs:
        name, runs = read_runs(entry)
        cells = [format_cell(runs, metric) for metric in args.metrics]
        print(f'| {name} | {" | ".join(cells)} | {len(runs)} |')


if __name__ == '__main__':
    run_tool(main)
