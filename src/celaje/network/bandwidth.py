"""Bandwidth of an interface: token buckets.

A bucket may go into debt by one frame, so that 64 KiB frames pass whatever the rate. What the guest sends beyond its
rate is not lost as long as whoever reads its messages heeds `Interface.resume_at`: the guest's own queue fills. What
is sent to the guest waits in a queue here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from celaje.network.buffers import Buffer

LEAST_BURST = 128 * 1024  # bytes: two of the largest frames
BURST_SECONDS = 0.05
QUEUE_SECONDS = 0.2  # of frames that wait for their turn, at least LEAST_QUEUE
LEAST_QUEUE = 512 * 1024


class TokenBucket:
    """`rate` bytes a second on the average, `burst` at once. It starts full."""

    __slots__ = ("_at", "_tokens", "burst", "rate")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self.rate = rate
        self.burst = burst
        self._tokens = burst
        self._at = now

    def take(self, size: int, now: float) -> bool:
        """Takes `size` if anything is there, even if it is less; the debt must be paid off before the next."""
        tokens = self._tokens + (now - self._at) * self.rate
        self._at = now
        if tokens > self.burst:
            tokens = self.burst
        if tokens <= 0:
            self._tokens = tokens
            return False
        self._tokens = tokens - size
        return True

    def charge(self, size: int, now: float) -> bool:
        """Takes `size` whatever is there; False, and nothing taken, if the debt is more than a burst."""
        tokens = min(self._tokens + (now - self._at) * self.rate, self.burst)
        self._at = now
        if tokens < -self.burst:
            self._tokens = tokens
            return False
        self._tokens = tokens - size
        return True

    @property
    def ready_at(self) -> float:
        """When the debt will be paid off; the past if there is none."""
        return self._at + (1 - self._tokens) / self.rate  # a byte more, so that rounding never says too soon


def bucket(rate: int, now: float) -> TokenBucket:
    """The bucket of an interface's rate."""
    return TokenBucket(rate, max(LEAST_BURST, rate * BURST_SECONDS), now)


class Shaper:
    """What is sent to a guest, no faster than its bandwidth."""

    __slots__ = ("_bucket", "_most", "_queue", "_queued")

    def __init__(self, rate: int, now: float) -> None:
        self._bucket = bucket(rate, now)
        self._most = max(LEAST_QUEUE, int(rate * QUEUE_SECONDS))
        self._queue: deque[bytes] = deque()
        self._queued = 0

    def passes(self, size: int, now: float) -> bool:
        """Whether a message may be sent at once: its turn has come and nobody waits."""
        return not self._queue and self._bucket.take(size, now)

    def keep(self, parts: list[Buffer], size: int) -> bool:
        """Queues a copy of a message; False if there is no room."""
        if self._queued + size > self._most:
            return False
        self._queue.append(b"".join(parts))
        self._queued += size
        return True

    def due(self, now: float) -> Iterator[bytes]:
        """The messages whose turn has come, each as it is taken."""
        while self._queue and self._bucket.take(len(self._queue[0]), now):
            message = self._queue.popleft()
            self._queued -= len(message)
            yield message

    def all(self) -> list[bytes]:
        """The messages that wait, given up to whoever asks."""
        waiting = list(self._queue)
        self._queue.clear()
        self._queued = 0
        return waiting

    @property
    def ready_at(self) -> float | None:
        """When the next message's turn comes; None if none waits."""
        return self._bucket.ready_at if self._queue else None
