"""Address translation: Sv32, Sv39, Sv48 and Sv57 (Privileged ISA, 10.3 to 10.6).

Accessed and dirty bits are set by the hart itself (Svadu's behaviour), atomically, so that two harts may walk the same
tables. Page-table accesses pass the physical memory protection as supervisor loads and stores.
"""

from __future__ import annotations

from typing import Any

from celaje.isa.riscv.pmp import pmp_allows
from celaje.isa.riscv.privilege import (
    FETCH,
    FETCH_ACCESS,
    FETCH_PAGE,
    LOAD,
    LOAD_ACCESS,
    LOAD_PAGE,
    MPP_BIT,
    MPRV_BIT,
    MXR,
    STORE,
    STORE_ACCESS,
    STORE_PAGE,
    SUM,
)
from celaje.isa.riscv.state import MACHINE, SUPERVISOR, USER
from celaje.isa.semantics import Value, routine

#  63  62..61  60..54    53 .. 10   9..8  7 6 5 4 3 2 1 0
#   N   PBMT   reserved  page number  RSW  D A G U X W R V
V, R, W, X, U, G, A, D = (1 << bit for bit in range(8))
RESERVED = 0x3FF << 54

MAY_READ, MAY_WRITE, MAY_EXECUTE, GLOBAL = 1, 2, 4, 8


@routine(parameters=(8,), results=(8,))
def access_fault(h: Any, access: Value) -> None:
    """The cause of an access fault for this kind of access."""
    h.give(access.eq(STORE).select(STORE_ACCESS, access.eq(FETCH).select(FETCH_ACCESS, LOAD_ACCESS, 8)))


@routine(parameters=(8,), results=(8,))
def page_fault(h: Any, access: Value) -> None:
    """The cause of a page fault for this kind of access."""
    h.give(access.eq(STORE).select(STORE_PAGE, access.eq(FETCH).select(FETCH_PAGE, LOAD_PAGE, 8)))


@routine(parameters=(), results=(8,))
def data_mode(h: Any) -> None:
    """The mode that loads and stores are made in: the hart's own, or mstatus.MPP where MPRV says so (3.1.6.3)."""
    with h.when(h.mstatus.bit(MPRV_BIT) & h.mode.eq(MACHINE)):
        h.give((h.mstatus >> MPP_BIT).trunc(8) & 3)
    h.give(h.mode)


@routine(parameters=(64, 8, 8), results=(64, 8, 8, 8))
def translate(h: Any, address: Value, access: Value, mode: Value) -> None:
    """(physical address, cause of the fault or 0, what else the page allows, level of the leaf) of a virtual address.

    `access` is LOAD, STORE or FETCH; `mode` the mode that counts (see `data_mode`). The allowed accesses are MAY_ bits
    that hold without another walk: MAY_WRITE only when the page is already dirty. Physical memory protection of the
    final address is the caller's.
    """
    sv32 = h.xlen == 32
    scheme = (h.satp >> (31 if sv32 else 60)).trunc(8) & (1 if sv32 else 15)
    with h.when(mode.eq(MACHINE) | scheme.eq(0)):
        h.give(address, 0, MAY_READ | MAY_WRITE | MAY_EXECUTE, 0)
    page_fault_cause = h.call(page_fault, access)[0]
    access_fault_cause = h.call(access_fault, access)[0]
    index_bits, entry_size = (10, 4) if sv32 else (9, 8)
    levels = h.constant(2, 8) if sv32 else scheme - 5
    root = h.satp & ((1 << 22) - 1 if sv32 else (1 << 44) - 1)
    if not sv32:
        unused = h.constant(64 - 12, 64) - levels.zext(64) * index_bits
        with h.when(((address << unused).sra(unused)).ne(address)):
            h.give(0, page_fault_cause, 0, 0)

    with h.loop():  # again only when another hart changed the leaf while this one walked
        table, level = h.variable(root), h.variable(levels)
        entry_address, entry = h.variable(0, 64), h.variable(0, 64)
        with h.loop():
            level.set(level.get() - 1)
            shift = level.get().zext(64) * index_bits + 12
            index = (address >> shift) & ((1 << index_bits) - 1)
            entry_address.set((table.get() << 12) + index * entry_size)
            allowed = h.call(pmp_allows, entry_address.get(), entry_size, LOAD, SUPERVISOR)[0]
            with h.when(allowed.eq(0)):
                h.give(0, access_fault_cause, 0, 0)
            loaded, present = h.physical_load(entry_address.get(), entry_size)
            with h.when(present.eq(0)):
                h.give(0, access_fault_cause, 0, 0)
            pte = loaded.zext(64)
            entry.set(pte)
            invalid = (pte & V).eq(0) | (pte & (R | W)).eq(W)
            if not sv32:
                invalid = invalid | (pte & RESERVED).ne(0)
            with h.when(invalid):
                h.give(0, page_fault_cause, 0, 0)
            with h.when((pte & (R | X)).ne(0)):
                h.leave()
            with h.when(level.get().eq(0) | (pte & (D | A | U)).ne(0)):
                h.give(0, page_fault_cause, 0, 0)
            table.set(pte >> 10)

        pte = entry.get()
        number = pte >> 10
        offset_bits = level.get().zext(64) * index_bits
        low_pages = (h.constant(1, 64) << offset_bits) - 1
        is_user_page = (pte & U).ne(0)
        wrong_side = mode.eq(USER).select(~is_user_page, is_user_page & ((h.mstatus & SUM).eq(0) | access.eq(FETCH)))
        readable = (pte & R).ne(0) | ((h.mstatus & MXR).ne(0) & (pte & X).ne(0))
        writable = (pte & W).ne(0)
        executable = (pte & X).ne(0)
        allowed = access.eq(STORE).select(writable, access.eq(FETCH).select(executable, readable))
        with h.when((number & low_pages).ne(0) | wrong_side | ~allowed):
            h.give(0, page_fault_cause, 0, 0)
        wanted = access.eq(STORE).select(A | D, A, 64)
        dirty = (pte & D).ne(0) | access.eq(STORE)
        permissions = (
            readable.select(MAY_READ, 0, 8)
            | (writable & dirty).select(MAY_WRITE, 0, 8)
            | executable.select(MAY_EXECUTE, 0, 8)
            | (pte & G).ne(0).select(GLOBAL, 0, 8)
        )
        physical = ((number | ((address >> 12) & low_pages)) << 12) | (address & 0xFFF)
        with h.when((pte & wanted).eq(wanted)):
            h.give(physical, 0, permissions, level.get())
        allowed = h.call(pmp_allows, entry_address.get(), entry_size, STORE, SUPERVISOR)[0]
        with h.when(allowed.eq(0)):
            h.give(0, access_fault_cause, 0, 0)
        bits = 8 * entry_size
        done = h.physical_set_bits(entry_address.get(), pte.trunc(bits), wanted.trunc(bits))
        with h.when(done):
            h.give(physical, 0, permissions, level.get())
