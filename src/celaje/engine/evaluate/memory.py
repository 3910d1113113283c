"""What an instruction of the reference evaluator can do to memory: translation, protection, devices, atomics.

Translations are remembered until something asks to forget them, as hardware does. Misaligned accesses are done wherever
memory is; one that crosses a page is two accesses, the second of which may trap with its own address. Devices get
naturally aligned accesses of 1, 2, 4 or 8 bytes; anything else there is an access fault.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from celaje.engine.evaluate.reading import Library, Trap, signed
from celaje.engine.memory import PAGE_SIZE, GuestMemory
from celaje.engine.protocol import Exit, MmioRead, MmioWrite
from celaje.isa.riscv import paging, pmp
from celaje.isa.riscv.privilege import (
    FETCH,
    FETCH_ACCESS,
    LOAD,
    LOAD_ACCESS,
    LOAD_MISALIGNED,
    STORE,
    STORE_ACCESS,
    STORE_MISALIGNED,
)

ACCESS_FAULTS = {LOAD: LOAD_ACCESS, STORE: STORE_ACCESS, FETCH: FETCH_ACCESS}
NO_RESERVATION = (1 << 64) - 1

ATOMICS: dict[str, Callable[[int, int, int], int]] = {
    "swap": lambda old, new, width: new,
    "add": lambda old, new, width: old + new,
    "xor": lambda old, new, width: old ^ new,
    "and": lambda old, new, width: old & new,
    "or": lambda old, new, width: old | new,
    "min": lambda old, new, width: min(old, new, key=lambda value: signed(value, width)),
    "max": lambda old, new, width: max(old, new, key=lambda value: signed(value, width)),
    "minu": lambda old, new, width: min(old, new),
    "maxu": lambda old, new, width: max(old, new),
}


class Leave(Exception):
    """The instruction cannot be finished before something outside has answered; it is executed again then."""

    def __init__(self, exit: Exit) -> None:
        super().__init__(exit)
        self.exit = exit


class MemoryAccess:
    """The part of a hart that the rendered functions call for memory. `state` is the hart's registers."""

    def __init__(self, state: Any, library: Library, slots: list[GuestMemory]) -> None:
        self.state = state
        self.watch: int | None = None  # the doubleword that Engine.watch was given
        self.watched = False  # it was stored to
        self._slots = slots
        self._mask = (1 << library.xlen) - 1
        self._remembered: dict[tuple[int, int], tuple[GuestMemory, int]] = {}
        self._translate = library.routine(paging.translate).function
        self._data_mode = library.routine(paging.data_mode).function
        self._allows = library.routine(pmp.pmp_allows).function
        self._is_uniform = library.routine(pmp.pmp_is_uniform).function
        # An access to a device that the last exit asked about, and its answer: a value, or None for "nobody is there".
        self._asked: MmioRead | MmioWrite | None = None
        self._answer: int | None = None

    # ---- addresses

    def _find(self, address: int, size: int) -> GuestMemory | None:
        return next((slot for slot in self._slots if slot.contains(address, size)), None)

    def physical(self, address: int, size: int, access: int) -> tuple[GuestMemory | None, int]:
        """(memory or None for a device, offset in it or physical address) of an access within one page."""
        s = self.state
        page = address & ~(PAGE_SIZE - 1)
        known = self._remembered.get((page, access))
        if known is not None:
            return known[0], known[1] + address - page
        where, uniform = address, True
        if not s.flat:
            mode = s.mode if access == FETCH else self._data_mode(s, self)[0]
            where, cause, _, _ = self._translate(s, self, address, access, mode)
            if cause:
                raise Trap(cause, address)
            uniform = bool(self._is_uniform(s, self, where & ~(PAGE_SIZE - 1))[0])
            if not self._allows(s, self, where, size, access, mode)[0]:
                raise Trap(ACCESS_FAULTS[access], address)
        slot = self._find(where, size)
        if slot is None:
            return None, where
        offset = where - slot.base
        if uniform:
            self._remembered[page, access] = slot, offset - (address - page)
        return slot, offset

    def translation_changed(self) -> None:
        """Forget what was translated."""
        self._remembered.clear()

    def _pieces(self, address: int, size: int) -> list[tuple[int, int]]:
        """The access as one (address, size), or two where it crosses a page."""
        first = PAGE_SIZE - address % PAGE_SIZE
        if size <= first:
            return [(address, size)]
        return [(address, first), ((address + first) & self._mask, size - first)]

    def _places(self, address: int, size: int, access: int) -> list[tuple[GuestMemory | None, int, int]]:
        """Where each piece is, all of them checked before any is touched."""
        places = []
        for virtual, length in self._pieces(address, size):
            slot, where = self.physical(virtual, length, access)
            if slot is None and (address % size or length != size):
                raise Trap(ACCESS_FAULTS[access], virtual)
            places.append((slot, where, length))
        return places

    # ---- devices

    def complete(self, value: int) -> None:
        """The answer to the MmioRead that the hart left with."""
        if not isinstance(self._asked, MmioRead):
            raise ValueError("complete_read without an MmioRead to complete")
        self._answer = value & ((1 << 8 * self._asked.size) - 1)

    def fail(self) -> None:
        """Nobody answers at the address that the hart left for."""
        if self._asked is None:
            raise ValueError("fail_access without an access to fail")
        self._answer = None

    def _device(self, request: MmioRead | MmioWrite, address: int, access: int) -> int:
        """What the device answered; leaves to ask it the first time. A flat address space has none."""
        if self.state.flat:
            raise Trap(ACCESS_FAULTS[access], address)
        if self._asked != request:
            self._asked, self._answer = request, 0
            raise Leave(request)
        answer = self._answer
        self._asked = None
        if answer is None:
            raise Trap(ACCESS_FAULTS[access], address)
        return answer

    @property
    def awaits_device(self) -> bool:
        """Whether an instruction waits for a device, so that it must be executed again before anything else happens."""
        return self._asked is not None

    # ---- what instructions do

    def fetch(self, address: int) -> int:
        """The instruction at `address`: 16 bits, or 32 where the low two are ones."""
        if address & PAGE_SIZE - 1 != PAGE_SIZE - 2 and (address & -PAGE_SIZE, FETCH) in self._remembered:
            slot, offset = self.physical(address, 4, FETCH)
            if slot is not None:
                bits = int.from_bytes(slot.view[offset : offset + 4], "little")
                return bits if bits & 3 == 3 else bits & 0xFFFF
        # Halfword by halfword: the second may be on another page, or out of what physical memory protection allows.
        low = self._fetch_half(address)
        if low & 3 != 3:
            return low
        return low | self._fetch_half((address + 2) & self._mask) << 16

    def _fetch_half(self, address: int) -> int:
        slot, offset = self.physical(address, 2, FETCH)
        if slot is None:
            raise Trap(FETCH_ACCESS, address)
        return slot.view[offset] | slot.view[offset + 1] << 8

    def load(self, address: int, size: int) -> int:
        value, shift = 0, 0
        for slot, where, length in self._places(address, size, LOAD):
            if slot is None:
                return self._device(MmioRead(where, size), address, LOAD)
            value |= int.from_bytes(slot.view[where : where + length], "little") << shift
            shift += 8 * length
        return value

    def store(self, address: int, size: int, value: int) -> None:
        for slot, where, length in self._places(address, size, STORE):
            if slot is None:
                self._device(MmioWrite(where, size, value), address, STORE)
                return
            self._put(slot, where, value & ((1 << 8 * length) - 1), length)
            value >>= 8 * length

    def _put(self, slot: GuestMemory, offset: int, value: int, size: int) -> None:
        slot.view[offset : offset + size] = value.to_bytes(size, "little")
        slot.dirty[offset // PAGE_SIZE] = 1
        if self.watch is not None and -size < slot.base + offset - self.watch < 8:
            self.watched = True

    def _atomic_place(self, address: int, size: int, access: int, misaligned: int) -> tuple[GuestMemory, int]:
        if address % size:
            raise Trap(misaligned, address)
        slot, offset = self.physical(address, size, access)
        if slot is None:  # atomics are for memory only
            raise Trap(ACCESS_FAULTS[access], address)
        return slot, offset

    def atomic(self, operation: str, address: int, size: int, value: int) -> int:
        slot, offset = self._atomic_place(address, size, STORE, STORE_MISALIGNED)
        old = int.from_bytes(slot.view[offset : offset + size], "little")
        self._put(slot, offset, ATOMICS[operation](old, value, 8 * size) & ((1 << 8 * size) - 1), size)
        return old

    def load_reserved(self, address: int, size: int) -> int:
        slot, offset = self._atomic_place(address, size, LOAD, LOAD_MISALIGNED)
        value = int.from_bytes(slot.view[offset : offset + size], "little")
        self.state.reservation, self.state.reserved_value = address, value
        return value

    def store_conditional(self, address: int, size: int, value: int) -> int:
        s = self.state
        slot, offset = self._atomic_place(address, size, STORE, STORE_MISALIGNED)
        reserved, s.reservation = s.reservation, NO_RESERVATION
        if reserved != address:
            return 1
        if int.from_bytes(slot.view[offset : offset + size], "little") != s.reserved_value & ((1 << 8 * size) - 1):
            return 1
        self._put(slot, offset, value, size)
        return 0

    def zero_block(self, address: int, size: int) -> None:
        slot, offset = self._block(address, size, STORE)
        if slot is None:
            raise Trap(STORE_ACCESS, address)
        self._put(slot, offset, 0, size)

    def check_block(self, address: int, size: int) -> None:
        try:
            self._block(address, size, LOAD)
        except Trap:
            self._block(address, size, STORE)

    def _block(self, address: int, size: int, access: int) -> tuple[GuestMemory | None, int]:
        """Traps show the address that the instruction gave, not the block's."""
        try:
            return self.physical(address & ~(size - 1), size, access)
        except Trap as trap:
            raise Trap(trap.cause, address) from None

    # ---- what page walks do

    def physical_load(self, address: int, size: int) -> tuple[int, int]:
        slot = self._find(address, size)
        if slot is None:
            return 0, 0
        return int.from_bytes(slot.read(address, size), "little"), 1

    def physical_set_bits(self, address: int, size: int, expected: int, bits: int) -> int:
        slot = self._find(address, size)
        if slot is None or int.from_bytes(slot.read(address, size), "little") != expected:
            return 0
        slot.write(address, (expected | bits).to_bytes(size, "little"))
        return 1
