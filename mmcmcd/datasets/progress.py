"""Progress bars that keep logs short."""

import sys
import time

from mmengine.utils import ProgressBar


class ThrottledStream:
    """Passes on a progress bar now and then, and always its last state.

    On a terminal it is redrawn ten times a second at most; elsewhere, e.g. in
    the log of a job, a line is written every ten seconds.

    Args:
        stream (TextIO): Where the bar goes.
    """

    def __init__(self, stream):
        self.stream = stream
        self.redraws = stream.isatty()
        self.seconds = 0.1 if self.redraws else 10
        self.next = 0
        self.held = ''

    def write(self, text):
        """Write a state of the bar, or another text."""
        if not text.startswith('\r'):
            self.stream.write(self.held + text)
            self.held = ''
            return
        if not self.redraws:
            text = '\n' + text[1:]
        now = time.monotonic()
        if now < self.next:
            self.held = text
            return
        self.next = now + self.seconds
        self.held = ''
        self.stream.write(text)

    def flush(self):
        """Flush the stream."""
        self.stream.flush()


def progress_bar(total):
    """A throttled bar with an ETA on stderr.

    Args:
        total (int): Number of steps.

    Returns:
        ProgressBar: Call ``update()`` after every step; at the end, write a
        line break to its ``file``.
    """
    return ProgressBar(total, file=ThrottledStream(sys.stderr))
