"""Zicond: a value or zero, without a branch (Unprivileged ISA, 12)."""

from __future__ import annotations

from typing import Any

from celaje.isa.riscv.formats import RISCV, R


@RISCV.instruction("czero.eqz rd, rs1, rs2", "0000111 xxxxx xxxxx 101 xxxxx 0110011", R, "Zicond")
def czero_eqz(h: Any) -> None:
    h.rd = h.rs2.eq(0).select(0, h.rs1)


@RISCV.instruction("czero.nez rd, rs1, rs2", "0000111 xxxxx xxxxx 111 xxxxx 0110011", R, "Zicond")
def czero_nez(h: Any) -> None:
    h.rd = h.rs2.ne(0).select(0, h.rs1)
