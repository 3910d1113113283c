"""The network device (virtio 1.2, 5.1), one pair of queues and a control queue.

A packet in a queue is a header (`segmentation`) and an Ethernet frame, in buffers cut anywhere. The header has 12
bytes, or 10 with a driver that accepts neither VERSION_1 nor MRG_RXBUF, as teaching kernels have it.

Where the work is done. A message for the other end leaves on the notifying hart's thread, straight from guest memory,
with one system call that does not wait. Frames from the other end are awaited by a thread of the device's own, which
sleeps in poll(2); it takes several for one waking, and makes an interrupt of the first and one of the others. It also
sends what the wire had no room for: then the chain stays in the queue and the harts' notifications are passed over
until there is room again. Neither waits for the other: who finds the lock taken leaves a note (`_again`), and who gives
it up looks for one.

A frame that finds no buffers waits, and with it the wire, which the other end sees fill up. Frames in hand when the
machine is saved are lost, as on any wire: those who wanted them there send them again.

A frame whose header makes no sense is dropped and counted. A chain that is no packet at all stops the device.
"""

from __future__ import annotations

import logging
import os
import select
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from celaje.machine.bus import SavedState
from celaje.machine.virtio.block_backend import total
from celaje.machine.virtio.device import FEATURE_VERSION_1, VirtioDevice, refuse_unknown, saved_number
from celaje.machine.virtio.net_backend import LinkLost, NetBackend
from celaje.machine.virtio.queue import Chain, MalformedQueue, Queue
from celaje.machine.virtio.segmentation import (
    HEADER_SIZE,
    LARGEST_MESSAGE,
    SMALLEST_FRAME,
    MalformedFrame,
    Offloads,
    adapt,
    checked,
)

log = logging.getLogger(__name__)

FEATURE_CHECKSUM = 1 << 0
FEATURE_GUEST_CHECKSUM = 1 << 1
FEATURE_MTU = 1 << 3
FEATURE_MAC = 1 << 5
FEATURE_GUEST_TSO4 = 1 << 7
FEATURE_GUEST_TSO6 = 1 << 8
FEATURE_HOST_TSO4 = 1 << 11
FEATURE_HOST_TSO6 = 1 << 12
FEATURE_MERGEABLE = 1 << 15
FEATURE_STATUS = 1 << 16
FEATURE_CONTROL = 1 << 17
FEATURE_ANNOUNCE = 1 << 21
FEATURES = (
    FEATURE_CHECKSUM | FEATURE_GUEST_CHECKSUM | FEATURE_MTU | FEATURE_MAC | FEATURE_GUEST_TSO4 | FEATURE_GUEST_TSO6
    | FEATURE_HOST_TSO4 | FEATURE_HOST_TSO6 | FEATURE_MERGEABLE | FEATURE_STATUS | FEATURE_CONTROL | FEATURE_ANNOUNCE
)  # fmt: skip

RECEIVE = 0
TRANSMIT = 1
CONTROL = 2

STATUS_LINK_UP = 1
STATUS_ANNOUNCE = 2
CONTROL_OK = 0
CONTROL_ERROR = 1
COMMAND_ANNOUNCED = (3, 0)  # VIRTIO_NET_CTRL_ANNOUNCE, VIRTIO_NET_CTRL_ANNOUNCE_ACK

LEAST_MTU = 68
OLD_HEADER_SIZE = 10
_COUNT = 10  # where the header says over how many chains a packet goes

RESTING_SECONDS = 0.05
INLINE_MESSAGES = 64
"""Messages that one notification sends on the hart's own thread; a guest's queue is rarely longer."""
BATCH_MESSAGES = 16
BATCH_BYTES = 256 << 10
"""What is received between two interrupts: less would be more interrupts, more would let the guest wait."""
SILENCE_SECONDS = 0.0001
"""A frame that comes after such a silence is most likely the only one, and somebody waits for it: poll(2) tells if not.
To look for a second one in vain would cost 8 µs, with the interpreter in this thread's hands and not in the hart's."""

_put_count = struct.Struct("<H").pack_into
_configuration = struct.Struct("<6sHHH")  # mac, status, max_virtqueue_pairs, mtu


class VirtioNet(VirtioDevice):
    """A network card with address `mac` (6 bytes). Without a `backend` its cable is not plugged in.

    `lost` is called when the other end of the wire is gone, from the device's thread, which may be kept busy: the link
    is down then, and `reattach` plugs in another backend, from any thread. The device closes its backends.
    """

    device_id = 1
    queue_sizes = (256, 256, 64)

    def __init__(
        self, mac: bytes, backend: NetBackend | None = None, *, mtu: int = 1500, lost: Callable[[], None] | None = None
    ) -> None:
        if len(mac) != 6 or mac[0] & 1:
            raise ValueError(f"a network card has an address of 6 bytes that is no group's, not {mac!r}")
        if not LEAST_MTU <= mtu <= 0xFFFF:
            raise ValueError(f"the MTU must be {LEAST_MTU} to 65535, not {mtu}")
        super().__init__()
        self.mac = bytes(mac)
        self.mtu = mtu
        self.features = FEATURES
        self.received = self.sent = self.dropped = 0
        """Frames to the guest, from the guest, and those of either way that were dropped."""
        self._backend = backend
        self._old_backends: list[NetBackend] = []
        self._lost = lost
        self._told_lost = True
        self._link_up = True
        self._announce = False
        self._offloads = Offloads(False, False, False)
        self._mergeable = False
        self._header_size = HEADER_SIZE
        self._pending: deque[memoryview] = deque()
        self._message = bytearray(LARGEST_MESSAGE + 1)
        self._view = memoryview(self._message)
        self._blocked = False  # the wire had no room
        self._deaf = True  # the thread does not wait for frames
        self._again = False  # somebody had something to send and found the lock taken
        self._closed = False
        self._received_at = 0.0  # when the last batch was done
        self._waker = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._thread = threading.Thread(target=self._work, name="celaje-virtio-net", daemon=True)
        self._thread.start()

    # --- the wire ---

    @property
    def link_is_up(self) -> bool:
        """What the guest is told: the cable is plugged in, and nobody holds the link down."""
        return self._link_up and self._backend is not None

    def set_link(self, up: bool) -> None:
        """Hold the link down, or let it be up again. From any thread."""
        with self.lock:
            before, self._link_up = self.link_is_up, up
            self._tell_of_link(before)
        self._wake()

    def reattach(self, backend: NetBackend | None) -> None:
        """Plug the cable into another `backend`, or out. What was under way is lost. From any thread, also too late."""
        with self.lock:
            if self._closed:
                if backend is not None:
                    backend.close()
                return
            self._plug(backend)
            self._wake()

    def announce(self) -> None:
        """Ask the guest to tell its network where it is (5.1.6.5.4), as after a move. From any thread."""
        with self.lock:
            self._announce = True
            self._tell()
        self._send_again()

    def _plug(self, backend: NetBackend | None) -> None:
        before = self.link_is_up
        if self._backend is not None:
            self._old_backends.append(self._backend)  # the thread may sleep on it: it closes it when it has looked up
        self._backend = backend
        self._told_lost = True
        self._blocked = False
        self._pending.clear()
        self._tell_of_link(before)

    def _tell_of_link(self, before: bool) -> None:
        if before != self.link_is_up:
            self._announce = self.link_is_up
            self._tell()

    def _tell(self) -> None:
        if hasattr(self, "transport"):  # no board has it yet
            self.transport.configuration_changed()

    def _lose(self, reason: str) -> None:
        log.info("network card %s lost its link: %s", self.mac.hex(":"), reason)
        self._plug(None)
        self._told_lost = False
        self._wake()

    # --- configuration (5.1.4) ---

    def configuration(self) -> bytes:
        """The configuration space as it stands now."""
        status = STATUS_LINK_UP if self.link_is_up else 0
        if self._announce and self.negotiated & FEATURE_ANNOUNCE:
            status |= STATUS_ANNOUNCE
        return _configuration.pack(self.mac, status, 1, self.mtu)

    def start(self, queues: Sequence[Queue | None], negotiated: int) -> None:
        with self.lock:
            checksum = bool(negotiated & FEATURE_GUEST_CHECKSUM)
            self._offloads = Offloads(
                checksum,
                checksum and bool(negotiated & FEATURE_GUEST_TSO4),
                checksum and bool(negotiated & FEATURE_GUEST_TSO6),
            )
            self._mergeable = bool(negotiated & FEATURE_MERGEABLE)
            modern = negotiated & (FEATURE_VERSION_1 | FEATURE_MERGEABLE)
            self._header_size = HEADER_SIZE if modern else OLD_HEADER_SIZE
        super().start(queues, negotiated)

    def start_queue(self, index: int, queue: Queue) -> None:
        super().start_queue(index, queue)
        self.notify_all()  # also the other queue's hart may have found the lock taken

    # --- whose thread does it ---

    def notify(self, index: int) -> None:
        """Send what can be sent at once, on the hart's thread; wake the device's if it waits for buffers."""
        if index == RECEIVE:
            if self._deaf:
                self._wake()
        elif index == CONTROL:
            super().notify(index)
            self._send_again()
        elif not self._blocked:
            self._again = True
            self._send_again()

    def _send_again(self) -> None:
        while self._again and self.lock.acquire(blocking=False):
            try:
                self._again = False
                self.serve_guarded(TRANSMIT)
            finally:
                self.lock.release()

    def serve(self, index: int, queue: Queue) -> None:
        if index == TRANSMIT:
            self._transmit(queue, INLINE_MESSAGES)
        elif index == CONTROL:
            self._control(queue)

    def _wake(self) -> None:
        os.eventfd_write(self._waker, 1)

    def _work(self) -> None:
        """The device's thread."""
        poll = select.poll()
        poll.register(self._waker, select.POLLIN)
        watched: NetBackend | None = None
        number = mask = -1
        while not self._closed:
            backend, wanted, more = self._look()
            if self._again:
                self._send_again()
            if backend is not watched or wanted != mask:
                if watched is not None:
                    poll.unregister(number)
                if backend is not None:  # also where nothing is wanted: its end is told all the same
                    number = backend.fileno()
                    poll.register(number, wanted)
                watched, mask = backend, wanted
            if self._old_backends:
                self._close_old_backends()
            if not self._told_lost:
                self._told_lost = True
                if self._lost is not None:
                    self._lost()
            elif not more:
                found = dict(poll.poll())
                if found.pop(self._waker, 0):
                    os.eventfd_read(self._waker)
                    continue  # the guest may have given buffers meanwhile, for what came before the end of the wire
                for events in found.values():
                    if events & (select.POLLHUP | select.POLLERR) and not mask & select.POLLIN:
                        self._hung_up(watched)  # otherwise who receives finds out, after what has still come

    def _hung_up(self, backend: NetBackend | None) -> None:
        with self.lock:
            resting = self.at_rest
            if backend is not None and backend is self._backend and not resting:
                self._lose("its other end has gone")
        if resting:  # the guest is told nothing now, and poll would say the same again at once
            time.sleep(RESTING_SECONDS)

    def _close_old_backends(self) -> None:
        while self._old_backends:
            self._old_backends.pop().close()

    def _look(self) -> tuple[NetBackend | None, int, bool]:
        """Do what there is to do: (what to wait for, which events of poll(2), whether there is more to do now)."""
        with self.lock:
            wanted, more = 0, False
            queue = self.queues[RECEIVE]
            if not self.at_rest:
                try:
                    if queue is not None:
                        more = self._receive(queue)
                except MalformedQueue as error:
                    self.fail(str(error))
                if self._blocked:
                    self._blocked = False
                    self.serve_guarded(TRANSMIT)
                if self._blocked:
                    wanted |= select.POLLOUT
                if self.queues[RECEIVE] is not None and not self._pending:
                    wanted |= select.POLLIN
            self._deaf = not wanted & select.POLLIN
            return self._backend, wanted, more and not self.halting

    # --- from the guest (5.1.6.2) ---

    def _transmit(self, queue: Queue, budget: int) -> None:
        done: list[tuple[Chain, int]] = []
        backend = self._backend if self._link_up else None
        while True:
            chain = queue.pop()
            if chain is None:
                if queue.rearm():
                    continue
                break
            if chain.writable or (length := total(chain.readable)) < self._header_size:
                raise MalformedQueue("a packet to send that is shorter than its header, or in a buffer to be written")
            if backend is None or not self._header_size + SMALLEST_FRAME <= length <= LARGEST_MESSAGE:
                self.dropped += 1
            else:
                buffers = chain.readable if self._header_size == HEADER_SIZE else _with_new_header(chain.readable)
                try:
                    if not backend.send(buffers):
                        queue.rewind()
                        self._blocked = True
                        self._wake()
                        break
                    self.sent += 1
                except LinkLost as error:
                    self._lose(str(error))
                    backend = None
            done.append((chain, 0))
            if len(done) == budget or self.halting:
                self._blocked = True  # the device's thread goes on with it
                self._wake()
                break
        if done:
            queue.push_together(done)
        if queue.interrupt_due():
            self.transport.interrupt()

    # --- to the guest (5.1.6.4) ---

    def _receive(self, queue: Queue) -> bool:
        """Give the guest what has come, up to a batch. Whether there may be more."""
        messages = size = 0
        most = 1 if time.monotonic() - self._received_at > SILENCE_SECONDS else BATCH_MESSAGES
        try:
            while messages < most and size < BATCH_BYTES and not self.halting:
                if not self._pending and not self._take_message():
                    return False
                while self._pending:
                    message = self._pending[0]
                    if not self._deliver(queue, message):
                        return False
                    self._pending.popleft()
                    messages += 1
                    size += len(message)
                    # Who waits for an answer gets it before it is known whether there is more.
                    if messages == 1 and queue.interrupt_due():
                        self.transport.interrupt()
            return most > 1
        finally:
            if queue.interrupt_due():
                self.transport.interrupt()
            self._received_at = time.monotonic()

    def _take_message(self) -> bool:
        """Take the next message off the wire into `_pending`, in the form that the driver wants. False: none."""
        backend = self._backend
        if backend is None:
            return False
        try:
            length = backend.receive_into(self._message)
        except LinkLost as error:
            self._lose(str(error))
            return False
        if length is None:
            return False
        if not self._link_up:
            self.dropped += 1
            return True
        message = self._view[:length]
        try:
            flags, gso_type, *_ = checked(message)
            if self._offloads.accept(flags, gso_type):
                self._pending.append(message)
            else:
                self._pending.extend(map(memoryview, adapt(message, self._offloads)))
        except MalformedFrame:
            self.dropped += 1
        return True

    def _deliver(self, queue: Queue, message: memoryview) -> bool:
        """Put `message` into buffers of the guest's. False if there are not enough: it waits for more."""
        skipped = HEADER_SIZE - self._header_size
        size, room = len(message) - skipped, 0
        chains: list[Chain] = []
        while room < size:
            chain = queue.pop()
            if chain is None:
                self._deaf = True
                if queue.rearm():
                    continue
                queue.rewind(len(chains))
                return False
            length = total(chain.writable)
            if chain.readable or length < self._header_size:
                raise MalformedQueue("a receive buffer with no room for a header, or that the device may only read")
            chains.append(chain)
            room += length
            if not self._mergeable:
                break
        if room < size:
            queue.rewind()
            self.dropped += 1
            return True
        self.received += 1
        queue.push_together(_spread(message, skipped, chains))
        return True

    # --- commands (5.1.6.5) ---

    def _control(self, queue: Queue) -> None:
        """Each command is a class and a number, to be read, and a byte for the answer, to be written."""
        for chain in queue.chains():
            room = total(chain.writable)
            if not room or total(chain.readable) < 2:
                raise MalformedQueue("a command of fewer than two bytes, or without room for its answer")
            command = b"".join(bytes(buffer[:2]) for buffer in chain.readable)[:2]
            answer = CONTROL_ERROR
            if tuple(command) == COMMAND_ANNOUNCED and self.negotiated & FEATURE_ANNOUNCE:
                self._announce = False
                answer = CONTROL_OK
            # The answer is the last byte; what a class of commands that is not offered wants before it stays as it is.
            chain.writable[-1][-1] = answer
            queue.push(chain, 1 if room == 1 else 0)
            if self.halting:
                break
        if queue.interrupt_due():
            self.transport.interrupt()

    # --- lifecycle ---

    def resume(self) -> None:
        super().resume()
        self._wake()

    def forget(self) -> None:
        """A reset: frames in hand are gone, and the link is what it was."""
        self._pending.clear()
        self._blocked = False
        self._announce = False

    def forget_queue(self, index: int) -> None:
        if index == RECEIVE:
            self._pending.clear()
        elif index == TRANSMIT:
            self._blocked = False

    def close(self) -> None:
        """End the thread, close the backend."""
        with self.lock:
            self._closed = True
        self._wake()
        self._thread.join()
        with self.lock:
            backend, self._backend = self._backend, None
        if backend is not None:
            backend.close()
        self._close_old_backends()
        os.close(self._waker)

    def save(self) -> SavedState:
        """What the guest knows of its card. The link is the machine's that it is restored in."""
        return {"mac": self.mac, "mtu": self.mtu}

    def restore(self, state: SavedState) -> None:
        """Put back what `save` gave, and have the guest announce itself. ValueError names what does not fit."""
        refuse_unknown(state, {"mac", "mtu"})
        if state["mac"] != self.mac:
            raise ValueError(f"the saved network card has the address {state['mac']!r}, this one {self.mac!r}")
        if saved_number(state, "mtu", 1 << 16) != self.mtu:
            raise ValueError(f"the saved network card has an MTU of {state['mtu']!r}, this one of {self.mtu}")
        self._announce = True
        self._tell()


def _spread(message: memoryview, skipped: int, chains: list[Chain]) -> list[tuple[Chain, int]]:
    """Copy `message` without its first `skipped` bytes into `chains`, which have room for it: (chain, bytes in it)."""
    if skipped:  # an old driver's header is the new one without its last field
        message = memoryview(bytes(message[:OLD_HEADER_SIZE]) + message[HEADER_SIZE:])
    else:
        _put_count(message, _COUNT, len(chains))
    at, size = 0, len(message)
    done: list[tuple[Chain, int]] = []
    for chain in chains:
        start = at
        for buffer in chain.writable:
            end = at + len(buffer)
            if end >= size:
                buffer[: size - at] = message[at:]
                at = size
                break
            buffer[:] = message[at:end]
            at = end
        done.append((chain, at - start))
    return done


def _with_new_header(buffers: Sequence[memoryview]) -> list[bytes | memoryview]:
    """A packet of an old driver's, with the header's last field put in."""
    rest = OLD_HEADER_SIZE
    result: list[bytes | memoryview] = []
    for buffer in buffers:
        if 0 < rest <= len(buffer):
            result += [buffer[:rest], bytes(HEADER_SIZE - OLD_HEADER_SIZE), buffer[rest:]]
        else:
            result.append(buffer)
        rest -= len(buffer)
    return result
