"""What a build says while it works: on a terminal's standard error, nowhere else."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, TextIO

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn


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
    """A line that moves for the stage that is on, and a bar for each transfer, drawn by rich."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._stage: TaskID | None = None
        self._transfers: dict[str, TaskID] = {}

    def stage(self, text: str) -> None:
        if self._stage is not None:
            self._progress.remove_task(self._stage)
        self._stage = self._progress.add_task(escape(text), total=None, amount="")

    def transfer(self, name: str, done: int, total: int) -> None:
        if total and done >= total:
            if name in self._transfers:
                self._progress.remove_task(self._transfers.pop(name))
            return
        if name not in self._transfers:
            self._transfers[name] = self._progress.add_task(escape(name), total=total or None, amount="")
        amount = f"{done / 1e6:.1f} of {total / 1e6:.1f} MB" if total else f"{done / 1e6:.1f} MB"
        self._progress.update(self._transfers[name], completed=done, amount=amount)


@contextmanager
def shown_on(stream: TextIO | None = None) -> Iterator[BuildProgress]:
    """Progress on `stream` (by default standard error) while the block runs, where that is a terminal; else silence."""
    stream = stream or sys.stderr
    if not stream.isatty():
        yield Silence()
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[amount]}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(file=stream), transient=True) as progress:
        yield TerminalProgress(progress)
