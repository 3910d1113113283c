"""The console device (virtio 1.2, 5.3), with one port.

What the driver puts into the transmit queue goes to a `Console` as long as that has room; the rest stays in the queue
until it has. Input is taken from it only when the driver has offered a buffer for it. So nothing is dropped in between,
and neither ever makes a hart wait.

A chain that is sent in part is given back to the available ring with a note of how much of it is done. The note is
then all that a saved state needs.
"""

from __future__ import annotations

import struct

from celaje.machine.bus import SavedState
from celaje.machine.console import Console
from celaje.machine.virtio.block_backend import section, total
from celaje.machine.virtio.device import VirtioDevice, refuse_unknown, saved_number
from celaje.machine.virtio.queue import Chain, MalformedQueue, Queue

FEATURE_SIZE = 1 << 0
FEATURE_EMERGENCY_WRITE = 1 << 2

RECEIVE = 0
TRANSMIT = 1
EMERGENCY_OFFSET = 8
CHUNK = 4096  # bytes moved between two looks at whether there is room

_configuration = struct.Struct("<HHII")  # columns, rows, max_nr_ports, emerg_wr


class VirtioConsole(VirtioDevice):
    """A console whose other end is `backend`. `terminal_size`: (columns, rows), None if that is no terminal."""

    device_id = 3
    queue_sizes = (64, 64)

    def __init__(self, backend: Console, terminal_size: tuple[int, int] | None = None) -> None:
        super().__init__()
        self._backend = backend
        self._terminal_size = terminal_size or (0, 0)
        self._sent = 0
        self.features = FEATURE_EMERGENCY_WRITE | (FEATURE_SIZE if terminal_size else 0)
        backend.listen(lambda: self._changed(RECEIVE), lambda: self._changed(TRANSMIT))

    def configuration(self) -> bytes:
        """The configuration space as it stands now (5.3.4)."""
        return _configuration.pack(*self._terminal_size, 1, 0)

    def write_configuration(self, offset: int, data: bytes) -> None:
        """A byte of a driver that is in no state to use queues (5.3.4, emerg_wr)."""
        if offset == EMERGENCY_OFFSET and data and self._backend.has_room:
            self._backend.put(data[0])

    def resize(self, columns: int, rows: int) -> None:
        """The terminal has another size now (each below 65536)."""
        self._terminal_size = (columns, rows)
        self.transport.configuration_changed()

    def _changed(self, index: int) -> None:
        """The backend has input, or room again. From any thread."""
        with self.lock:
            self.serve_guarded(index)

    def serve(self, index: int, queue: Queue) -> None:
        if index == RECEIVE:
            self._receive(queue)
        else:
            self._transmit(queue)
        if queue.interrupt_due():
            self.transport.interrupt()

    def _receive(self, queue: Queue) -> None:
        for chain in queue.chains():
            room = total(chain.writable)
            if chain.readable or not room:
                raise MalformedQueue("a receive buffer that is empty, or that the device may only read")
            data = self._backend.take(min(room, CHUNK))
            if not data:
                queue.rewind()
                return
            done = 0
            for buffer in section(chain.writable, 0, len(data)):
                buffer[:] = data[done : done + len(buffer)]
                done += len(buffer)
            queue.push(chain, done)

    def _transmit(self, queue: Queue) -> None:
        for chain in queue.chains():
            if chain.writable:
                raise MalformedQueue("a transmit buffer that the device may only write")
            if not self._send(chain):
                queue.rewind()
                return
            self._sent = 0
            queue.push(chain, 0)

    def _send(self, chain: Chain) -> bool:
        """Whether all of `chain` is sent now."""
        length = total(chain.readable)
        while self._sent < length:
            if not self._backend.has_room:
                return False
            for buffer in section(chain.readable, self._sent, min(CHUNK, length - self._sent)):
                for byte in bytes(buffer):
                    self._backend.put(byte)
                self._sent += len(buffer)
        return True

    def forget_queue(self, index: int) -> None:
        """Of a queue that is set up anew nothing is sent."""
        if index == TRANSMIT:
            self._sent = 0

    def save(self) -> SavedState:
        """How much of the next chain to transmit is sent."""
        return {"sent": self._sent}

    def restore(self, state: SavedState) -> None:
        """Put back what `save` gave. ValueError names what does not fit."""
        refuse_unknown(state, {"sent"})
        self._sent = saved_number(state, "sent", 1 << 32)
