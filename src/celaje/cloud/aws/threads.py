"""Threads that wait for clients: who is slow may hold one as long as nobody else wants it.

A signed request can make its body last for days. So a client that sends or takes less than LEAST on the average of a
while (Pace) is let go once others wait for a thread (Threads.crowded), and not before: a slow line is no mistake.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

LEAST = 16 << 10
"""Bytes a second that a client must send or take where others wait."""

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


class Threads(ThreadPoolExecutor):
    """At most `count` threads, which know whether somebody waits for one."""

    def __init__(self, count: int, name: str) -> None:
        super().__init__(count, thread_name_prefix=name)
        self._waiting = 0
        self._counting = threading.Lock()

    @property
    def crowded(self) -> bool:
        """Whether something that was submitted has not begun."""
        return self._waiting > 0

    def submit(
        self, fn: Callable[Parameters, Result], /, *args: Parameters.args, **kwargs: Parameters.kwargs
    ) -> Future[Result]:
        """As of any executor."""

        def begin() -> Result:
            with self._counting:
                self._waiting -= 1
            return fn(*args, **kwargs)

        with self._counting:
            self._waiting += 1
        return super().submit(begin)


class Pace:
    """How fast one client sends or takes. `patience`: seconds of which each time the average counts."""

    def __init__(self, patience: float, crowded: Callable[[], bool]) -> None:
        self._patience = patience
        self._crowded = crowded
        self._since: float | None = None  # until the first bytes: the request may have waited for its own thread
        self._moved = 0

    def holds(self, count: int) -> bool:
        """So many bytes more were moved: whether that is fast enough, or nobody else waits."""
        now = time.monotonic()
        if self._since is None:
            self._since = now
            return True
        self._moved += count
        if now - self._since < self._patience:
            return True
        slow = self._moved < LEAST * (now - self._since)
        self._since, self._moved = now, 0
        return not (slow and self._crowded())
