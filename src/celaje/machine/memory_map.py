"""What devices see of guest memory: one address space, made of one or several slots.

A device takes any `Memory`: a `GuestMemory` where the machine has one slot, a `MemoryMap` where it has more. An access
lies in one slot or is refused, also where two slots touch: no driver's buffer straddles two memories, and a window
(`slice`) over two mappings of the host could not be made.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from typing import Protocol

from celaje.engine.memory import GuestMemory, OutOfGuestMemory
from celaje.scatter import Windows


class Memory(Protocol):
    """Guest-physical memory as a device may use it. Addresses and lengths are in bytes.

    All but `contains` raise `OutOfGuestMemory` for what is not wholly inside.
    """

    def contains(self, address: int, length: int = 1) -> bool:
        """Whether `length` bytes from `address` are all inside."""

    def read(self, address: int, length: int) -> bytes:
        """`length` bytes from `address`."""

    def write(self, address: int, data: bytes | bytearray | memoryview) -> None:
        """Put `data` at `address` and mark its pages dirty."""

    def slice(self, address: int, length: int) -> memoryview:
        """A writable window. The caller marks what it changes as dirty, after it changed it."""

    def windows(self, table: bytes) -> Windows | None:
        """`slice` for each range of a table (16 bytes each: address le64, length le32, anything le32). None where one
        is empty or not inside, or where not all are in one slot."""

    def mark_dirty(self, address: int, length: int) -> None:
        """Note that `length` bytes from `address` have changed."""

    def mark_windows(self, windows: Windows) -> None:
        """`mark_dirty` for what `windows` gave."""


class MemoryMap:
    """Several memory slots as one address space. ValueError if two of them overlap."""

    def __init__(self, slots: Iterable[GuestMemory]) -> None:
        self.slots = tuple(sorted(slots, key=lambda slot: slot.base))
        self._bases = [slot.base for slot in self.slots]
        for lower, upper in zip(self.slots, self.slots[1:], strict=False):
            if lower.base + lower.size > upper.base:
                raise ValueError(f"memory slots at {lower.base:#x} ({lower.size:#x} bytes) and {upper.base:#x} overlap")

    def slot(self, address: int, length: int) -> GuestMemory:
        """The slot that `length` bytes from `address` lie in. Raises OutOfGuestMemory if none has them all."""
        index = bisect_right(self._bases, address) - 1
        if index < 0 or not self.slots[index].contains(address, length):
            raise OutOfGuestMemory(f"{length} bytes at {address:#x} are not in one slot of guest memory")
        return self.slots[index]

    def contains(self, address: int, length: int = 1) -> bool:
        """Whether `length` bytes from `address` are all inside one slot."""
        index = bisect_right(self._bases, address) - 1
        return index >= 0 and self.slots[index].contains(address, length)

    def read(self, address: int, length: int) -> bytes:
        """`length` bytes from `address`."""
        return self.slot(address, length).read(address, length)

    def write(self, address: int, data: bytes | bytearray | memoryview) -> None:
        """Put `data` at `address` and mark its pages dirty."""
        self.slot(address, len(data)).write(address, data)

    def slice(self, address: int, length: int) -> memoryview:
        """A writable window. The caller marks what it changes as dirty, after it changed it."""
        return self.slot(address, length).slice(address, length)

    def mark_dirty(self, address: int, length: int) -> None:
        """Note that `length` bytes from `address` have changed."""
        self.slot(address, length).mark_dirty(address, length)

    def windows(self, table: bytes) -> Windows | None:
        """`slice` for each range of a table (16 bytes each: address le64, length le32, anything le32). None where one
        is empty or not inside, or where not all are in one slot."""
        index = bisect_right(self._bases, int.from_bytes(table[:8], "little")) - 1
        return self.slots[index].windows(table) if index >= 0 else None

    def mark_windows(self, windows: Windows) -> None:
        """`mark_dirty` for what `windows` gave."""
        self.slot(windows.base, 1).mark_windows(windows)
