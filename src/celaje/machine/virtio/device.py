"""What every virtio device has in common, whatever transport carries it.

Locks, in the order in which one thread may take them: the transport's register lock, then the device's `lock`, then the
transport's interrupt lock. Queues, requests and the backend are touched under the device's lock only, so who holds it
knows that the device is at rest: `stop` (a reset), `pause` and `save` take it and thereby wait for the request in hand.

A notification comes in on a hart's thread. Devices whose work never waits do it there and then (rng, console); a device
that may wait has a thread of its own, which sleeps on a `Doorbell`.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Protocol

from celaje.machine.bus import SavedState
from celaje.machine.offers import Work
from celaje.machine.virtio.queue import MalformedQueue, Queue

FEATURE_RING_INDIRECT = 1 << 28
FEATURE_RING_EVENT_INDEX = 1 << 29
FEATURE_VERSION_1 = 1 << 32
FEATURE_RING_RESET = 1 << 40


class Transport(Protocol):
    """What carries a device. All may be called from any thread, also under the device's lock."""

    def interrupt(self) -> None:
        """Buffers were given back and the driver wants to know."""

    def offer(self, work: Work, /) -> bool:
        """Offer `work` to the hart that is notifying the device (offers.py). False: it is not taken."""

    def configuration_changed(self) -> None:
        """What `configuration` returns is not what it was."""

    def needs_reset(self, reason: str) -> None:
        """The driver broke a rule: tell it that the device stands still until it is reset (2.1.2)."""


class Doorbell:
    """Wakes one thread. Rings while it is awake count as one.

    A lock serves as the semaphore because releasing it neither waits nor gives up the GIL: ringing costs a hart's
    thread a tenth of a microsecond, where an event's condition or an eventfd would cost it a switch.
    """

    def __init__(self) -> None:
        self._silent = threading.Lock()
        self._silent.acquire()

    def ring(self) -> None:
        """Let `wait` return, now or when it is next called."""
        try:
            self._silent.release()
        except RuntimeError:  # it has been rung already
            return

    def wait(self) -> None:
        """Sleep until rung."""
        self._silent.acquire()


class VirtioDevice:
    """One device. Subclasses name themselves in the attributes below and do their work in `serve`."""

    device_id: int
    """Virtio 1.2, 5: 2 is a block device, and so on."""
    queue_sizes: Sequence[int]
    """The largest size of each queue, a power of two up to 32768."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.queues: list[Queue | None] = [None] * len(self.queue_sizes)
        self.negotiated = 0
        self.features = 0
        """The bits of the device's own that it offers (0 to 23, 50 and up); the transport adds the rest."""
        self.transport: Transport
        self.halting = False
        """Somebody waits for the device to come to rest: who serves many requests stops between two of them."""
        self._pauses = 0

    # --- for the transport ---

    def configuration(self) -> bytes:
        """The configuration space as it stands now."""
        return b""

    def write_configuration(self, offset: int, data: bytes) -> None:
        """The driver writes to the configuration space; `offset` and `data` may be anything."""

    def start(self, queues: Sequence[Queue | None], negotiated: int) -> None:
        """The driver is ready, and so are `queues` (None: not set up)."""
        with self.lock:
            self.negotiated = negotiated
            self.queues = list(queues)
        self.notify_all()

    def start_queue(self, index: int, queue: Queue) -> None:
        """One more queue is ready, after `start`."""
        with self.lock:
            self.queues[index] = queue
        self.notify(index)

    def stop(self) -> None:
        """Forget all queues. When this returns the device touches guest memory no more."""
        self.halting = True
        with self.lock:
            for index in range(len(self.queues)):
                self._drop(index)
            self.negotiated = 0
            self.forget()
            self.halting = self._pauses > 0

    def stop_queue(self, index: int) -> None:
        """Forget one queue, likewise."""
        self.halting = True
        with self.lock:
            self._drop(index)
            self.halting = self._pauses > 0
        self.notify_all()

    def _drop(self, index: int) -> None:
        queue, self.queues[index] = self.queues[index], None
        self.forget_queue(index)
        if queue is not None:
            queue.release()

    def pause(self) -> None:
        """When this returns the device is at rest, until `resume`; notifications are not lost. May nest."""
        self.halting = True
        with self.lock:
            self._pauses += 1

    def resume(self) -> None:
        """Undo one `pause`. ValueError if there was none."""
        with self.lock:
            if not self._pauses:
                raise ValueError("resume without pause")
            self._pauses -= 1
            self.halting = self._pauses > 0
        self.notify_all()

    @property
    def at_rest(self) -> bool:
        """Whether the device must not serve now. Read under the lock."""
        return self._pauses > 0

    def notify_all(self) -> None:
        """Look at every queue: what was made available meanwhile was not notified, or was not heard."""
        for index, queue in enumerate(self.queues):
            if queue is not None:
                self.notify(index)

    def notify(self, index: int) -> None:
        """Buffers were made available in queue `index`. On a hart's thread: must not wait for a host's device."""
        with self.lock:
            self.serve_guarded(index)

    def serve_guarded(self, index: int) -> None:
        """`serve` unless the queue is not set up or the device is paused; what is malformed stops the device.

        With the lock held.
        """
        queue = self.queues[index]
        if queue is None or self._pauses:
            return
        try:
            self.serve(index, queue)
        except MalformedQueue as error:
            self.fail(str(error))

    def fail(self, reason: str) -> None:
        """Stand still until the driver resets the device. With the lock held."""
        for index in range(len(self.queues)):
            self._drop(index)
        self.transport.needs_reset(reason)

    def close(self) -> None:
        """End threads and close backends. No hart may be running."""

    # --- for subclasses ---

    def serve(self, index: int, queue: Queue) -> None:
        """Do what the chains of queue `index` ask. With the lock held. May raise MalformedQueue."""
        raise NotImplementedError

    def forget(self) -> None:
        """Go back to the state after power-on, as a reset asks. With the lock held; queues are forgotten already."""

    def forget_queue(self, index: int) -> None:
        """Queue `index` is gone; what comes next in its place is new. With the lock held."""

    def save(self) -> SavedState:
        """The device's own state, beyond its queues. With the device paused."""
        return {}

    def restore(self, state: SavedState) -> None:
        """Put back what `save` gave. ValueError names what does not fit."""
        refuse_unknown(state, set())


def refuse_unknown(state: SavedState, known: set[str]) -> None:
    """ValueError unless `state` has exactly the fields `known`."""
    if state.keys() != known:
        missing, unknown = sorted(known - state.keys()), sorted(state.keys() - known)
        raise ValueError(f"saved device state lacks {missing or 'nothing'} and has unknown fields {unknown or 'none'}")


def saved_number(state: SavedState, name: str, limit: int) -> int:
    """The number below `limit` in field `name` of a saved state; ValueError if it is anything else."""
    value = state[name]
    if not isinstance(value, int) or not 0 <= value < limit:
        raise ValueError(f"saved field {name!r} must be a number below {limit:#x}, not {value!r}")
    return value


def saved_numbers(state: SavedState, name: str, count: int, limit: int) -> list[int]:
    """The `count` numbers below `limit` in field `name` of a saved state; ValueError if it is anything else."""
    values = state[name]
    if not isinstance(values, list) or len(values) != count or not all(0 <= value < limit for value in values):
        raise ValueError(f"saved field {name!r} must be {count} numbers below {limit:#x}, not {values!r}")
    return values
