"""Privileged and environment instructions, and access to control and status registers (Privileged ISA, 3.3, 10.2;
Unprivileged ISA, 6 and 2.8)."""

from __future__ import annotations

from typing import Any

from celaje.isa.riscv.csr import CLEAR, READ, SET, WRITE, csr_access
from celaje.isa.riscv.formats import CSR, CSR_I, RISCV, RS1, RS2
from celaje.isa.riscv.privilege import (
    BREAKPOINT,
    ECALL_FROM_USER,
    MIE,
    MPIE,
    MPP,
    MPP_BIT,
    MPRV,
    SIE,
    SPIE,
    SPP,
    SPP_BIT,
    TSR,
    TVM,
    TW,
)
from celaje.isa.riscv.state import MACHINE, SUPERVISOR, USER
from celaje.isa.semantics import Value

ADDRESSES = {"rs1": RS1, "rs2": RS2}


@RISCV.instruction("ecall", "000000000000 00000 000 00000 1110011", {}, "I")
def ecall(h: Any) -> None:
    with h.when(h.flat.ne(0)):
        h.system_call()
    with h.when(h.sbi.ne(0) & h.mode.eq(SUPERVISOR)):
        h.hypercall()
    h.trap(h.mode + ECALL_FROM_USER, 0)


@RISCV.instruction("ebreak", "000000000001 00000 000 00000 1110011", {}, "I")
def ebreak(h: Any) -> None:
    h.trap(BREAKPOINT, h.here)


@RISCV.instruction("mret", "001100000010 00000 000 00000 1110011", {}, "I")
def mret(h: Any) -> None:
    with h.when(h.mode.ne(MACHINE)):
        h.illegal()
    status = h.mstatus
    previous = (status >> MPP_BIT).trunc(8) & 3
    enabled = (status & MPIE) >> 4
    keeps_mprv = previous.eq(MACHINE).select(MPRV, 0, 64)
    h.mstatus = (status & ~(MPP | MIE | MPRV)) | MPIE | enabled | (status & keeps_mprv)
    h.mode = previous
    h.reservation = -1
    h.translation_changed()
    h.jump_to(h.mepc.trunc(h.xlen))


@RISCV.instruction("sret", "000100000010 00000 000 00000 1110011", {}, "I")
def sret(h: Any) -> None:
    trapped = h.mode.eq(SUPERVISOR) & (h.mstatus & TSR).ne(0)
    with h.when(h.mode.eq(USER) | trapped):
        h.illegal()
    status = h.mstatus
    previous = (status >> SPP_BIT).trunc(8) & 1
    enabled = (status & SPIE) >> 4
    h.mstatus = (status & ~(SPP | SIE | MPRV)) | SPIE | enabled
    h.mode = previous
    h.reservation = -1
    h.translation_changed()
    h.jump_to(h.sepc.trunc(h.xlen))


@RISCV.instruction("wfi", "000100000101 00000 000 00000 1110011", {}, "I")
def wfi(h: Any) -> None:
    trapped = h.mode.eq(SUPERVISOR) & (h.mstatus & TW).ne(0)
    with h.when(h.mode.eq(USER) | trapped):
        h.illegal()
    h.wait()


def _supervisor_memory_management(h: Any) -> None:
    trapped = h.mode.eq(SUPERVISOR) & (h.mstatus & TVM).ne(0)
    with h.when(h.mode.eq(USER) | trapped):
        h.illegal()


@RISCV.instruction("sfence.vma rs1, rs2", "0001001 xxxxx xxxxx 000 00000 1110011", ADDRESSES, "I")
def sfence_vma(h: Any) -> None:
    _supervisor_memory_management(h)
    h.flush_translations(h.rs1, h.number_of("rs1").eq(0))


@RISCV.instruction("sinval.vma rs1, rs2", "0001011 xxxxx xxxxx 000 00000 1110011", ADDRESSES, "Svinval")
def sinval_vma(h: Any) -> None:
    sfence_vma(h)


def _ordering(h: Any) -> None:
    with h.when(h.mode.eq(USER)):
        h.illegal()
    h.fence()


RISCV.add("sfence.w.inval", "0001100 00000 00000 000 00000 1110011", {}, "Svinval", _ordering)
RISCV.add("sfence.inval.ir", "0001100 00001 00000 000 00000 1110011", {}, "Svinval", _ordering)


def _access(h: Any, operation: Value, operand: Value) -> None:
    old, refused = h.call(csr_access, h.csr.trunc(16), operation, operand.zext(64))
    with h.when(refused):
        h.illegal()
    h.rd = old.trunc(h.xlen)


def _csr_instruction(name: str, funct3: str, operation: int) -> None:
    def from_register(h: Any) -> None:
        asked = h.constant(operation, 8)
        if operation != WRITE:  # x0 as the source means: only read (6.1)
            asked = h.number_of("rs1").eq(0).select(READ, asked)
        _access(h, asked, h.rs1)

    def from_immediate(h: Any) -> None:
        asked = h.constant(operation, 8)
        if operation != WRITE:
            asked = h.number_of("uimm").eq(0).select(READ, asked)
        _access(h, asked, h.number_of("uimm"))

    RISCV.add(f"{name} rd, csr, rs1", f"xxxxxxxxxxxx xxxxx 0{funct3} xxxxx 1110011", CSR, "Zicsr", from_register)
    RISCV.add(f"{name}i rd, csr, uimm", f"xxxxxxxxxxxx xxxxx 1{funct3} xxxxx 1110011", CSR_I, "Zicsr", from_immediate)


_csr_instruction("csrrw", "01", WRITE)
_csr_instruction("csrrs", "10", SET)
_csr_instruction("csrrc", "11", CLEAR)
