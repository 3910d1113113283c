"""The block device (virtio 1.2, 5.2).

A request is a chain of any framing (2.7.4.1): a header the device reads, data either way, a status byte it writes.

    header   | type le32 | reserved le32 | sector le64 |
    segment  | sector le64 | sectors le32 | flags le32: 0 unmap |      of discard and write-zeroes requests
    status   | 0 OK, 1 IOERR, 2 UNSUPP |

Where the work is done. A disk can take its time, so requests are served on a thread of the device's own, and a
notification only wakes it. That costs two thread switches, while a read that the host has in its page cache takes a few
microseconds; and a boot is little else than such reads. So the notifying hart's thread first serves what can be served
without waiting: reads which the host's kernel promises not to wait for (preadv2 with RWF_NOWAIT), a bounded number of
bytes at a time. The first request that is anything else is handed to the thread; a pause puts it back into the queue.
Measured from notification to interrupt, one request at a time, from the page cache, on two busy cores: 4 KiB take
28 µs here and 62 µs through the thread, 64 KiB take 34 and 60.

A write may wait for the host's disk, and so a hart that has something to do leaves it to the thread. Most have nothing:
the guest waits for its write. So, since writes come in rows, what is notified after one is offered to the hart for when
it is idle (`offers`), and to the thread only where that is not soon, or the host has been slow. A write that waits for
more than the host (a chunk from elsewhere) is the thread's in any case: its hart would take no interrupts meanwhile.

A request that breaks the rules of this section gets IOERR or UNSUPP; one without room for a header or for a status is
no request at all, and stops the device as a malformed queue does.
"""

from __future__ import annotations

import logging
import struct
import threading
import time
from collections.abc import Callable

from celaje.machine.bus import SavedState
from celaje.machine.offers import Experience
from celaje.machine.virtio.block_backend import (
    SECTOR_SIZE,
    BlockBackend,
    failed_request,
    kind_of,
    section,
    total,
)
from celaje.machine.virtio.device import Doorbell, VirtioDevice, refuse_unknown, saved_number
from celaje.machine.virtio.framing import cut_back, cut_front
from celaje.machine.virtio.queue import Chain, MalformedQueue, Queue

log = logging.getLogger(__name__)

FEATURE_SEGMENT_MAX = 1 << 2
FEATURE_READ_ONLY = 1 << 5
FEATURE_BLOCK_SIZE = 1 << 6
FEATURE_FLUSH = 1 << 9
FEATURE_TOPOLOGY = 1 << 10
FEATURE_CONFIGURABLE_CACHE = 1 << 11
FEATURE_DISCARD = 1 << 13
FEATURE_WRITE_ZEROES = 1 << 14

TYPE_IN = 0
TYPE_OUT = 1
TYPE_FLUSH = 4
TYPE_GET_ID = 8
TYPE_DISCARD = 11
TYPE_WRITE_ZEROES = 13

STATUS_OK = 0
STATUS_IO_ERROR = 1
STATUS_UNSUPPORTED = 2

FLAG_UNMAP = 1

HEADER_SIZE = 16
SEGMENT_SIZE = 16
ID_SIZE = 20
QUEUE_SIZE = 512  # a mebibyte of 256 pages that are nowhere adjacent is one request, not two
MAX_SEGMENTS = QUEUE_SIZE - 2  # less the header and the status
MAX_RANGES = 16
MAX_RANGE_SECTORS = 1 << 22  # 2 GiB: where the host has no holes, that many zeros are written one request long
PHYSICAL_BLOCK_EXPONENT = 3  # 2 ** 3 sectors of 512 bytes: the blocks that file systems use
WRITEBACK_OFFSET = 32

INLINE_BYTES = 1 << 20
"""Bytes that one notification may read on the hart\'s own thread: a mebibyte is 150 µs of copying, and to wake the
device's thread and be interrupted by it costs a guest that waits more."""

_header = struct.Struct("<IIQ").unpack
_range = struct.Struct("<QII")
#   capacity, size_max, seg_max, geometry (cylinders, heads, sectors), blk_size,
#   topology (physical_block_exp, alignment_offset, min_io_size, opt_io_size), writeback, unused, num_queues,
#   max_discard_sectors, max_discard_seg, discard_sector_alignment,
#   max_write_zeroes_sectors, max_write_zeroes_seg, write_zeroes_may_unmap, unused
_configuration = struct.Struct("<Q II HBB I BBHI BBH III II B3x")


class VirtioBlock(VirtioDevice):
    """A disk with the contents of `backend`, which it closes at its end."""

    device_id = 2
    queue_sizes = (QUEUE_SIZE,)

    def __init__(self, backend: BlockBackend) -> None:
        super().__init__()
        self._backend = backend
        self._capacity = backend.size // SECTOR_SIZE
        self.features = FEATURE_SEGMENT_MAX | FEATURE_BLOCK_SIZE | FEATURE_TOPOLOGY
        self.features |= FEATURE_FLUSH | FEATURE_CONFIGURABLE_CACHE
        self.features |= FEATURE_READ_ONLY if backend.read_only else FEATURE_DISCARD | FEATURE_WRITE_ZEROES
        self._writeback = True
        self._reported: set[object] = set()
        self._handlers: dict[int, Callable[[Chain, int], tuple[int, int]]] = {
            TYPE_IN: self._read,
            TYPE_OUT: self._write,
            TYPE_FLUSH: self._flush,
            TYPE_GET_ID: self._get_id,
            TYPE_DISCARD: self._discard,
            TYPE_WRITE_ZEROES: self._write_zeroes,
        }
        self._handed: tuple[Chain, int, int] | None = None
        """The request that was popped last, its type and sector; the thread's, before all others."""
        self._thread_is_next = False
        """The last request was no read: the next is likely to be none either, and the hart's thread does not look."""
        self._offered = False
        self._experience = Experience()
        self._doorbell = Doorbell()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="celaje-virtio-block", daemon=True)
        self._thread.start()

    # --- configuration (5.2.4) ---

    def configuration(self) -> bytes:
        """The configuration space as it stands now."""
        return _configuration.pack(
            self._capacity, 0, MAX_SEGMENTS, 0, 0, 0, SECTOR_SIZE,
            PHYSICAL_BLOCK_EXPONENT, 0, 1 << PHYSICAL_BLOCK_EXPONENT, 0, int(self._writeback), 0, 1,
            MAX_RANGE_SECTORS, MAX_RANGES, 1 << PHYSICAL_BLOCK_EXPONENT,
            MAX_RANGE_SECTORS, MAX_RANGES, 1,
        )  # fmt: skip

    def write_configuration(self, offset: int, data: bytes) -> None:
        """The driver may choose the cache's mode, with one byte; everything else is read-only."""
        if offset == WRITEBACK_OFFSET and len(data) == 1 and self.negotiated & FEATURE_CONFIGURABLE_CACHE:
            with self.lock:
                self._writeback = data[0] != 0

    def capacity_changed(self) -> None:
        """Look at the size of the backend again, and tell the guest if it has changed (5.2.5.1). From any thread."""
        with self.lock:
            capacity = self._backend.size // SECTOR_SIZE
            if capacity == self._capacity:
                return
            self._capacity = capacity
        self.transport.configuration_changed()

    @property
    def _write_through(self) -> bool:
        """Whether a write is durable when it is done (5.2.6.2): for a driver that can neither flush nor choose."""
        if self.negotiated & FEATURE_CONFIGURABLE_CACHE:
            return not self._writeback
        return not self.negotiated & FEATURE_FLUSH

    # --- where requests are served ---

    def notify(self, index: int) -> None:
        """Serve what need not wait here, on the hart's thread; wake the device's thread for the rest."""
        if self._thread_is_next:
            if not self._offer():
                self._doorbell.ring()
        else:
            self._serve_here(self._reads_at_once)

    def _offer(self) -> bool:
        """Offer what is in the queue to the hart for when it is idle. False: it is the thread's."""
        if self._offered:  # and not taken yet: this hart has other things to do than to wait
            return False
        if not self._experience.worth_offering():
            return False
        self._offered = True  # before it is: another hart may take it up at once
        made = self.transport.offer(self._take_up)
        if not made:
            self._offered = False
        return made

    def _take_up(self, idle: bool) -> None:
        """What became of the offer, on a hart's thread."""
        self._offered = False
        if not idle:
            self._experience.was_busy()
            self._doorbell.ring()
            return
        before = time.perf_counter()
        self._serve_here(self._reads_and_writes)
        self._experience.took(time.perf_counter() - before)

    def _serve_here(self, serve: Callable[[Queue], bool]) -> None:
        """Have `serve` do on a hart's thread what it can do there; what it leaves is the thread's."""
        if not self.lock.acquire(blocking=False):
            self._doorbell.ring()  # the thread is at it; it will look again
            return
        try:
            queue = self.queues[0]
            if queue is None or self.at_rest:
                return
            try:
                finished = serve(queue)
                if queue.interrupt_due():
                    self.transport.interrupt()
            except MalformedQueue as error:
                self.fail(str(error))
                return
        finally:
            self.lock.release()
        if not finished:
            self._doorbell.ring()

    def _reads_at_once(self, queue: Queue) -> bool:
        """Serve reads that do not wait, up to INLINE_BYTES. True if the queue is empty and its notifications are on."""
        return self._serve_first(queue, writes=False)

    def _reads_and_writes(self, queue: Queue) -> bool:
        """The same, and writes to the host's page cache."""
        return self._serve_first(queue, writes=not self._write_through)

    def _serve_first(self, queue: Queue, writes: bool) -> bool:
        budget = INLINE_BYTES
        if self._handed is not None:
            return False
        while True:
            chain = queue.pop()
            if chain is None:
                if not queue.rearm():
                    return True
                continue
            kind, sector = self._unwrap(chain)
            length = total(chain.readable) if kind == TYPE_OUT else total(chain.writable) - 1
            budget -= length
            self._thread_is_next = kind != TYPE_IN
            if budget >= 0 and kind == TYPE_OUT and writes and self._writes_at_once(sector, length):
                queue.push(chain, self._answer(chain, kind, sector))
            elif not (budget >= 0 and kind == TYPE_IN and self._read_at_once(queue, chain, sector, length)):
                self._handed = chain, kind, sector
                return False
            if queue.exhausted and not queue.rearm():
                return True

    def _writes_at_once(self, sector: int, length: int) -> bool:
        """Whether a write waits for the host at most."""
        return self._backend.writes_at_once(sector * SECTOR_SIZE, length)

    def _read_at_once(self, queue: Queue, chain: Chain, sector: int, length: int) -> bool:
        """Serve a read if that does not wait. False leaves `chain` as it was."""
        if not length or not self._in_range(sector, length):
            return False
        data = chain.writable.copy()
        status = cut_back(data, 1)
        try:
            if not self._backend.readinto_at_once(data, sector * SECTOR_SIZE):
                return False
        except OSError:  # the thread tries once more, and reports it
            return False
        status[0] = STATUS_OK
        queue.push(chain, length + 1)
        return True

    def _work(self) -> None:
        """The device's thread."""
        while True:
            self._doorbell.wait()
            if self._closed:
                return
            while not self.halting and self._serve_one():
                pass

    def _serve_one(self) -> bool:
        """Serve one request; False if there is no other. The lock is given up after each, for resets and pauses."""
        with self.lock:
            return self._serve_next()

    def _serve_next(self) -> bool:
        """With the lock held: when it is given up, the request and its hold on guest memory are gone."""
        queue = self.queues[0]
        if queue is None or self.at_rest:
            return False
        try:
            if self._handed is not None:
                chain, kind, sector = self._handed
                self._handed = None
            else:
                popped = queue.pop()
                if popped is None:
                    return queue.rearm()
                chain = popped
                kind, sector = self._unwrap(chain)
            self._thread_is_next = kind != TYPE_IN
            queue.push(chain, self._answer(chain, kind, sector))
            # Last of all, since the hart that it wakes wants the interpreter at once.
            more = not queue.exhausted or queue.rearm()
            if queue.interrupt_due():
                self.transport.interrupt()
        except MalformedQueue as error:
            self.fail(str(error))
            return False
        return more

    # --- requests (5.2.6) ---

    def _unwrap(self, chain: Chain) -> tuple[int, int]:
        """Take the header off `chain`: (type, sector). What is no request raises MalformedQueue."""
        if not chain.writable:
            raise MalformedQueue("a block request without room for its status")
        kind, _, sector = _header(cut_front(chain.readable, HEADER_SIZE))
        return kind, sector

    def _answer(self, chain: Chain, kind: int, sector: int) -> int:
        """Do what `chain` asks and write its status. Returns the used length: bytes written without a gap."""
        room = total(chain.writable) - 1
        status = cut_back(chain.writable, 1)
        handler = self._handlers.get(kind)
        try:
            result, written = (STATUS_UNSUPPORTED, 0) if handler is None else handler(chain, sector)
        except Exception as error:  # the host's, or a mistake of ours: unanswered, the guest would wait for ever
            self._report(error)
            result, written = STATUS_IO_ERROR, 0
        status[0] = result
        return written + 1 if written == room else written

    def _report(self, error: Exception) -> None:
        """Tell the log, once for each kind: the guest decides how often its requests fail."""
        if (kind := kind_of(error)) not in self._reported:
            self._reported.add(kind)
            log.warning("%s", failed_request(self._backend, error))

    def _in_range(self, sector: int, length: int) -> bool:
        return length % SECTOR_SIZE == 0 and sector + length // SECTOR_SIZE <= self._capacity

    def _read(self, chain: Chain, sector: int) -> tuple[int, int]:
        length = total(chain.writable)
        if not self._in_range(sector, length):
            return STATUS_IO_ERROR, 0
        if length:
            self._backend.readinto(chain.writable, sector * SECTOR_SIZE)
        return STATUS_OK, length

    def _write(self, chain: Chain, sector: int) -> tuple[int, int]:
        length = total(chain.readable)
        if self._backend.read_only or not self._in_range(sector, length):
            return STATUS_IO_ERROR, 0
        if length:
            self._backend.write(chain.readable, sector * SECTOR_SIZE)
            if self._write_through:
                self._backend.flush()
        return STATUS_OK, 0

    def _flush(self, chain: Chain, sector: int) -> tuple[int, int]:
        if not self._backend.read_only:
            self._backend.flush()
        return STATUS_OK, 0

    def _get_id(self, chain: Chain, sector: int) -> tuple[int, int]:
        name = self._backend.serial[:ID_SIZE].ljust(ID_SIZE, b"\0")
        written = 0
        for buffer in section(chain.writable, 0, ID_SIZE):
            buffer[:] = name[written : written + len(buffer)]
            written += len(buffer)
        return STATUS_OK, written

    def _discard(self, chain: Chain, sector: int) -> tuple[int, int]:
        return self._for_ranges(chain, FEATURE_DISCARD, 0, lambda at, length, _: self._backend.discard(at, length))

    def _write_zeroes(self, chain: Chain, sector: int) -> tuple[int, int]:
        return self._for_ranges(chain, FEATURE_WRITE_ZEROES, FLAG_UNMAP, self._backend.write_zeroes)

    def _for_ranges(
        self, chain: Chain, feature: int, allowed: int, work: Callable[[int, int, bool], None]
    ) -> tuple[int, int]:
        """Check all ranges of a discard or write-zeroes request (5.2.6.2), then do them."""
        length = total(chain.readable)
        if not self.negotiated & feature:
            return STATUS_UNSUPPORTED, 0
        if not length or length % SEGMENT_SIZE or length > SEGMENT_SIZE * MAX_RANGES:
            return STATUS_IO_ERROR, 0
        ranges = list(_range.iter_unpack(b"".join(chain.readable)))
        for sector, sectors, flags in ranges:
            if flags & ~allowed:
                return STATUS_UNSUPPORTED, 0
            if sectors > MAX_RANGE_SECTORS or sector + sectors > self._capacity:
                return STATUS_IO_ERROR, 0
        for sector, sectors, flags in ranges:
            if sectors:
                work(sector * SECTOR_SIZE, sectors * SECTOR_SIZE, bool(flags & FLAG_UNMAP))
        if self._write_through:
            self._backend.flush()
        return STATUS_OK, 0

    # --- lifecycle ---

    def pause(self) -> None:
        """When this returns the device is at rest, and every request that it has not answered is in the queue."""
        super().pause()
        with self.lock:
            queue = self.queues[0]
            if self._handed is not None and queue is not None:
                queue.rewind()
            self._handed = None

    def forget_queue(self, index: int) -> None:
        """What was popped from the queue is dropped with it."""
        self._handed = None

    def forget(self) -> None:
        """A reset: the cache is a write-back one again (5.2.5.2)."""
        self._writeback = True

    def close(self) -> None:
        """End the thread, close the backend."""
        self._closed = True
        self._doorbell.ring()
        self._thread.join()
        self._backend.close()

    def save(self) -> SavedState:
        """The cache's mode, and the capacity, so that a state is not put over another disk."""
        return {"capacity": self._capacity, "writeback": int(self._writeback)}

    def restore(self, state: SavedState) -> None:
        """Put back what `save` gave. ValueError names what does not fit."""
        refuse_unknown(state, {"capacity", "writeback"})
        if state["capacity"] != self._capacity:
            raise ValueError(f"the saved disk has {state['capacity']!r} sectors, this one has {self._capacity}")
        self._writeback = bool(saved_number(state, "writeback", 2))
