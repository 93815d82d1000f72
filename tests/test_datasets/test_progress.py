import io

import pytest

from mmcmcd.datasets import progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress.time, 'monotonic', lambda: now[0])
    return now


def run(stream, clock, monkeypatch, steps, seconds):
    monkeypatch.setattr(progress.sys, 'stderr', stream)
    bar = progress.progress_bar(steps)
    for _ in range(steps):
        bar.update()
        clock[0] += seconds
    bar.file.write('\n')
    return stream.getvalue()


def test_log_gets_a_line_now_and_then_and_the_end(clock, monkeypatch):
    text = run(io.StringIO(), clock, monkeypatch, 1000, 0.03)
    lines = text.splitlines()
    # One before, one every ten seconds of thirty, and the last.
    assert len(lines) == 5 and text.endswith('\n') and '\r' not in text
    assert '0/1000' in lines[0] and '] 1/1000' in lines[1]
    assert '] 1000/1000' in lines[-1] and 'ETA' in lines[-1]


def test_terminal_is_redrawn(clock, monkeypatch):
    text = run(Terminal(), clock, monkeypatch, 100, 0.04)
    assert text.count('\n') == 1 and 30 <= text.count('\r') <= 51
    assert '] 100/100' in text.rpartition('\r')[2]
