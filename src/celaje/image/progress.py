"""What a build says while it works: on a terminal's standard error, nowhere else."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, TextIO

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TransferSpeedColumn


class BuildProgress(Protocol):
    """Told what a build does."""

    def stage(self, text: str) -> None:
        """A new piece of work has begun."""

    def transfer(self, name: str, done: int, total: int) -> None:
        """`done` of `total` bytes of `name` are here. `total` is 0 where nobody knows."""


class Silence:
    """Says nothing."""

    def stage(self, text: str) -> None: ...

    def transfer(self, name: str, done: int, total: int) -> None: ...


class TerminalProgress:
    """A line for each stage and a bar for each transfer, drawn by rich."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}

    def stage(self, text: str) -> None:
        self._progress.console.print(text, highlight=False, markup=False)

    def transfer(self, name: str, done: int, total: int) -> None:
        if name not in self._tasks:
            self._tasks[name] = self._progress.add_task(name, total=total or None)
        self._progress.update(self._tasks[name], completed=done, total=total or None)
        if total and done >= total:
            self._progress.remove_task(self._tasks.pop(name))


@contextmanager
def shown_on(stream: TextIO | None = None) -> Iterator[BuildProgress]:
    """Progress on `stream` (by default standard error) while the block runs, where that is a terminal; else silence."""
    stream = stream or sys.stderr
    if not stream.isatty():
        yield Silence()
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(file=stream), transient=True) as progress:
        yield TerminalProgress(progress)
