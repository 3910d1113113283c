"""A: load-reserved, store-conditional and atomic memory operations (Unprivileged ISA, 14).

All are sequentially consistent, whatever their aq and rl bits say; misaligned addresses trap.
"""

from __future__ import annotations

from typing import Any

from celaje.isa.riscv.formats import RISCV, UNARY, R

OPERATIONS = {
    "swap": "00001",
    "add": "00000",
    "xor": "00100",
    "and": "01100",
    "or": "01000",
    "min": "10000",
    "max": "10100",
    "minu": "11000",
    "maxu": "11100",
}


def _amo(operation: str, funct5: str, suffix: str, funct3: str, size: int, xlens: tuple[int, ...]) -> None:
    def semantics(h: Any) -> None:
        h.rd = h.atomic(operation, h.rs1, h.rs2.trunc(8 * size)).sext(h.xlen)

    encoding = f"{funct5} xx xxxxx xxxxx {funct3} xxxxx 0101111"
    RISCV.add(f"amo{operation}.{suffix} rd, rs2, (rs1)", encoding, R, "A", semantics, xlens=xlens)


def _reserved(suffix: str, funct3: str, size: int, xlens: tuple[int, ...]) -> None:
    def load_reserved(h: Any) -> None:
        h.rd = h.load_reserved(h.rs1, size).sext(h.xlen)

    def store_conditional(h: Any) -> None:
        h.rd = h.store_conditional(h.rs1, h.rs2.trunc(8 * size)).zext(h.xlen)

    encoding = f"00010 xx 00000 xxxxx {funct3} xxxxx 0101111"
    RISCV.add(f"lr.{suffix} rd, (rs1)", encoding, UNARY, "A", load_reserved, xlens=xlens)
    encoding = f"00011 xx xxxxx xxxxx {funct3} xxxxx 0101111"
    RISCV.add(f"sc.{suffix} rd, rs2, (rs1)", encoding, R, "A", store_conditional, xlens=xlens)


for _suffix, _funct3, _size, _xlens in (("w", "010", 4, (32, 64)), ("d", "011", 8, (64,))):
    _reserved(_suffix, _funct3, _size, _xlens)
    for _operation, _funct5 in OPERATIONS.items():
        _amo(_operation, _funct5, _suffix, _funct3, _size, _xlens)
