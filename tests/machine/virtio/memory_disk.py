"""A disk in memory that can fail, be slow, and grow; it notes what is asked of it."""

from __future__ import annotations

import threading

from celaje.machine.virtio.block_backend import Buffers, total
from tests.machine.virtio.driver import PATIENCE


class MemoryDisk:
    """`sectors` sectors; sector n holds its number's eight bytes again and again."""

    def __init__(self, sectors: int = 256, *, read_only: bool = False, serial: bytes = b"vol0123456789abcdef0") -> None:
        self.data = bytearray(b"".join(number.to_bytes(8, "little") * 64 for number in range(sectors)))
        self.read_only = read_only
        self.serial = serial
        self.failure: Exception | None = None
        self.at_hand = True
        """Whether reads need not wait."""
        self.writes_wait = False
        """Whether writes wait for somebody else than the host."""
        self.flushes = 0
        self.discarded: list[tuple[int, int]] = []
        self.zeroed: list[tuple[int, int, bool]] = []
        self.closed = False
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        """Something that waits has begun."""

    @property
    def size(self) -> int:
        return len(self.data)

    def grow(self, sectors: int) -> None:
        self.data += bytes(512 * sectors)

    def _begin(self) -> None:
        self.entered.set()
        assert self.gate.wait(PATIENCE)
        assert not self.closed
        if self.failure:
            raise self.failure

    def readinto(self, buffers: Buffers, offset: int) -> None:
        self._begin()
        for buffer in buffers:
            buffer[:] = self.data[offset : offset + len(buffer)]
            offset += len(buffer)

    def readinto_at_once(self, buffers: Buffers, offset: int) -> bool:
        if self.at_hand and not self.failure:
            for buffer in buffers:
                buffer[:] = self.data[offset : offset + len(buffer)]
                offset += len(buffer)
        return self.at_hand and not self.failure

    def write(self, buffers: Buffers, offset: int) -> None:
        self._begin()
        assert offset + total(buffers) <= len(self.data)
        for buffer in buffers:
            self.data[offset : offset + len(buffer)] = buffer
            offset += len(buffer)

    def writes_at_once(self, offset: int, length: int) -> bool:
        return not self.writes_wait

    def flush(self) -> None:
        self._begin()
        self.flushes += 1

    def discard(self, offset: int, length: int) -> None:
        self._begin()
        self.discarded.append((offset, length))

    def write_zeroes(self, offset: int, length: int, may_unmap: bool) -> None:
        self._begin()
        self.zeroed.append((offset, length, may_unmap))
        self.data[offset : offset + length] = bytes(length)

    def close(self) -> None:
        self.closed = True


def pattern(sector: int, count: int = 1) -> bytes:
    """What a fresh disk holds at `sector`."""
    return b"".join(number.to_bytes(8, "little") * 64 for number in range(sector, sector + count))
