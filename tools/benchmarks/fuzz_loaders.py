"""Feed damaged files to all loaders, to lists of pairs and to the audit.

Valid files of every kind are made, changed at random (bytes, lengths, parts,
structure of lists), and read in all ways that the package has. What may come
out is a result, or an error of mmcmcd.errors. Any other exception, a crash,
a case that takes too long or too much memory is a finding, and the exit
status is 1. A case depends on the seed and its own number alone.
"""

import argparse
import multiprocessing
import os
import re
import resource
import signal
import tempfile
import time
import traceback
import warnings
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np

from mmcmcd.apis import run_tool
from mmcmcd.datasets.fuzzing import Reader, damage, make_seeds
from mmcmcd.datasets.progress import progress_bar
from mmcmcd.errors import ConfigError, UserError

SECONDS = 10  # for one case
MEMORY = 2 << 30  # bytes beyond what the process has at its start


def read_case(reader, path, in_pair):
    """Read one file in all ways.

    Args:
        reader (Reader): The ways.
        path (Path): The file.
        in_pair (bool): See :meth:`Reader.ways`.

    Returns:
        tuple[int, int, list[str]]: How often it was accepted and refused, and
        the findings.
    """
    accepted, refused, findings = 0, 0, []
    for way in reader.ways(path, in_pair):
        try:
            way()
        except UserError as error:
            refused += 1
            # A decoder that asked for the memory and did not get it.
            if re.search('nsufficient memory|fit into memory', str(error)):
                findings.append(traceback.format_exc())
        except Exception:
            findings.append(traceback.format_exc())
        except TooSlowError:
            findings.append(traceback.format_exc())
            break
        else:
            accepted += 1
    return accepted, refused, findings


class TooSlowError(BaseException):
    """A case took too long; nothing that is read may catch it."""


def _stop(*_):
    raise TooSlowError(f'more than {SECONDS} s')


def _work(pipe, root, seed, numbers, seeds):
    """Run cases in a process that may crash."""
    warnings.simplefilter('ignore')
    signal.signal(signal.SIGALRM, _stop)
    used = int(Path('/proc/self/statm').read_text().split()[0])
    limit = used * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    reader, names = Reader(root, seeds), sorted(seeds)
    # Decoders and the audit have much to say.
    with open(os.devnull, 'w') as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    for number in numbers:
        started = time.perf_counter()
        name = names[number % len(names)]
        content = _damaged(seeds, name, seed, number)
        group, dot, suffix = name.partition('.')
        path = Path(root) / f'{group}.{number}{dot}{suffix}'
        path.write_bytes(content)
        pipe.send((number, name))
        signal.alarm(SECONDS)
        # Every third case of a kind.
        in_pair = number // len(names) % 3 == 0
        result = read_case(reader, path, in_pair)
        signal.alarm(0)
        path.unlink()
        pipe.send((number, name, *result, time.perf_counter() - started))
    pipe.send(None)


def _results(seed, start, cases, seeds):
    """Yield what the cases from ``start`` on give, up to a crash."""
    here, there = multiprocessing.Pipe(duplex=False)
    with tempfile.TemporaryDirectory(prefix='fuzz') as root:
        process = multiprocessing.get_context('fork').Process(
            target=_work, args=(there, root, seed, range(start, cases), seeds)
        )
        process.start()
        there.close()
        begun = None
        try:
            while here.poll(2 * SECONDS):
                message = here.recv()
                if message is None:
                    return
                if len(message) == 2:
                    begun = message
                else:
                    yield message
        except EOFError:
            pass
        finally:
            process.kill()
            process.join()
        if begun is None:
            raise RuntimeError('the process died before its first case')
        text = f'crashed or hung (exit code {process.exitcode})'
        yield *begun, 0, 0, [text], 0


def run_cases(cases, seed, progress=False, keep=None):
    """Run cases in another process; start it anew when it crashes.

    Args:
        cases (int): Number of cases.
        seed (int): Of all that is random.
        progress (bool): Whether to show progress on stderr.
        keep (Path, optional): Folder for the files of findings.

    Returns:
        tuple[dict[str, Counter], list[tuple[int, str, str]]]: By kind of
        file ``cases``, ``accepted``, ``refused``, ``seconds`` and
        ``findings``; and number, kind and text of the findings.
    """
    seeds, table, findings = make_seeds(), defaultdict(Counter), []
    bar = progress_bar(cases) if progress else None
    done = 0
    while done < cases:
        for number, name, *result in _results(seed, done, cases, seeds):
            accepted, refused, texts, seconds = result
            table[name].update(
                cases=1,
                accepted=accepted,
                refused=refused,
                findings=len(texts),
                seconds=seconds,
            )
            findings += [(number, name, text) for text in texts]
            done = number + 1
            if bar:
                bar.update()
    if bar:
        bar.file.write('\n')
    if keep:
        for number, name, text in findings:
            keep.mkdir(parents=True, exist_ok=True)
            content = _damaged(seeds, name, seed, number)
            (keep / f'{number}.{name}').write_bytes(content)
            (keep / f'{number}.{name}.log').write_text(text)
    return dict(table), findings


def _damaged(seeds, name, seed, number):
    rng = np.random.default_rng([seed, number])
    return damage(seeds[name], name, rng, list(seeds.values()))


def format_table(table):
    """The counts as a Markdown table.

    Args:
        table (dict[str, Counter]): Of :func:`run_cases`.

    Returns:
        str: The table.
    """
    keys = ('cases', 'accepted', 'refused', 'findings')
    lines = [f'| file | {" | ".join(keys)} | s |', '| --- |' + ' ---: |' * 5]
    total = Counter()
    for name, counts in [*sorted(table.items()), ('total', total)]:
        cells = [f'{counts[key]:,}' for key in keys]
        lines.append(
            f'| {name} | {" | ".join(cells)} | {counts["seconds"]:.1f} |'
        )
        if counts is not total:
            total.update(counts)
    return '\n'.join(lines)


def parse_args():
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('--cases', type=int, default=20000)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument(
        '--keep', type=Path, help='folder for the files of findings'
    )
    return parser.parse_args()


def main():
    """Fuzz."""
    args = parse_args()
    if args.cases < 1 or args.seed < 0:
        raise ConfigError('--cases must be positive, --seed 0 or more.')
    table, findings = run_cases(args.cases, args.seed, True, args.keep)
    print(format_table(table))
    for number, name, text in findings[:20]:
        print(f'\ncase {number}, {name}:\n{text}')
    return int(bool(findings))


if __name__ == '__main__':
    run_tool(main)
