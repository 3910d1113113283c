"""The input device (virtio 1.2, 5.8) with one key: the power button.

An event is eight bytes in a buffer of the event queue, named as Linux's evdev names them:

    | type le16 | code le16 | value le32 |     type 1, a key: value 1 down, 0 up; type 0: end of what happened at once

So a press is four events: key down, end, key up, end. A guest that has its power button handled (systemd-logind,
busybox' acpid) shuts down in order.

What the driver asks for in the configuration space is chosen by two bytes that it writes, and answered behind them:

    | select u8 | subsel u8 | size u8 | reserved u8 x 5 | answer u8 x 128 |
"""

from __future__ import annotations

import struct

from celaje.machine.bus import SavedState
from celaje.machine.virtio.block_backend import section, total
from celaje.machine.virtio.device import VirtioDevice, refuse_unknown, saved_number
from celaje.machine.virtio.queue import MalformedQueue, Queue

EVENTS = 0
STATUS = 1

SELECT_NAME = 0x01
SELECT_SERIAL = 0x02
SELECT_IDENTIFIERS = 0x03
SELECT_EVENT_BITS = 0x11

EVENT_SYNCHRONIZE = 0
EVENT_KEY = 1
KEY_POWER = 116

_BUS_VIRTUAL = 0x06
_event = struct.Struct("<HHI")
PRESS = (
    _event.pack(EVENT_KEY, KEY_POWER, 1),
    _event.pack(EVENT_SYNCHRONIZE, 0, 0),
    _event.pack(EVENT_KEY, KEY_POWER, 0),
    _event.pack(EVENT_SYNCHRONIZE, 0, 0),
)
_ANSWERS: dict[tuple[int, int], bytes] = {
    (SELECT_NAME, 0): b"celaje power button",
    (SELECT_SERIAL, 0): b"power",
    (SELECT_IDENTIFIERS, 0): struct.pack("<HHHH", _BUS_VIRTUAL, 0, 0, 1),  # bus, vendor, product, version
    (SELECT_EVENT_BITS, EVENT_KEY): (1 << KEY_POWER).to_bytes(KEY_POWER // 8 + 1, "little"),
}


class VirtioPowerButton(VirtioDevice):
    """`press` is what a finger on the button does. Served on the notifying hart's thread and on that of the caller."""

    device_id = 18
    queue_sizes = (64, 64)

    def __init__(self) -> None:
        super().__init__()
        self._select = (0, 0)
        self._sent = len(PRESS)

    def press(self) -> bool:
        """Press and let go. False, and nothing is pressed, while no driver listens. From any thread.

        A press during one of which the guest has not taken all events is the same press.
        """
        with self.lock:
            if self.queues[EVENTS] is None:
                return False
            if self._sent == len(PRESS):
                self._sent = 0
            self.serve_guarded(EVENTS)
            return True

    def configuration(self) -> bytes:
        """The configuration space as it stands now (5.8.4)."""
        answer = _ANSWERS.get(self._select, b"")
        return bytes((*self._select, len(answer), 0, 0, 0, 0, 0)) + answer.ljust(128, b"\0")

    def write_configuration(self, offset: int, data: bytes) -> None:
        """The driver chooses what it wants to know; the rest is read-only."""
        if offset <= 1 and len(data) <= 2 - offset:
            chosen = bytearray(self._select)
            chosen[offset : offset + len(data)] = data
            self._select = chosen[0], chosen[1]

    def serve(self, index: int, queue: Queue) -> None:
        if index == EVENTS:
            self._send_events(queue)
        else:
            for chain in queue.chains():  # lights to be switched on: there are none
                if chain.writable:
                    raise MalformedQueue("a status event in a buffer that the device may only write")
                queue.push(chain, 0)
                if self.halting:
                    break
        if queue.interrupt_due():
            self.transport.interrupt()

    def _send_events(self, queue: Queue) -> None:
        while self._sent < len(PRESS):
            chain = queue.pop()
            if chain is None:
                if not queue.rearm():
                    return
                continue
            if chain.readable or total(chain.writable) < _event.size:
                raise MalformedQueue("an event buffer of fewer than 8 bytes, or one that the device may only read")
            event, done = PRESS[self._sent], 0
            for buffer in section(chain.writable, 0, _event.size):
                buffer[:] = event[done : done + len(buffer)]
                done += len(buffer)
            queue.push(chain, done)
            self._sent += 1

    def forget(self) -> None:
        """A reset: nobody is told any more of a press that was under way."""
        self._select = (0, 0)
        self._sent = len(PRESS)

    def save(self) -> SavedState:
        """What the driver asks for, and how many events of a press it has been sent."""
        return {"select": self._select[0], "subsel": self._select[1], "sent": self._sent}

    def restore(self, state: SavedState) -> None:
        """Put back what `save` gave. ValueError names what does not fit."""
        refuse_unknown(state, {"select", "subsel", "sent"})
        self._select = saved_number(state, "select", 256), saved_number(state, "subsel", 256)
        self._sent = saved_number(state, "sent", len(PRESS) + 1)
