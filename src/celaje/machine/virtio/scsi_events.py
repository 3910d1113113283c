"""What a SCSI host device has to tell its driver unasked, until there is a buffer for it (virtio 1.2, 5.6.6.3).

    event      | event le32 | lun 8 | reason le32 |
"""

from __future__ import annotations

import struct
from collections import deque

from celaje.machine.virtio.block_backend import total
from celaje.machine.virtio.framing import cut_front_windows, scatter
from celaje.machine.virtio.queue import MalformedQueue, Queue

EVENT_NONE = 0
EVENT_TRANSPORT_RESET = 1
EVENT_PARAMETER_CHANGE = 3
EVENTS_MISSED = 1 << 31
RESET_RESCAN = 1
RESET_REMOVED = 2
REASON_CAPACITY = 0x2A | 0x09 << 8
EVENT_SIZE = 16
MAX_EVENTS = 64
"""Events kept for a driver that has offered no buffer; of one more it is only told that it missed some."""

_event = struct.Struct("<I8sI").pack


class Events:
    """Events that wait. The device's lock is held whenever one of these is called."""

    def __init__(self) -> None:
        self.waiting: deque[tuple[int, int, int]] = deque()
        """Event, target, reason."""
        self.missed = False

    def note(self, event: int, target: int, reason: int) -> None:
        """One more."""
        if len(self.waiting) < MAX_EVENTS:
            self.waiting.append((event, target, reason))
        else:
            self.waiting.clear()
            self.missed = True

    def forget(self) -> None:
        """The driver is gone."""
        self.waiting.clear()
        self.missed = False

    def send(self, queue: Queue) -> None:
        """Put what waits into the driver's buffers. Raises MalformedQueue."""
        while self.missed or self.waiting:
            chain = queue.pop()
            if chain is None:
                if queue.rearm():
                    continue
                return
            if chain.readable or total(chain.writable) < EVENT_SIZE:
                raise MalformedQueue(f"an event buffer that is no {EVENT_SIZE} bytes to write")
            if self.missed:
                data = _event(EVENTS_MISSED | EVENT_NONE, bytes(8), 0)
                self.missed = False
            else:
                event, target, reason = self.waiting.popleft()
                data = _event(event, bytes([1, target, 0, 0, 0, 0, 0, 0]), reason)
            scatter(cut_front_windows(chain.writable, EVENT_SIZE), data)
            queue.push(chain, EVENT_SIZE)
