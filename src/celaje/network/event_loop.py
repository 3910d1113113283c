"""An event loop: epoll and a heap of timers, one thread, callbacks.

No asyncio: per 64 KiB moved there is one wake-up, one receive and one send, and a task switch would cost as much as
these. A callback may be called for a descriptor without there being anything to do (its number was closed and given
out again within one round), so callbacks go by what their system calls say, not by the event.
"""

from __future__ import annotations

import heapq
import logging
import select
import time
from collections.abc import Callable

READ = select.EPOLLIN
WRITE = select.EPOLLOUT
EVENTS_A_ROUND = 256
FAILURES_LOGGED = 100
STALE_TOLERATED = 1_000

log = logging.getLogger(__name__)


def _nothing() -> None:
    pass


class Timer:
    """A call that is due at `deadline` (seconds of the loop's clock). It can be moved for free to a later time: it
    stays where it is in the heap, and is put back when it comes up."""

    __slots__ = ("callback", "deadline", "queued")

    def __init__(self, callback: Callable[[], None]):
        self.callback = callback
        self.deadline: float | None = None  # None: not due at all
        self.queued: float | None = None  # the earliest time that it stands for in the heap


class EventLoop:
    """Calls back when descriptors are ready and when times have come."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self.clock = clock
        self.now = clock()  # when the present round began
        self.after_round: Callable[[], None] | None = None  # called at the end of each
        self.failures = 0  # callbacks that raised; the first are in the log
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callable[[int], None]] = {}
        self._heap: list[tuple[float, int, Timer]] = []
        self._stale = 0  # entries of the heap that stand for nothing any more
        self._sequence = 0  # orders timers of one instant
        self._soon: list[Callable[[], None]] = []
        self._stopped = False

    def __len__(self) -> int:
        """How many descriptors are watched."""
        return len(self._callbacks)

    def close(self) -> None:
        self._epoll.close()

    # Descriptors.

    def watch(self, descriptor: int, events: int, callback: Callable[[int], None]) -> None:
        """Call `callback(events)` whenever one of `events` holds, or the descriptor hung up."""
        self._callbacks[descriptor] = callback
        self._epoll.register(descriptor, events)

    def change(self, descriptor: int, events: int) -> None:
        """From now on look for these events."""
        self._epoll.modify(descriptor, events)

    def unwatch(self, descriptor: int) -> None:
        """Call back no more. Before the descriptor is closed."""
        if self._callbacks.pop(descriptor, None) is not None:
            self._epoll.unregister(descriptor)

    # Time.

    def timer(self, callback: Callable[[], None]) -> Timer:
        """A timer that is not due yet."""
        return Timer(callback)

    def set(self, timer: Timer, deadline: float | None) -> None:
        """`timer` is due at `deadline` and no other time; None cancels it."""
        timer.deadline = deadline
        if deadline is not None and (timer.queued is None or deadline < timer.queued):
            if timer.queued is not None:
                self._stale += 1
            timer.queued = deadline
            self._sequence += 1
            heapq.heappush(self._heap, (deadline, self._sequence, timer))

    def discard(self, timer: Timer) -> None:
        """`timer` is never set again: it lets go of what it would call. Entries of timers that are gone, which may be
        due in hours, leave the heap before they are most of it."""
        timer.deadline = None
        timer.callback = _nothing
        if timer.queued is not None:
            timer.queued = None
            self._stale += 1
        if self._stale > STALE_TOLERATED and self._stale > len(self._heap) // 2:
            self._heap = [entry for entry in self._heap if entry[2].queued == entry[0]]
            heapq.heapify(self._heap)
            self._stale = 0

    def soon(self, callback: Callable[[], None]) -> None:
        """Call once, at the end of the present round."""
        self._soon.append(callback)

    # Rounds.

    def run(self) -> None:
        """Go round until `stop` is called."""
        while not self._stopped:
            self.round(None)

    def stop(self) -> None:
        """`run` returns after the present round."""
        self._stopped = True

    def round(self, limit: float | None) -> None:
        """Wait until something is ready or due, at most `limit` seconds, and call back."""
        timeout = -1.0 if limit is None else limit
        if self._soon:
            timeout = 0.0
        elif self._heap:
            due = max(0.0, self._heap[0][0] - self.clock())
            timeout = due if limit is None else min(due, limit)
        ready = self._epoll.poll(timeout, EVENTS_A_ROUND)
        self.now = self.clock()
        callbacks = self._callbacks
        for descriptor, events in ready:
            callback = callbacks.get(descriptor)
            if callback is not None:
                try:
                    callback(events)
                except Exception as error:
                    self._failed(error)
        if self._heap and self._heap[0][0] <= self.now:
            self._call_due()
        if self._soon:
            due_now, self._soon = self._soon, []
            for call in due_now:
                try:
                    call()
                except Exception as error:
                    self._failed(error)
        if self.after_round is not None:
            self.after_round()

    def _call_due(self) -> None:
        heap = self._heap
        while heap and heap[0][0] <= self.now:
            stood_for, _, timer = heapq.heappop(heap)
            if timer.queued != stood_for:
                self._stale -= 1
                continue  # it was set to an earlier time since, and has been called
            timer.queued = None
            if timer.deadline is None:
                continue
            if timer.deadline > self.now:
                self.set(timer, timer.deadline)
                continue
            timer.deadline = None
            try:
                timer.callback()
            except Exception as error:
                self._failed(error)

    def _failed(self, error: Exception) -> None:
        """A mistake of ours in one flow must not take down every machine's network, nor fill the disk with its log."""
        self.failures += 1
        if self.failures <= FAILURES_LOGGED:
            log.error("a callback failed", exc_info=error)
