"""Traps and interrupts: taking them, and choosing which (Privileged ISA, 3.1.6 to 3.1.9, 10.1)."""

from __future__ import annotations

from typing import Any

from celaje.isa.riscv.privilege import (
    INTERRUPT_PRIORITY,
    MEI,
    MIE,
    MPIE,
    MPP,
    MPP_BIT,
    MSI,
    MTI,
    SEI,
    SIE,
    SPIE,
    SPP,
    SPP_BIT,
    SSI,
    STCE,
    STI,
)
from celaje.isa.riscv.state import MACHINE, SUPERVISOR
from celaje.isa.semantics import Value, routine


@routine(parameters=(1, 8, 64), results=())
def take_trap(h: Any, interrupt: Value, number: Value, value: Value) -> None:
    """Enter the handler for a cause: `pc` is the address to return to, `value` what stval or mtval will show."""
    top = h.xlen - 1
    cause = number.zext(64) | interrupt.select(1 << top, 0, 64)
    delegation = interrupt.select(h.mideleg, h.medeleg)
    delegated = (delegation >> number.zext(64)).bit(0)
    before = h.mstatus
    vector_offset = number.zext(64) << 2
    h.reservation = -1
    with h.when(delegated & h.mode.at_most(SUPERVISOR)):
        h.sepc = h.pc
        h.scause = cause
        h.stval = value
        previous = h.mode.zext(64) << SPP_BIT
        enabled = (before & SIE) << 4  # SIE becomes SPIE
        h.mstatus = (before & ~(SPP | SPIE | SIE)) | previous | enabled
        h.mode = SUPERVISOR
        vectored = interrupt & h.stvec.bit(0)
        h.pc = (h.stvec & ~3) + vectored.select(vector_offset, 0)
        h.translation_changed()
        h.give()
    h.mepc = h.pc
    h.mcause = cause
    h.mtval = value
    previous = h.mode.zext(64) << MPP_BIT
    enabled = (before & MIE) << 4
    h.mstatus = (before & ~(MPP | MPIE | MIE)) | previous | enabled
    h.mode = MACHINE
    vectored = interrupt & h.mtvec.bit(0)
    h.pc = (h.mtvec & ~3) + vectored.select(vector_offset, 0)
    h.translation_changed()
    h.give()


@routine(parameters=(), results=())
def update_pending(h: Any) -> None:
    """Compute `pending` (what mip reads) from software's bits, the devices' lines and the timers."""
    with h.when(h.read("lines", SSI).ne(0)):  # an edge, which the guest clears in sip
        h.write("lines", 0, SSI)
        h.mip = h.mip | (1 << SSI)
    now = h.clock()
    by_comparison = (h.menvcfg & STCE).ne(0)
    supervisor_timer = by_comparison.select(now.at_least(h.stimecmp), h.mip.bit(STI))
    bits = h.mip & ~(1 << STI)
    for line in (MSI, SEI, MEI):
        bits = bits | (h.read("lines", line).zext(64) << line)
    bits = bits | now.at_least(h.mtimecmp).select(1 << MTI, 0, 64) | supervisor_timer.select(1 << STI, 0, 64)
    h.pending = bits
    h.give()


@routine(parameters=(), results=(1, 8))
def choose_interrupt(h: Any) -> None:
    """(whether one is to be taken now, its number), from `pending`, mie and what mstatus enables."""
    enabled = h.pending & h.mie
    machine_open = h.mode.ne(MACHINE) | (h.mstatus & MIE).ne(0)
    supervisor_open = h.mode.below(SUPERVISOR) | (h.mode.eq(SUPERVISOR) & (h.mstatus & SIE).ne(0))
    for_machine = machine_open.select(enabled & ~h.mideleg, 0)
    for_supervisor = supervisor_open.select(enabled & h.mideleg, 0)
    open_now = for_machine.ne(0).select(for_machine, for_supervisor)
    for number in INTERRUPT_PRIORITY:
        with h.when(open_now.bit(number)):
            h.give(1, number)
    h.give(0, 0)
