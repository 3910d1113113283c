"""The log of a process that goes on for long: never more than two files of LIMIT bytes, the newer one as it is named,
the older one with .1 behind its name. Either may be removed at any time.

Whatever else the process writes to its standard output and error, such as a traceback of the interpreter's, goes there
too: both are the file.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

LIMIT = 1 << 20
FORMAT = "%(asctime)s %(name)s %(levelname)s %(message)s"


def opened(path: Path, limit: int = LIMIT) -> int:
    """A descriptor that appends to the log, for its owner only; one that is full already is put aside. OSError."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o600)
    if os.fstat(descriptor).st_size >= limit:
        os.close(descriptor)
        os.replace(path, f"{path}.1")
        descriptor = os.open(path, flags, 0o600)
    return descriptor


class BoundedLog(logging.Handler):
    """Writes to standard error, which with standard output is the file at `path`, and begins a new one when that has
    `limit` bytes. What the host's disk has no room for is lost, and the process goes on."""

    def __init__(self, path: Path, limit: int = LIMIT) -> None:
        super().__init__()
        self._path = path
        self._limit = limit
        self.setFormatter(logging.Formatter(FORMAT))

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = self.format(record)[: self._limit]
            os.write(2, f"{text}\n".encode(errors="backslashreplace"))
            if os.fstat(2).st_size >= self._limit:
                self._begin_anew()
        except Exception:  # there is nowhere left to say it
            return

    def _begin_anew(self) -> None:
        try:
            fresh = opened(self._path, self._limit)
        except OSError:  # its directory is gone, or takes no more
            os.ftruncate(2, 0)
            return
        os.dup2(fresh, 1)
        os.dup2(fresh, 2)
        os.close(fresh)


def begin(path: Path) -> None:
    """Everything that is logged from here on goes to the log at `path`, which standard error is already."""
    root = logging.getLogger()
    root.handlers[:] = [BoundedLog(path)]
    root.setLevel(logging.INFO)
