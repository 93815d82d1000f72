"""Write the student of a distillation checkpoint as a stock backbone."""

import argparse

from mmcmcd.apis import add_trust_flag, export_student, run_tool


def parse_args():
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description='Write the student of a distillation checkpoint, with '
        "'backbone.*' keys for stock mmpretrain and mmseg configs"
    )
    parser.add_argument('in_file', help='checkpoint of a distillation run')
    parser.add_argument(
        'out_file', help='NAME.pth; NAME-<sha256[:8]>.pth is written'
    )
    parser.add_argument(
        '--student', help='which one of several students, by its side'
    )
    add_trust_flag(parser)
    return parser.parse_args()


def main():
    """Export, and print the name of the file."""
    args = parse_args()
    print(export_student(args.in_file, args.out_file, student=args.student))


if __name__ == '__main__':
    run_tool(main)
