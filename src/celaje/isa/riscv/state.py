"""The state of a RISC-V hart: what `Semantics.read` and `write` know by name.

Names are those of the specification ("The RISC-V Instruction Set Manual", volumes I and II, 20250508). Where a field
holds less or more than the register of that name, its comment says so; `csr.py` makes the registers out of them.
"""

from __future__ import annotations

from celaje.isa.semantics import StateField

PMP_ENTRIES = 16
INTERRUPT_LINES = 16

USER, SUPERVISOR, MACHINE = 0, 1, 3

STATE = (
    StateField("x", 64, 32),
    StateField("f", 64, 32),
    StateField("pc", 64),
    StateField("mode", 8),  # 0 user, 1 supervisor, 3 machine
    StateField("flat", 8),  # 1: user mode alone in a flat address space; traps leave to Python
    StateField("sbi", 8),  # 1: ecall from supervisor mode is a hypercall
    StateField("fs", 8),  # mstatus.FS: 0 off, 1 initial, 2 clean, 3 dirty
    StateField("fflags", 8),
    StateField("frm", 8),
    StateField("mstatus", 64),  # without FS and SD
    StateField("medeleg", 64),
    StateField("mideleg", 64),
    StateField("mie", 64),
    StateField("mip", 64),  # only what software set: SSIP, STIP (while not Sstc's), SEIP
    StateField("lines", 8, INTERRUPT_LINES),  # one byte an interrupt line as devices drive it; SSI's is an edge
    StateField("pending", 64),  # mip as last computed from mip, lines and the timers
    StateField("mtvec", 64),
    StateField("mscratch", 64),
    StateField("mepc", 64),
    StateField("mcause", 64),
    StateField("mtval", 64),
    StateField("mcounteren", 64),
    StateField("mcountinhibit", 64),
    StateField("menvcfg", 64),
    StateField("stvec", 64),
    StateField("sscratch", 64),
    StateField("sepc", 64),
    StateField("scause", 64),
    StateField("stval", 64),
    StateField("scounteren", 64),
    StateField("senvcfg", 64),
    StateField("satp", 64),
    StateField("stimecmp", 64),
    StateField("mtimecmp", 64),  # the ACLINT's, kept here so that generated code compares it
    StateField("mhartid", 64),
    StateField("pmpcfg", 8, PMP_ENTRIES),
    StateField("pmpaddr", 64, PMP_ENTRIES),
    StateField("pmp_active", 8),  # entries up to and with the last that is not OFF
    StateField("cycle_offset", 64),  # mcycle = retired + cycle_offset
    StateField("instret_offset", 64),
    StateField("cycle_held", 64),  # what mcycle reads while mcountinhibit holds it
    StateField("instret_held", 64),
    StateField("reservation", 64),  # where load-reserved read, or all ones
    StateField("reserved_value", 64),
)

FIELDS = {field.name: field for field in STATE}
