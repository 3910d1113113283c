"""A machine's console that anybody may join: what the guest says goes to a ring, what people type comes from a queue.

Hart threads call `put`, `take` and `has_room`, which do no I/O and wait for no lock that is held during any. A thread
writes what has gathered to the ring and tells the readers, who fetch it at their own pace: a slow one falls behind in
the ring and slows nobody.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable

from celaje.host.console_ring import ConsoleRing
from celaje.machine.console import GATHER_SECONDS, LIMIT, ROOM, SLOWED_SECONDS
from celaje.machine.virtio.device import Doorbell

log = logging.getLogger(__name__)

TYPED_AHEAD = 1 << 16  # bytes that wait for a guest that does not listen; then the typists wait


def _nobody() -> None:
    pass


class RingConsole:
    """A `celaje.machine.console.Console` on a ring that it closes. `start` before use, `close` at the end."""

    def __init__(self, ring: ConsoleRing) -> None:
        self._ring = ring
        self._output: deque[int] = deque()
        self._input: deque[int] = deque()
        self._bell = Doorbell()
        self._on_input: Callable[[], None] = _nobody
        self._on_room: Callable[[], None] = _nobody
        self._was_full = False
        self._closing = False
        self._said = threading.Condition()  # guards the ring; notified when there is more in it
        self._taken = threading.Condition()  # notified when there is room for input
        self._typists = 0
        self._lost = 0
        self._writer = threading.Thread(target=self._write, name="console output", daemon=True)

    def start(self) -> None:
        """From here on bytes move."""
        self._writer.start()

    def finish(self) -> None:
        """Write what was put. Nothing is said or typed any more; readers get what there is, and then None."""
        self._closing = True
        self._bell.ring()
        if self._writer.ident is not None:
            self._writer.join()
        with self._said:
            self._said.notify_all()
        with self._taken:
            self._taken.notify_all()

    def close(self) -> None:
        """`finish`, and let go of the ring."""
        self.finish()
        with self._said:
            self._ring.close()

    # The guest's side.

    def listen(self, on_input: Callable[[], None], on_room: Callable[[], None]) -> None:
        self._on_input, self._on_room = on_input, on_room

    @property
    def has_room(self) -> bool:
        if len(self._output) < ROOM:
            return True
        self._was_full = True
        return len(self._output) < ROOM

    def put(self, byte: int) -> None:
        self._output.append(byte)
        self._bell.ring()
        if len(self._output) > LIMIT and not self._closing:
            time.sleep(SLOWED_SECONDS)

    def take(self, limit: int) -> bytes:
        data = bytearray()
        while len(data) < limit:
            try:
                data.append(self._input.popleft())
            except IndexError:
                break
        if self._typists and data:
            with self._taken:
                self._taken.notify_all()
        return bytes(data)

    def give_back(self, data: bytes) -> None:
        self._input.extendleft(reversed(data))

    def _write(self) -> None:
        while not self._closing or self._output:
            self._bell.wait()
            if not self._closing:
                time.sleep(GATHER_SECONDS)
            while count := len(self._output):
                data = bytes(self._output.popleft() for _ in range(min(count, 4096)))
                with self._said:
                    self._append(data)
                    self._said.notify_all()
                if self._was_full and len(self._output) < ROOM:
                    self._was_full = False
                    self._on_room()

    def _append(self, data: bytes) -> None:
        try:
            self._ring.append(data)
        except OSError as error:
            if not self._lost:
                log.error("console output is lost: %s", error)
            self._lost += len(data)

    # The people's side.

    @property
    def count(self) -> int:
        """Bytes that the guest has ever said."""
        return self._ring.count

    @property
    def lost(self) -> int:
        """Bytes that could not be kept, because the host failed to."""
        return self._lost

    def read(self, position: int, limit: int, stopped: Callable[[], bool]) -> tuple[int, bytes] | None:
        """(position, data) of what was said from `position` on, at most `limit` bytes, or from the oldest that is left
        if that is later. Waits until there is something; None when the console is closed or `stopped`."""
        with self._said:
            self._said.wait_for(lambda: self._ring.count > position or self._closing or stopped())
            if stopped() or self._ring.count <= position or self._ring.closed:
                return None
            return self._ring.read(position, limit)

    def wake_readers(self) -> None:
        """Have them ask again whether they are stopped."""
        with self._said:
            self._said.notify_all()

    def type(self, data: bytes) -> None:
        """Let the guest have `data`, in whole and in order. Waits while it has too much to read already."""
        with self._taken:
            self._typists += 1
            try:
                self._taken.wait_for(lambda: len(self._input) < TYPED_AHEAD or self._closing)
            finally:
                self._typists -= 1
            if self._closing:
                return
            self._input.extend(data)
        self._on_input()
