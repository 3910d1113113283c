"""RV32I and RV64I: integer computation, control transfer, loads and stores (Unprivileged ISA, 2 and 4)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from celaje.isa.riscv.formats import FENCE, RISCV, SHIFT, SHIFT_W, B, I, J, R, S, U
from celaje.isa.semantics import Value

Operation = Callable[[Value, Value], Value]


def _register(name: str, encoding: str, operation: Operation) -> None:
    def semantics(h: Any) -> None:
        h.rd = operation(h.rs1, h.rs2)

    RISCV.add(f"{name} rd, rs1, rs2", encoding, R, "I", semantics)


def _immediate(name: str, encoding: str, operation: Operation) -> None:
    def semantics(h: Any) -> None:
        h.rd = operation(h.rs1, h.imm)

    RISCV.add(f"{name} rd, rs1, imm", encoding, I, "I", semantics)


def _register_word(name: str, encoding: str, operation: Operation) -> None:
    """On the low 32 bits, the result sign-extended (RV64 only)."""

    def semantics(h: Any) -> None:
        h.rd = operation(h.rs1.trunc(32), h.rs2.trunc(32)).sext(64)

    RISCV.add(f"{name} rd, rs1, rs2", encoding, R, "I", semantics, xlens=(64,))


def _shift(name: str, encoding: str, operation: Operation) -> None:
    def semantics(h: Any) -> None:
        h.rd = operation(h.rs1, h.shamt)

    RISCV.add(f"{name} rd, rs1, shamt", encoding, SHIFT_W, "I", semantics, xlens=(32,))
    RISCV.add(f"{name} rd, rs1, shamt", encoding[:6] + "x" + encoding[7:], SHIFT, "I", semantics, xlens=(64,))


def _shift_word(name: str, encoding: str, operation: Operation) -> None:
    def semantics(h: Any) -> None:
        h.rd = operation(h.rs1.trunc(32), h.shamt.trunc(32)).sext(64)

    RISCV.add(f"{name} rd, rs1, shamt", encoding, SHIFT_W, "I", semantics, xlens=(64,))


def amount(value: Value) -> Value:
    """A shift amount: the low log2(width) bits."""
    return value & (value.width - 1)


_register("add", "0000000 xxxxx xxxxx 000 xxxxx 0110011", lambda a, b: a + b)
_register("sub", "0100000 xxxxx xxxxx 000 xxxxx 0110011", lambda a, b: a - b)
_register("sll", "0000000 xxxxx xxxxx 001 xxxxx 0110011", lambda a, b: a << amount(b))
_register("slt", "0000000 xxxxx xxxxx 010 xxxxx 0110011", lambda a, b: a.less(b).zext(a.width))
_register("sltu", "0000000 xxxxx xxxxx 011 xxxxx 0110011", lambda a, b: a.below(b).zext(a.width))
_register("xor", "0000000 xxxxx xxxxx 100 xxxxx 0110011", lambda a, b: a ^ b)
_register("srl", "0000000 xxxxx xxxxx 101 xxxxx 0110011", lambda a, b: a >> amount(b))
_register("sra", "0100000 xxxxx xxxxx 101 xxxxx 0110011", lambda a, b: a.sra(amount(b)))
_register("or", "0000000 xxxxx xxxxx 110 xxxxx 0110011", lambda a, b: a | b)
_register("and", "0000000 xxxxx xxxxx 111 xxxxx 0110011", lambda a, b: a & b)

_immediate("addi", "xxxxxxxxxxxx xxxxx 000 xxxxx 0010011", lambda a, b: a + b)
_immediate("slti", "xxxxxxxxxxxx xxxxx 010 xxxxx 0010011", lambda a, b: a.less(b).zext(a.width))
_immediate("sltiu", "xxxxxxxxxxxx xxxxx 011 xxxxx 0010011", lambda a, b: a.below(b).zext(a.width))
_immediate("xori", "xxxxxxxxxxxx xxxxx 100 xxxxx 0010011", lambda a, b: a ^ b)
_immediate("ori", "xxxxxxxxxxxx xxxxx 110 xxxxx 0010011", lambda a, b: a | b)
_immediate("andi", "xxxxxxxxxxxx xxxxx 111 xxxxx 0010011", lambda a, b: a & b)

_shift("slli", "0000000 xxxxx xxxxx 001 xxxxx 0010011", lambda a, b: a << b)
_shift("srli", "0000000 xxxxx xxxxx 101 xxxxx 0010011", lambda a, b: a >> b)
_shift("srai", "0100000 xxxxx xxxxx 101 xxxxx 0010011", lambda a, b: a.sra(b))

_register_word("addw", "0000000 xxxxx xxxxx 000 xxxxx 0111011", lambda a, b: a + b)
_register_word("subw", "0100000 xxxxx xxxxx 000 xxxxx 0111011", lambda a, b: a - b)
_register_word("sllw", "0000000 xxxxx xxxxx 001 xxxxx 0111011", lambda a, b: a << amount(b))
_register_word("srlw", "0000000 xxxxx xxxxx 101 xxxxx 0111011", lambda a, b: a >> amount(b))
_register_word("sraw", "0100000 xxxxx xxxxx 101 xxxxx 0111011", lambda a, b: a.sra(amount(b)))
_shift_word("slliw", "0000000 xxxxx xxxxx 001 xxxxx 0011011", lambda a, b: a << b)
_shift_word("srliw", "0000000 xxxxx xxxxx 101 xxxxx 0011011", lambda a, b: a >> b)
_shift_word("sraiw", "0100000 xxxxx xxxxx 101 xxxxx 0011011", lambda a, b: a.sra(b))


@RISCV.instruction("addiw rd, rs1, imm", "xxxxxxxxxxxx xxxxx 000 xxxxx 0011011", I, "I", xlens=(64,))
def addiw(h: Any) -> None:
    h.rd = (h.rs1.trunc(32) + h.imm.trunc(32)).sext(64)


@RISCV.instruction("lui rd, upper", "xxxxxxxxxxxxxxxxxxxx xxxxx 0110111", U, "I")
def lui(h: Any) -> None:
    h.rd = h.imm


@RISCV.instruction("auipc rd, upper", "xxxxxxxxxxxxxxxxxxxx xxxxx 0010111", U, "I")
def auipc(h: Any) -> None:
    h.rd = h.here + h.imm


@RISCV.instruction("jal rd, imm", "xxxxxxxxxxxxxxxxxxxx xxxxx 1101111", J, "I")
def jal(h: Any) -> None:
    h.rd = h.following
    h.jump()


@RISCV.instruction("jalr rd, imm(rs1)", "xxxxxxxxxxxx xxxxx 000 xxxxx 1100111", I, "I")
def jalr(h: Any) -> None:
    target = (h.rs1 + h.imm) & ~1
    h.rd = h.following
    h.jump_to(target)


def _branch(name: str, encoding: str, condition: Operation) -> None:
    def semantics(h: Any) -> None:
        h.branch(condition(h.rs1, h.rs2))

    RISCV.add(f"{name} rs1, rs2, imm", encoding, B, "I", semantics)


_branch("beq", "xxxxxxx xxxxx xxxxx 000 xxxxx 1100011", lambda a, b: a.eq(b))
_branch("bne", "xxxxxxx xxxxx xxxxx 001 xxxxx 1100011", lambda a, b: a.ne(b))
_branch("blt", "xxxxxxx xxxxx xxxxx 100 xxxxx 1100011", lambda a, b: a.less(b))
_branch("bge", "xxxxxxx xxxxx xxxxx 101 xxxxx 1100011", lambda a, b: a.greater_equal(b))
_branch("bltu", "xxxxxxx xxxxx xxxxx 110 xxxxx 1100011", lambda a, b: a.below(b))
_branch("bgeu", "xxxxxxx xxxxx xxxxx 111 xxxxx 1100011", lambda a, b: a.at_least(b))


def _load(name: str, funct3: str, size: int, signed: bool, xlens: tuple[int, ...] = (32, 64)) -> None:
    def semantics(h: Any) -> None:
        value = h.load(h.rs1 + h.imm, size)
        h.rd = value.sext(h.xlen) if signed else value.zext(h.xlen)

    RISCV.add(f"{name} rd, imm(rs1)", f"xxxxxxxxxxxx xxxxx {funct3} xxxxx 0000011", I, "I", semantics, xlens=xlens)


_load("lb", "000", 1, True)
_load("lh", "001", 2, True)
_load("lw", "010", 4, True)
_load("ld", "011", 8, True, (64,))
_load("lbu", "100", 1, False)
_load("lhu", "101", 2, False)
_load("lwu", "110", 4, False, (64,))


def _store(name: str, funct3: str, size: int, xlens: tuple[int, ...] = (32, 64)) -> None:
    def semantics(h: Any) -> None:
        h.store(h.rs1 + h.imm, h.rs2.trunc(8 * size))

    RISCV.add(f"{name} rs2, imm(rs1)", f"xxxxxxx xxxxx xxxxx {funct3} xxxxx 0100011", S, "I", semantics, xlens=xlens)


_store("sb", "000", 1)
_store("sh", "001", 2)
_store("sw", "010", 4)
_store("sd", "011", 8, (64,))


@RISCV.instruction("fence pred, succ", "xxxxxxxxxxxx xxxxx 000 xxxxx 0001111", FENCE, "I")
def fence(h: Any) -> None:
    h.fence(stores_before_loads=(h.pred & 5).ne(0) & (h.succ & 10).ne(0))


@RISCV.instruction("fence.i", "xxxxxxxxxxxx xxxxx 001 xxxxx 0001111", {}, "Zifencei")
def fence_i(h: Any) -> None:
    h.fence_instructions()
