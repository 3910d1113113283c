"""What a hart may do for a device while it would only wait.

A request that may wait for the host (a write) is served by a thread of the device's own, and that costs a guest which
waits for it two changes of threads. Most guests do wait: the hart whose request it was goes idle a few thousand
instructions later. So a device that was notified offers the request to that hart, which is recalled (`Hart.recall`):
idle, it serves the request itself; busy, it leaves it to the device's thread, which loses the time of the recall.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

Work = Callable[[bool], None]
"""Called on a hart's thread: with True where the hart is idle, so that the work may be done, with False where somebody
else must."""


BUSY_REQUESTS = 16
"""So many requests of a disk are not offered after one whose hart was busy."""
SLOW_REQUESTS = 256
"""And so many after one that kept its hart for longer than HART_SECONDS: the host is writing to its disk, and the
hart, which takes no interrupts meanwhile, has to wait for it."""
HART_SECONDS = 0.005
"""Seconds that a hart is to spend on an offer."""


class Experience:
    """How a disk's offers went, which tells whether to make the next."""

    def __init__(self) -> None:
        self._not_offered = 0

    def worth_offering(self) -> bool:
        """Whether the next request is to be offered. False counts as one that was not."""
        if not self._not_offered:
            return True
        self._not_offered -= 1
        return False

    def was_busy(self) -> None:
        """The hart that was offered the last one was busy."""
        self._not_offered = BUSY_REQUESTS

    def took(self, seconds: float) -> None:
        """A hart was idle, and served what was offered in so long."""
        if seconds > HART_SECONDS:
            self._not_offered = SLOW_REQUESTS


class Offers:
    """Work that devices have offered to the harts of one machine."""

    def __init__(self) -> None:
        self._work: deque[Work] = deque()
        self._threads: set[int] = set()

    def __bool__(self) -> bool:
        return bool(self._work)

    def join(self) -> None:
        """The calling thread runs a hart, and takes offers whenever that comes back."""
        self._threads.add(threading.get_ident())

    def leave(self) -> None:
        """It does no longer; what is offered is left to others."""
        self._threads.discard(threading.get_ident())
        self.take(idle=False)

    def make(self, work: Work) -> bool:
        """Offer `work`. False where the caller is no hart's thread, which nobody would recall."""
        if threading.get_ident() not in self._threads:
            return False
        self._work.append(work)
        return True

    def take(self, idle: bool) -> None:
        """Do what is offered, or have others do it."""
        while self._work:
            try:
                work = self._work.popleft()
            except IndexError:  # another hart took it
                return
            work(idle)
