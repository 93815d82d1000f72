"""Throughput of log-mel spectrograms on batches, against librosa.

Routes, on the same waveforms:

* librosa: clip by clip, as in a data loader;
* librosa, batch: one call for the whole batch;
* ours: mmcmcd.signal.log_mel on the batch, what AudioDataPreprocessor does;
* ours, float32: the same with precise=False.

"ours" must equal librosa within 1e-4 dB on every clip, or the tool stops. The
routes take turns, so that other load on the machine falls on all of them;
ratios are medians over the turns. CPU seconds leave out the waiting for other
processes, but count threads that wait for each other.
"""

import argparse
import sys
import time

import librosa
import numpy as np
import torch
from mmengine.utils import ProgressBar
from threadpoolctl import threadpool_limits

from mmcmcd.apis import run_tool
from mmcmcd.errors import ConfigError
from mmcmcd.signal import log_mel

LIMIT = 1e-4  # dB


def parse_args():
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        '--seconds', type=float, nargs='+', default=[1.0, 5.0, 10.0]
    )
    parser.add_argument('--batch-size', type=int, default=32)
    parser.add_argument('--sampling-rate', type=int, default=16000)
    parser.add_argument('--n-fft', type=int, default=1024)
    parser.add_argument('--hop-length', type=int, default=320)
    parser.add_argument('--n-mels', type=int, default=64)
    parser.add_argument('--repeats', type=int, default=15)
    parser.add_argument('--threads', type=int, default=2)
    return parser.parse_args()


def make_waveforms(number: int, length: int) -> np.ndarray:
    """Noise and rising tones in turn, (number, length)."""
    rng = np.random.default_rng(0)
    waves = rng.normal(0, 0.1, (number, length)).astype(np.float32)
    time_ = np.arange(length) / length
    for i in range(1, number, 2):
        waves[i] = 0.5 * np.sin(2 * np.pi * (50 + length / 5 * time_) * time_)
    return waves


def by_librosa(waves: np.ndarray, settings: dict) -> np.ndarray:
    """Clip by clip."""
    return np.stack([by_librosa_batch(wave, settings) for wave in waves])


def by_librosa_batch(waves: np.ndarray, settings: dict) -> np.ndarray:
    """All in one call; ``top_db`` would cut the batch as a whole."""
    power = librosa.feature.melspectrogram(y=waves, **settings)
    return librosa.power_to_db(power, top_db=None)


def by_ours(
    waves: np.ndarray, settings: dict, precise: bool = True
) -> np.ndarray:
    """The whole batch."""
    settings = dict(settings)
    rate = settings.pop('sr')
    levels = log_mel(
        torch.from_numpy(waves), rate, top_db=None, precise=precise, **settings
    )
    return levels.numpy()


def by_ours_float32(waves: np.ndarray, settings: dict) -> np.ndarray:
    """The whole batch, transformed in float32."""
    return by_ours(waves, settings, precise=False)


ROUTES = {
    'librosa': by_librosa,
    'librosa, batch': by_librosa_batch,
    'ours': by_ours,
    'ours, float32': by_ours_float32,
}


def largest_differences(waves: np.ndarray, settings: dict) -> dict:
    """Of every route from librosa's values, in dB; also warms up."""
    # What top_db=80 leaves of each clip.
    expected = by_librosa(waves, settings)
    floor = expected.max(axis=(1, 2), keepdims=True) - 80
    differences = {}
    for name, route in ROUTES.items():
        found = np.maximum(route(waves, settings), floor)
        difference = np.abs(found - np.maximum(expected, floor)).max()
        differences[name] = float(difference)
    if not differences['ours'] <= LIMIT:
        raise ConfigError(
            f'ours differs from librosa by {differences["ours"]} dB, more '
            f'than {LIMIT}.'
        )
    return differences


def measure(waves: np.ndarray, settings: dict, repeats: int, bar) -> dict:
    """Seconds and CPU seconds of every route and turn, (turns, 2) each."""
    seconds = {name: [] for name in ROUTES}
    for _ in range(repeats):
        for name, route in ROUTES.items():
            start = time.perf_counter(), time.process_time()
            route(waves, settings)
            end = time.perf_counter(), time.process_time()
            seconds[name].append(np.subtract(end, start))
            bar.update()
    return {name: np.array(turns) for name, turns in seconds.items()}


def table_row(length: float, name: str, seconds: dict, difference: float):
    """Format the ratios of one route."""
    ratios = [
        np.median(seconds[base] / seconds[name], axis=0)
        for base in ('librosa', 'librosa, batch')
    ]
    cells = ' '.join(f'{r[i]:9.2f}' for i in range(2) for r in ratios)
    milliseconds = 1e3 * np.median(seconds[name], axis=0)
    return (
        f'{length:7g} {name:14s} {milliseconds[0]:8.1f} '
        f'{milliseconds[1]:8.1f} {cells} {difference:10.1e}'
    )


def main():
    """Measure, compare and print."""
    args = parse_args()
    torch.set_num_threads(args.threads)
    settings = dict(
        sr=args.sampling_rate,
        n_fft=args.n_fft,
        hop_length=args.hop_length,
        n_mels=args.n_mels,
    )
    bar = ProgressBar(
        args.repeats * len(ROUTES) * len(args.seconds), 30, file=sys.stderr
    )
    lines = []
    with threadpool_limits(args.threads):
        for length in args.seconds:
            waves = make_waveforms(
                args.batch_size, round(length * args.sampling_rate)
            )
            differences = largest_differences(waves, settings)
            seconds = measure(waves, settings, args.repeats, bar)
            lines += [
                table_row(length, name, seconds, differences[name])
                for name in ROUTES
            ]
    print(
        f'\n{args.batch_size} clips a batch, {args.threads} thread(s), '
        f'{args.sampling_rate} Hz, n_fft {args.n_fft}, hop '
        f'{args.hop_length}, {args.n_mels} mels; median of {args.repeats}\n'
        f'{"":40s} {"times as fast as":>19s} {"less CPU than":>19s}\n'
        f'{"seconds":7s} {"route":14s} {"ms":>8s} {"CPU ms":>8s} '
        f'{"librosa":>9s} {"in batch":>9s} {"librosa":>9s} {"in batch":>9s} '
        f'{"differ, dB":>10s}'
    )
    print('\n'.join(lines))


if __name__ == '__main__':
    run_tool(main)
