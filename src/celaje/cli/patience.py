"""What a person at a terminal is told while something takes longer than a second."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator

SECONDS = 1.0


def say(text: str) -> None:
    """A line on stderr, at a terminal."""
    if sys.stderr.isatty():
        print(f"celaje: {text}", file=sys.stderr)


@contextlib.contextmanager
def patience(text: str) -> Iterator[None]:
    """`text` is said if what is done inside takes longer than a second."""
    timer = threading.Timer(SECONDS, say, (text,))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
