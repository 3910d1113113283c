"""What devices see of guest memory: one address space, made of one or several slots.

A device takes any `Memory`: a `GuestMemory` where the machine has one slot, a `MemoryMap` where it has more. An access
lies in one slot or is refused, also where two slots touch: no driver's buffer straddles two memories, and a window
(`slice`) over two mappings of the host could not be made.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
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

    def windows(self, addresses: Sequence[int], lengths: Sequence[int]) -> list[memoryview] | Windows:
        """`slice` for each address and its length, at least one and none of them negative."""

    def mark_dirty(self, address: int, length: int) -> None:
        """Note that `length` bytes from `address` have changed."""

    def mark_all_dirty(self, addresses: Sequence[int], lengths: Sequence[int]) -> None:
        """`mark_dirty` for each address and its length, none of them empty."""


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

    def windows(self, addresses: Sequence[int], lengths: Sequence[int]) -> list[memoryview] | Windows:
        """`slice` for each address and its length, at least one and none of them negative."""
        lowest = min(addresses)
        index = bisect_right(self._bases, lowest) - 1
        if index >= 0 and self.slots[index].contains(lowest, max(addresses) + max(lengths) - lowest):
            return self.slots[index].windows(addresses, lengths)
        return [self.slice(address, length) for address, length in zip(addresses, lengths, strict=True)]

    def mark_all_dirty(self, addresses: Sequence[int], lengths: Sequence[int]) -> None:
        """`mark_dirty` for each address and its length, none of them empty."""
        for address, length in zip(addresses, lengths, strict=True):
            self.mark_dirty(address, length)
