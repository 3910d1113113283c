"""What a machine's console has said last, in a file of fixed size that outlives the process that writes it.

    0x0000  magic      8 bytes  "celajeR1"
    0x0008  capacity   le64     bytes of the ring, from 0x1000 on
    0x0040  slot 0     32 bytes
    0x0080  slot 1     32 bytes
              0  count  le64    bytes ever written
              8  check  24 bytes, BLAKE2b of the count
    0x1000  ring       byte n of all that was ever written is at n modulo capacity

Slots are written in turn, after the bytes that they count. So at every moment one of them is whole, whatever was torn
by a kill or a loss of power, and the whole one with the larger count is the truth but for the piece that was being
written. That piece may have overwritten the ring's oldest bytes already: the oldest PIECE bytes are nobody's.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import struct
from pathlib import Path
from types import TracebackType

from celaje.errors import HostError, InputError, NotFound

MAGIC = b"celajeR1"
CAPACITY = (1 << 20) - 4096
PIECE = 4096  # bytes that are written at once
RING = 0x1000
SLOTS = (0x40, 0x80)
CHECK_BYTES = 24

_head = struct.Struct("<8sQ")
_slot = struct.Struct(f"<Q{CHECK_BYTES}s")


def _check(count: int) -> bytes:
    return hashlib.blake2b(count.to_bytes(8, "little"), digest_size=CHECK_BYTES).digest()


class ConsoleRing:
    """The ring in the file `path`. One process writes, any number read; all methods are for one thread at a time.

    To write it is made where it is missing, or is no ring. NotFound if there is none to read, InputError if the file is
    none. HostError if the host has no room for it.
    """

    def __init__(self, path: Path, *, write: bool = False, capacity: int = CAPACITY) -> None:
        self._path = path
        flags = os.O_RDWR | os.O_CREAT if write else os.O_RDONLY
        try:
            self._descriptor = os.open(path, flags | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            raise NotFound(f"there is no console output in {path}; the machine has not started yet") from None
        except OSError as error:
            raise HostError(f"cannot open the console's ring {path}: {error.strerror}") from error
        try:
            found = self._capacity_found()
            if write and found != capacity:
                self._make(capacity)
            elif not found:
                raise InputError(f"{path} is no console ring; `celaje vm start NAME` makes it anew")
            self.capacity = capacity if write else found
            self._next_slot = 0
            self.count = self._read_count()
        except OSError as error:
            self.close()
            raise HostError(f"cannot keep console output in {path}: {error.strerror}; free some space there") from error
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> ConsoleRing:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    @property
    def closed(self) -> bool:
        """Whether it can be asked no more."""
        return self._descriptor < 0

    def _capacity_found(self) -> int:
        """The capacity of a ring that is there, 0 where there is none."""
        head = os.pread(self._descriptor, _head.size, 0)
        if len(head) < _head.size:
            return 0
        magic, capacity = _head.unpack(head)
        whole = os.fstat(self._descriptor).st_size == RING + capacity
        return int(capacity) if magic == MAGIC and capacity > PIECE and whole else 0

    def _make(self, capacity: int) -> None:
        os.ftruncate(self._descriptor, 0)
        os.ftruncate(self._descriptor, RING + capacity)
        # A disk that is full later shall not take the console away.
        with contextlib.suppress(OSError):
            os.posix_fallocate(self._descriptor, 0, RING + capacity)
        os.pwrite(self._descriptor, _head.pack(MAGIC, capacity), 0)

    def _read_count(self) -> int:
        """Bytes ever written; sets which slot is written next."""
        best = 0
        for number, place in enumerate(SLOTS):
            data = os.pread(self._descriptor, _slot.size, place)
            if len(data) == _slot.size:
                count, check = _slot.unpack(data)
                if count > best and check == _check(count):
                    best, self._next_slot = count, 1 - number
        return best

    @property
    def oldest(self) -> int:
        """The first byte, counted from all that was ever written, that can still be read."""
        return max(0, self.count - (self.capacity - PIECE))

    def refresh(self) -> None:
        """Look how far another process has written."""
        self.count = max(self.count, self._read_count())

    def append(self, data: bytes) -> None:
        """Write `data` after what is there. OSError where the host fails."""
        view = memoryview(data)
        while view:
            place = self.count % self.capacity
            piece = view[: min(PIECE, self.capacity - place)]
            _write_whole(self._descriptor, piece, RING + place)
            count = self.count + len(piece)
            _write_whole(self._descriptor, memoryview(_slot.pack(count, _check(count))), SLOTS[self._next_slot])
            self._next_slot = 1 - self._next_slot
            self.count = count
            view = view[len(piece) :]

    def read(self, position: int, limit: int) -> tuple[int, bytes]:
        """(position, data): up to `limit` bytes from `position`, or from the oldest if that is later.

        While another thread or process writes, the answer is whole if `oldest`, after a `refresh`, is not beyond it.
        """
        position = max(position, self.oldest)
        length = min(limit, self.count - position)
        if length <= 0:
            return position, b""
        place = position % self.capacity
        first = min(length, self.capacity - place)
        data = os.pread(self._descriptor, first, RING + place)
        if first < length:
            data += os.pread(self._descriptor, length - first, RING)
        return position, data

    def tail(self, limit: int) -> bytes:
        """The last bytes that were written, at most `limit`."""
        return self.read(max(0, self.count - limit), limit)[1]


def _write_whole(descriptor: int, data: memoryview, offset: int) -> None:
    while data:
        done = os.pwrite(descriptor, data, offset)
        data, offset = data[done:], offset + done
