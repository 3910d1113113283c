"""Physical memory protection (Privileged ISA, 3.7): 16 entries, grain 4 bytes."""

from __future__ import annotations

from typing import Any

from celaje.isa.riscv.privilege import FETCH, STORE
from celaje.isa.riscv.state import MACHINE
from celaje.isa.semantics import Semantics, Value, routine

#   7   6 5   4 3   2   1   0
#   L   0 0   A     X   W   R        A: 0 off, 1 top of range, 2 four bytes, 3 naturally aligned power of two
READ, WRITE, EXECUTE, LOCKED = 1, 2, 4, 0x80
EVERYTHING = 3 << 3 | READ | WRITE | EXECUTE  # naturally aligned, not locked
OFF, TOP_OF_RANGE, FOUR_BYTES = 0, 1, 2


def _is_open(h: Semantics) -> Value:
    """Entry 0 lets everybody do everything everywhere, as firmware leaves it that protects nothing: no need to look."""
    everywhere = h.read("pmpaddr", 0).eq((1 << 54) - 1)
    return everywhere & h.read("pmpcfg", 0).eq(EVERYTHING)


@routine(parameters=(8,), results=(64, 64))
def pmp_range(h: Any, index: Value) -> None:
    """The first address of entry `index` and the first after it; nothing (0, 0) when it is off."""
    kind = (h.read("pmpcfg", index) >> 3) & 3
    address = h.read("pmpaddr", index)
    with h.when(kind.eq(OFF)):
        h.give(0, 0)
    with h.when(kind.eq(TOP_OF_RANGE)):
        low = h.variable(0, 64)
        with h.when(index.ne(0)):
            low.set(h.read("pmpaddr", index - 1) << 2)
        h.give(low.get(), address << 2)
    with h.when(kind.eq(FOUR_BYTES)):
        h.give(address << 2, (address << 2) + 4)
    ones = (~address).trailing_zeros()
    size = h.constant(8, 64) << ones
    low_end = (address << 2) & ~(size - 1)
    h.give(low_end, low_end + size)


@routine(parameters=(64, 64, 8, 8), results=(1,))
def pmp_allows(h: Any, address: Value, size: Value, access: Value, mode: Value) -> None:
    """Whether `mode` may make an access of this kind to all `size` bytes at the physical `address`."""
    with h.when(_is_open(h)):
        h.give(1)
    with h.count(h.pmp_active) as index:
        low, high = h.call(pmp_range, index)
        last = address + (size - 1)
        with h.when(address.below(high) & last.at_least(low) & low.ne(high)):
            with h.when(address.below(low) | last.at_least(high)):
                h.give(0)
            entry = h.read("pmpcfg", index)
            needed = access.eq(STORE).select(WRITE, access.eq(FETCH).select(EXECUTE, READ, 8))
            unlocked_machine = mode.eq(MACHINE) & (entry & LOCKED).eq(0)
            h.give(unlocked_machine | (entry & needed).ne(0))
    h.give(mode.eq(MACHINE))


@routine(parameters=(64,), results=(1,))
def pmp_is_uniform(h: Any, page: Value) -> None:
    """Whether no entry covers only a part of the 4 KiB page at `page`, so that one check holds for all of it."""
    with h.when(_is_open(h)):
        h.give(1)
    with h.count(h.pmp_active) as index:
        low, high = h.call(pmp_range, index)
        overlaps = page.below(high) & (page + 4095).at_least(low) & low.ne(high)
        with h.when(overlaps & (page.below(low) | (page + 4095).at_least(high))):
            h.give(0)
    h.give(1)
