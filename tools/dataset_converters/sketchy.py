"""List the photo-sketch pairs of The Sketchy Database and check them.

Exit status: 0 when all is well, 1 when --check finds faults, 2 when the data
cannot be listed.
"""

import argparse
from pathlib import Path

from mmcmcd.apis import run_tool
from mmcmcd.datasets.class_labels import read_classes
from mmcmcd.datasets.converters import (
    check_files,
    list_sketchy_pairs,
    write_table,
)
from mmcmcd.datasets.converters.sketchy import RENDERING


def parse_args():
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('data_root', help='folder of photo/ and sketch/')
    parser.add_argument(
        '--info',
        help='folder of testset.txt and invalid-*.txt (default: info/ below '
        'the root, if it is there)',
    )
    parser.add_argument(
        '--out', help='the table (default: pairs.csv below the root)'
    )
    parser.add_argument(
        '--rendering', default=RENDERING, help=f'default: {RENDERING}'
    )
    parser.add_argument(
        '--classes', help='file with the names of the classes, one a line'
    )
    parser.add_argument(
        '--keep-invalid',
        action='store_true',
        help='keep sketches listed as erroneous or ambiguous',
    )
    parser.add_argument(
        '--force',
        action='store_true',
        help='replace a table with other content',
    )
    parser.add_argument(
        '--check', action='store_true', help='read every photo and sketch'
    )
    parser.add_argument(
        '--num-workers', type=int, default=2, help='processes that read'
    )
    return parser.parse_args()


def main():
    """List, write and check."""
    args = parse_args()
    classes = read_classes(args.classes) if args.classes else None
    summary = list_sketchy_pairs(
        args.data_root, args.info, args.rendering, classes, args.keep_invalid
    )
    print(summary.format())
    out = Path(args.out or Path(args.data_root) / 'pairs.csv')
    written = write_table(summary.rows, out, args.force)
    print(f'{out}: {"written" if written else "checked, unchanged"}')
    if not args.check:
        return 0
    reports = check_files(args.data_root, out, args.num_workers)
    print('\n'.join(report.format() for report in reports))
    return int(not all(report.clean for report in reports))


if __name__ == '__main__':
    run_tool(main)
