"""Zicbom and Zicboz: management of cache blocks (Unprivileged ISA, 19; Privileged ISA, 3.1.18 and 10.1.10).

Memory is coherent with every device here, so that clean, flush and invalidate have nothing to do but to be permitted.
Zicbop's prefetches are encodings of `ori` with rd x0 and need no entry.

An envcfg register lets the modes below it use them:

    bits 5:4  CBIE   cbo.inval: 0 no, 1 as cbo.flush, 3 yes
    bit  6    CBCFE  cbo.clean and cbo.flush
    bit  7    CBZE   cbo.zero
"""

from __future__ import annotations

from typing import Any

from celaje.isa.riscv.formats import RISCV, RS1
from celaje.isa.riscv.state import MACHINE, USER

BLOCK = 64  # bytes; the device tree says so too

CBIE, CBCFE, CBZE = 0b11 << 4, 1 << 6, 1 << 7


def _require(h: Any, permission: int) -> None:
    """Illegal instruction where menvcfg (below machine mode) or senvcfg (in user mode) does not give `permission`."""
    refused = h.mode.ne(MACHINE) & (h.menvcfg & permission).eq(0) | h.mode.eq(USER) & (h.senvcfg & permission).eq(0)
    with h.when(refused):
        h.illegal()


def _manage(name: str, operation: str, permission: int) -> None:
    def semantics(h: Any) -> None:
        _require(h, permission)
        h.check_block(h.rs1, BLOCK)

    RISCV.add(f"{name} 0(rs1)", f"{operation} xxxxx 010 00000 0001111", {"rs1": RS1}, "Zicbom", semantics)


_manage("cbo.inval", "000000000000", CBIE)
_manage("cbo.clean", "000000000001", CBCFE)
_manage("cbo.flush", "000000000010", CBCFE)


@RISCV.instruction("cbo.zero 0(rs1)", "000000000100 xxxxx 010 00000 0001111", {"rs1": RS1}, "Zicboz")
def cbo_zero(h: Any) -> None:
    _require(h, CBZE)
    h.zero_block(h.rs1, BLOCK)
