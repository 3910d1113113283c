"""A disk whose content is read here: a volume, a raw file. What stands on it is a guest's: nothing of it is trusted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from celaje.errors import ImageError


class DiskSource(Protocol):
    """A disk that can be read: a volume, a raw file. Offsets and lengths are multiples of 512 bytes."""

    @property
    def size(self) -> int:
        """Bytes."""

    def readinto(self, buffers: Sequence[memoryview], offset: int) -> None:
        """Fill `buffers` with what is stored from `offset`."""


def read(disk: DiskSource, offset: int, length: int) -> bytes:
    """`length` bytes of `disk` from `offset`. ImageError where it has none there."""
    if offset < 0 or length < 0 or offset + length > disk.size:
        raise ImageError(f"the disk has {disk.size} bytes; what is on it names bytes {offset} to {offset + length}")
    buffer = bytearray(length)
    if length:
        disk.readinto([memoryview(buffer)], offset)
    return bytes(buffer)
