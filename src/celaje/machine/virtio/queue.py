"""The split virtqueue, from the device's side (virtio 1.2, 2.7).

Three areas in guest memory that the driver chose. All of it is hostile input: the driver may break every rule, and
another hart may change the areas while they are read. So each field is read exactly once, into Python, and judged
there; what a descriptor points to is bounds-checked when its window is made; positions that matter to the device (the
next entry to take, the next to give back) are kept here and never read back from the guest. Whatever is wrong becomes
`MalformedQueue`, and nothing else leaves this module.

    descriptor table  16 bytes each   | address le64 | length le32 | flags le16 | next le16 |
    available ring    6 + 2 n bytes   | flags le16 | index le16 | head le16 x n | used_event le16 |
    used ring         6 + 8 n bytes   | flags le16 | index le16 | (head le32, length le32) x n | avail_event le16 |

Memory ordering. The driver is another thread, perhaps on a weakly ordered host, and its fences pair with ours:

    take:   read available.index; fence; read the head and the descriptors        (else stale descriptors are read)
    give:   write the used element; fence; write used.index                       (else a stale element is read)
    signal: write used.index; fence; read used_event or available.flags           (else an interrupt is lost)
    rearm:  write avail_event or used.flags; fence; read available.index          (else a notification is lost)

The last two order a store before a later load, which even x86 does not do by itself. Python has no fence, but its locks
are made of one: releasing and taking again a lock that nobody else wants is a release followed by an acquire, and that
is a full barrier on x86 (locked instructions) and on ARMv8 (an acquire stays behind an earlier release), for 60 ns.

The 16-bit indices are read and written through native 16-bit views, so that no half of one is ever seen. The host is
little-endian, as every host for which celaje generates code.
"""

from __future__ import annotations

import struct
import sys
import threading
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from celaje.engine.memory import OutOfGuestMemory
from celaje.machine.memory_map import Memory
from celaje.scatter import Windows

if sys.byteorder != "little":
    raise ImportError("virtqueues are little-endian and so must the host be; this host is big-endian")

DESCRIPTOR_NEXT = 1
DESCRIPTOR_WRITE = 2
DESCRIPTOR_INDIRECT = 4
AVAILABLE_NO_INTERRUPT = 1
USED_NO_NOTIFY = 1

DESCRIPTOR_SIZE = 16
IN_ORDER = 16
"""Indirect tables of so many descriptors are judged as a whole where they can be, up to IN_ORDER_AT_MOST."""
IN_ORDER_AT_MOST = 1024
MAX_CHAIN_BYTES = 1 << 32
"""2.7.4: a driver never offers more in one chain, and a used length could not say more."""

_descriptor = struct.Struct("<QIHH").unpack_from
_LINKS_TO_READ, _LINKS_TO_WRITE = (
    b"".join(struct.pack("<HH", flags, following) for following in range(1, IN_ORDER_AT_MOST + 1))
    for flags in (DESCRIPTOR_NEXT, DESCRIPTOR_NEXT | DESCRIPTOR_WRITE)
)
_put_used_element = struct.Struct("<II").pack_into


def _first_to_write(links: bytes) -> int:
    """Before which descriptor of an indirect table those to write begin, if the table is in order."""
    halves = memoryview(links).cast("H")
    flags = halves[::2].tobytes()
    at = flags.find(DESCRIPTOR_NEXT | DESCRIPTOR_WRITE)
    return at // 2 if at >= 0 else len(flags) // 2 - 1


class MalformedQueue(Exception):
    """The driver broke a rule of the queue or of the device's requests. Caught by the device that serves the queue."""


@dataclass(slots=True)
class Chain:
    """One request: buffers that the device may read, then buffers that it may write, none of them empty.

    `changed` are the writable buffers as they were given: guest-physical addresses and lengths, or windows.
    """

    head: int
    readable: list[memoryview] | Windows
    writable: list[memoryview] | Windows
    changed: list[tuple[int, int]] | Windows


@dataclass(frozen=True, slots=True)
class Areas:
    """Where the driver put a queue: its size in descriptors, and three guest-physical addresses."""

    size: int
    descriptors: int
    available: int
    used: int


class Queue:
    """A queue that the driver has made ready. Served by one thread at a time; the device's lock sees to that.

    `chain_limit` is the longest chain taken, in descriptors, also through an indirect table (2.7.5.3.1 bounds both by
    the queue's size, yet Linux bounds the second only by what the device tells it, so it is the device's largest size).
    Raises MalformedQueue if the size is no power of two, an area is not aligned, or one is not in guest memory.
    """

    def __init__(
        self,
        memory: Memory,
        areas: Areas,
        *,
        chain_limit: int,
        event_index: bool = False,
        indirect: bool = False,
        taken: int = 0,
        given: int = 0,
    ) -> None:
        size = areas.size
        if not 0 < size <= chain_limit or size & (size - 1):
            raise MalformedQueue(f"a queue has a power of two up to {chain_limit} descriptors, not {size}")
        if areas.descriptors % 16 or areas.available % 2 or areas.used % 4:
            raise MalformedQueue(f"an area of the queue is not aligned: {areas}")
        try:
            self._descriptors = memory.slice(areas.descriptors, DESCRIPTOR_SIZE * size)
            self._available = memory.slice(areas.available, 6 + 2 * size).cast("H")
            self._used = memory.slice(areas.used, 6 + 8 * size)
        except OutOfGuestMemory as error:
            raise MalformedQueue(f"an area of the queue is outside memory: {error}") from None
        self._used_words = self._used.cast("H")
        self._used_at = (areas.used, 6 + 8 * size)
        self._memory = memory
        self._size = size
        self._mask = size - 1
        self._chain_limit = chain_limit
        self._event_index = event_index
        self._indirect = indirect
        self._used_event = 2 + size
        self._available_event = 2 + 4 * size
        self.taken = taken
        """Chains taken so far, modulo 65536: the index of the next entry of the available ring."""
        self.given = given
        """Chains given back so far, modulo 65536: what used.index says."""
        self._offered = taken
        self._considered = given
        self._armed = True
        self._fence = threading.Lock()
        self._fence.acquire()

    def pop(self) -> Chain | None:
        """The next chain that the driver made available, or None. Raises MalformedQueue."""
        taken = self.taken
        if taken == self._offered:
            offered = self._available[1]
            if offered == taken:
                return None
            if (offered - taken) & 0xFFFF > self._size:
                raise MalformedQueue(f"available index {offered} is more than {self._size} beyond {taken}")
            self._offered = offered
            self._fence.release()
            self._fence.acquire()
        if self._armed:
            self._armed = False
            # With event index it is enough to leave avail_event where it is: the driver has passed it already.
            if not self._event_index:
                self._used_words[0] = USED_NO_NOTIFY
        head = self._available[2 + (taken & self._mask)]
        if head >= self._size:
            raise MalformedQueue(f"available entry {taken & self._mask} names descriptor {head} of {self._size}")
        chain = self._walk(head)
        self.taken = (taken + 1) & 0xFFFF
        return chain

    def _walk(self, head: int) -> Chain:
        table, count, index, remaining = self._descriptors, self._size, head, self._size
        in_indirect = False
        total = 0
        window = self._memory.slice
        readable: list[memoryview] = []
        writable: list[memoryview] = []
        changed: list[tuple[int, int]] = []
        try:
            while True:
                address, length, flags, following = _descriptor(table, index * DESCRIPTOR_SIZE)
                if flags & DESCRIPTOR_INDIRECT:
                    count = self._indirect_count(length, flags, in_indirect)
                    if IN_ORDER <= count <= IN_ORDER_AT_MOST and not readable and not writable:
                        chain = self._in_order(head, self._memory.read(address, length))
                        if chain is not None:
                            return chain
                    table, index, in_indirect = window(address, length), 0, True
                    remaining = min(count, self._chain_limit - len(readable) - len(writable))
                    continue
                if length:
                    total += length
                    if flags & DESCRIPTOR_WRITE:
                        writable.append(window(address, length))
                        changed.append((address, length))
                    elif writable:
                        raise MalformedQueue(f"descriptor {index}: a readable buffer after a writable one")
                    else:
                        readable.append(window(address, length))
                if not flags & DESCRIPTOR_NEXT:
                    break
                index = following
                remaining -= 1
                if index >= count:
                    raise MalformedQueue(f"a descriptor's next is {index}, of {count}")
                if remaining <= 0:
                    raise MalformedQueue(f"the chain from descriptor {head} is a loop or too long")
        except OutOfGuestMemory as error:
            raise MalformedQueue(f"a descriptor of the chain from {head}: {error}") from None
        if total > MAX_CHAIN_BYTES:
            raise MalformedQueue(f"the chain from descriptor {head} has {total} bytes, more than 4 GiB")
        return Chain(head, readable, writable, changed)

    def _in_order(self, head: int, table: bytes) -> Chain | None:
        """The chain of an indirect table that is as drivers make them: every descriptor followed by the next in the
        table, none empty, those to write last. Judged column by column, which for the 256 pages of a mebibyte takes a
        fraction of one by one. None for any other table: it has to be walked."""
        count = len(table) // DESCRIPTOR_SIZE
        links = array("I", table)[3::4].tobytes()  # | flags le16 | next le16 | of each
        last = int.from_bytes(links[-4:-2], "little")  # what follows the last one means nothing
        if last == 0:
            to_read = count
        elif last == DESCRIPTOR_WRITE:
            to_read = _first_to_write(links)
        else:
            return None
        expected = _LINKS_TO_READ[: 4 * to_read] + _LINKS_TO_WRITE[4 * to_read : 4 * count]
        if links[:-4] != expected[: 4 * (count - 1)]:
            return None
        windows = self._memory.windows(table)
        if windows is None or windows.total > MAX_CHAIN_BYTES:
            return None
        return Chain(head, windows[:to_read], windows[to_read:], windows[to_read:])

    def _indirect_count(self, length: int, flags: int, nested: bool) -> int:
        """How many descriptors an indirect table of `length` bytes has (2.7.5.3). The table's WRITE flag is ignored."""
        if not self._indirect:
            raise MalformedQueue("an indirect descriptor, which was not negotiated")
        if nested:
            raise MalformedQueue("an indirect descriptor inside an indirect table")
        if flags & DESCRIPTOR_NEXT:
            raise MalformedQueue("an indirect descriptor that has a next one")
        if length == 0 or length % DESCRIPTOR_SIZE or length > DESCRIPTOR_SIZE * self._chain_limit:
            raise MalformedQueue(f"an indirect table of {length} bytes; at most {self._chain_limit} descriptors of 16")
        return length // DESCRIPTOR_SIZE

    @property
    def exhausted(self) -> bool:
        """Whether every chain that has been seen is taken. There may be new ones, as `rearm` finds out as well."""
        return self.taken == self._offered

    def rewind(self, count: int = 1) -> None:
        """Give the `count` chains that were popped last back to the available ring, as if they had never been taken."""
        self.taken = (self.taken - count) & 0xFFFF

    def push(self, chain: Chain, length: int) -> None:
        """Give `chain` back. At least the first `length` bytes of its writable buffers are written (2.7.8.2)."""
        self.push_together(((chain, length),))

    def push_together(self, chains: Sequence[tuple[Chain, int]]) -> None:
        """Give several chains back, as `push` does; the driver sees all of them or none."""
        memory = self._memory
        used, mask, given = self._used, self._mask, self.given
        for chain, length in chains:
            if isinstance(chain.changed, Windows):
                memory.mark_windows(chain.changed)
            else:
                for address, size in chain.changed:
                    memory.mark_dirty(address, size)
            _put_used_element(used, 4 + 8 * (given & mask), chain.head, length)
            given += 1
        self._fence.release()
        self._fence.acquire()
        self.given = given & 0xFFFF
        self._used_words[1] = self.given
        memory.mark_dirty(*self._used_at)

    def interrupt_due(self) -> bool:
        """Whether the driver wants an interrupt for what was given back since this was last asked (2.7.7)."""
        given, considered = self.given, self._considered
        if given == considered:
            return False
        self._considered = given
        self._fence.release()
        self._fence.acquire()
        if self._event_index:
            event = self._available[self._used_event]
            return (given - event - 1) & 0xFFFF < (given - considered) & 0xFFFF
        return not self._available[0] & AVAILABLE_NO_INTERRUPT

    def rearm(self) -> bool:
        """Ask the driver for a notification of the next chain; True if one came before it could see that (2.7.10)."""
        self._armed = True
        if self._event_index:
            self._used_words[self._available_event] = self.taken
        else:
            self._used_words[0] = 0
        self._memory.mark_dirty(*self._used_at)
        self._fence.release()
        self._fence.acquire()
        return self._available[1] != self.taken

    def release(self) -> None:
        """Let go of guest memory. The queue is not used afterwards."""
        for window in (self._used_words, self._used, self._available, self._descriptors):
            window.release()

    def chains(self) -> Iterator[Chain]:
        """Every chain there is; at the end notifications are on again. Raises MalformedQueue."""
        while True:
            chain = self.pop()
            while chain is not None:
                yield chain
                chain = None if self.exhausted else self.pop()
            if not self.rearm():
                return
