"""Take frames and sound out of the clips of VGGSound; run again to go on.

Exit status: 0 when all is well, 1 when --strict and clips are unreadable (with
--check: missing), 2 when nothing can be converted.
"""

import argparse
import os

from mmcmcd.apis import run_tool
from mmcmcd.datasets.converters import (
    ClipSettings,
    check_layout,
    convert_vggsound,
)
from mmcmcd.errors import ConfigError


def parse_args():
    """Read the command line."""
    default = ClipSettings()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        'clips_dir', nargs='?', help='folder of <youtube id>_<start>.mp4'
    )
    parser.add_argument('--csv', help='the official list, vggsound.csv')
    parser.add_argument(
        '--out', default='data/vggsound', help='folder of the converted set'
    )
    parser.add_argument(
        '--frames',
        type=int,
        default=default.num_frames,
        help='frames of every clip, evenly spaced (default: 1, the middle)',
    )
    parser.add_argument(
        '--size',
        type=int,
        default=default.size,
        help=f'shorter side of the frames (default: {default.size})',
    )
    parser.add_argument(
        '--sampling-rate',
        type=int,
        default=default.sampling_rate,
        help=f'of the sound in Hz (default: {default.sampling_rate})',
    )
    parser.add_argument(
        '--audio-format',
        choices=('wav', 'flac'),
        default=default.audio_format,
        help='flac is lossless and smaller',
    )
    parser.add_argument(
        '--min-duration',
        type=float,
        default=default.min_duration,
        help='shortest clip to keep, in seconds '
        f'(default: {default.min_duration:g})',
    )
    parser.add_argument(
        '--workers',
        type=int,
        default=os.cpu_count(),
        help='processes (default: one a processor)',
    )
    parser.add_argument(
        '--strict',
        action='store_true',
        help='exit with 1 if a clip is unreadable or, with --check, missing',
    )
    parser.add_argument(
        '--check',
        action='store_true',
        help='convert nothing; compare --out with the list in it',
    )
    return parser.parse_args()


def main():
    """Convert, or check what is converted."""
    args = parse_args()
    if args.check:
        text, missing = check_layout(args.out)
        print(text)
        return int(args.strict and missing > 0)
    if args.clips_dir is None or args.csv is None:
        raise ConfigError(
            'Give the folder of clips and --csv vggsound.csv, or --check.'
        )
    settings = ClipSettings(
        args.frames,
        args.size,
        args.sampling_rate,
        args.audio_format,
        args.min_duration,
    )
    summary = convert_vggsound(
        args.clips_dir, args.csv, args.out, settings, args.workers
    )
    print(f'{args.out}: {summary.format()}')
    return int(args.strict and bool(summary.unreadable))


if __name__ == '__main__':
    run_tool(main)
