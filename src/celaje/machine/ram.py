"""The board's RAM as whoever loads programs or serves firmware calls sees it: one range, whatever it is made of.

RAM is one memory slot of the engine, or, where a bare-metal program has a `tohost` doubleword, two with one page of
bytes between them that the HTIF device answers for. (Devices that move data see the slots: `memory_map`.)
"""

from __future__ import annotations

from celaje.engine.memory import PAGE_SIZE, GuestMemory, OutOfGuestMemory


class Ram:
    """`size` bytes from `base`, whole pages. `tohost` is in the page that no slot has; None: there is none such."""

    def __init__(self, base: int, size: int, tohost: int | None = None) -> None:
        self.base = base
        self.size = size
        self.page = bytearray(PAGE_SIZE)
        end = base + size
        self.page_base: int | None = None
        bounds = [(base, end)]
        if tohost is not None and base <= tohost < end:
            self.page_base = page = tohost & -PAGE_SIZE
            bounds = [(start, stop) for start, stop in ((base, page), (page + PAGE_SIZE, end)) if start < stop]
        self.slots = [GuestMemory(start, stop - start) for start, stop in bounds]

    def contains(self, address: int, length: int = 1) -> bool:
        """Whether `length` bytes from `address` are all RAM."""
        return self.base <= address and length >= 0 and address + length <= self.base + self.size

    def _pieces(self, address: int, length: int) -> list[tuple[GuestMemory | None, int, int]]:
        """What holds each part of the range, in order: a slot or (None) the page, its first address and its length."""
        if not self.contains(address, length):
            raise OutOfGuestMemory(f"{length} bytes at {address:#x} are not in RAM")
        holders: list[tuple[GuestMemory | None, int, int]] = [(slot, slot.base, slot.size) for slot in self.slots]
        if self.page_base is not None:
            holders.append((None, self.page_base, PAGE_SIZE))
        pieces = []
        for holder, base, size in sorted(holders, key=lambda entry: entry[1]):
            start, stop = max(address, base), min(address + length, base + size)
            if start < stop:
                pieces.append((holder, start, stop - start))
        return pieces

    def read(self, address: int, length: int) -> bytes:
        """`length` bytes from `address`. OutOfGuestMemory where not all of it is RAM."""
        data = bytearray()
        for holder, start, size in self._pieces(address, length):
            if holder is not None:
                data += holder.read(start, size)
            elif self.page_base is not None:
                data += self.page[start - self.page_base : start - self.page_base + size]
        return bytes(data)

    def write(self, address: int, data: bytes | memoryview) -> None:
        """Put `data` at `address`. OutOfGuestMemory where not all of it is RAM."""
        view = memoryview(data)
        for holder, start, size in self._pieces(address, len(view)):
            piece = view[start - address : start - address + size]
            if holder is not None:
                holder.write(start, piece)
            elif self.page_base is not None:
                self.page[start - self.page_base : start - self.page_base + size] = piece

    def close(self) -> None:
        """Give the memory back to the host. No engine may be running on it."""
        for slot in self.slots:
            slot.close()
