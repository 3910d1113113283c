"""Instruction tables: encoding, assembly text and meaning of an instruction stand together, once.

An encoding is a bit string, most significant bit first, 'x' where operands are; blanks are for the eye. Which bits make
which operand is the format's matter. From these, and nothing else, come the decoders, the disassembler, the engines
and the classification of instructions.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from celaje.isa.semantics import Semantics

SemanticFunction = Callable[[Any], None]


@dataclass(frozen=True)
class Field:
    """Where an operand's bits are: pieces (instruction bit, count, value bit), sign extension, a constant to add."""

    pieces: tuple[tuple[int, int, int], ...]
    signed: bool = False
    plus: int = 0

    def extract(self, instruction: int) -> int:
        """The operand's value; negative where signed."""
        value = sum(((instruction >> low) & ((1 << count) - 1)) << to for low, count, to in self.pieces)
        top = max((to + count for _, count, to in self.pieces), default=0)
        if self.signed and value >> (top - 1) & 1:
            value -= 1 << top
        return value + self.plus

    def insert(self, value: int) -> int:
        """The instruction bits that say `value` (its low bits)."""
        value -= self.plus
        return sum((value >> to & ((1 << count) - 1)) << low for low, count, to in self.pieces)


def place(text: str, signed: bool = False, plus: int = 0) -> Field:
    """'31>12 7>11 30:25>5 11:8>1': instruction bits (high:low) and the lowest value bit that they go to."""
    pieces = []
    for piece in text.split():
        source, _, to = piece.partition(">")
        high, _, low = source.partition(":")
        pieces.append((int(low or high), int(high) - int(low or high) + 1, int(to or 0)))
    return Field(tuple(pieces), signed, plus)


def fixed(value: int) -> Field:
    """An operand that the encoding implies."""
    return Field((), plus=value)


Format = Mapping[str, Field]


@dataclass(frozen=True)
class Instruction:
    """One entry. `unless` lists (operand, value) pairs that make the encoding mean something else."""

    name: str
    syntax: str
    encoding: str
    operands: Format
    semantics: SemanticFunction
    extension: str
    base: str = ""
    unless: tuple[tuple[str, int], ...] = ()
    xlens: tuple[int, ...] = (32, 64)
    mask: int = field(init=False)
    match: int = field(init=False)
    length: int = field(init=False)

    def __post_init__(self) -> None:
        bits = self.encoding.replace(" ", "")
        if len(bits) not in (16, 32) or set(bits) - set("01x"):
            raise ValueError(f"{self.name}: an encoding is 16 or 32 of 0, 1 and x, not {self.encoding!r}")
        object.__setattr__(self, "encoding", bits)
        object.__setattr__(self, "length", len(bits) // 8)
        object.__setattr__(self, "mask", int(bits.replace("0", "1").replace("x", "0"), 2))
        object.__setattr__(self, "match", int(bits.replace("x", "0"), 2))

    def matches(self, instruction: int) -> bool:
        """Whether these bits are this instruction."""
        return instruction & self.mask == self.match and not any(
            self.operands[name].extract(instruction) == value for name, value in self.unless
        )

    def encode(self, **operands: int) -> int:
        """The bits of this instruction with these operands (others zero). ValueError where one cannot be said."""
        bits = self.match
        for name, value in operands.items():
            bits |= self.operands[name].insert(value)
        for name, value in operands.items():
            if self.operands[name].extract(bits) != value:
                raise ValueError(f"{self.name} cannot encode {name}={value}")
        if not self.matches(bits):
            raise ValueError(f"{self.name} cannot have operands {operands}")
        return bits


@dataclass(frozen=True)
class Decoded:
    """An instruction with its operands' values."""

    instruction: Instruction
    operands: dict[str, int]
    bits: int

    def __str__(self) -> str:
        return disassembly(self)


class Table:
    """All instructions of an architecture, in the order in which encodings are tried."""

    def __init__(self) -> None:
        self.instructions: dict[str, Instruction] = {}

    def instruction(
        self,
        syntax: str,
        encoding: str,
        format: Format,
        extension: str,
        *,
        xlens: Iterable[int] = (32, 64),
        unless: Iterable[tuple[str, int]] = (),
    ) -> Callable[[SemanticFunction], SemanticFunction]:
        """Decorator: enter an instruction whose meaning is the function."""

        def decorate(function: SemanticFunction) -> SemanticFunction:
            self.add(syntax, encoding, format, extension, function, xlens=xlens, unless=unless)
            return function

        return decorate

    def add(
        self,
        syntax: str,
        encoding: str,
        format: Format,
        extension: str,
        semantics: SemanticFunction,
        *,
        xlens: Iterable[int] = (32, 64),
        unless: Iterable[tuple[str, int]] = (),
    ) -> None:
        """Enter one instruction; its name is the first word of its syntax."""
        name = syntax.split()[0]
        xlens = tuple(xlens)
        key = name if name not in self.instructions else f"{name}/{xlens[0]}"
        if key in self.instructions:
            raise ValueError(f"{key} is in the table twice")
        self.instructions[key] = Instruction(
            name, syntax, encoding, format, semantics, extension, unless=tuple(unless), xlens=xlens
        )

    def compressed(
        self,
        syntax: str,
        encoding: str,
        means: str,
        operands: Format,
        extension: str,
        *,
        xlens: Iterable[int] = (32, 64),
        unless: Iterable[tuple[str, int]] = (),
    ) -> None:
        """Enter a short form of instruction `means`; every operand of that instruction is in `operands`."""
        full = self.instructions[means]
        missing = set(full.operands) - set(operands)
        if missing:
            raise ValueError(f"{syntax}: says nothing of {', '.join(sorted(missing))} of {means}")
        name = syntax.split()[0]
        xlens = tuple(xlens)
        key = name if name not in self.instructions else f"{name}/{xlens[0]}"
        self.instructions[key] = Instruction(
            name, syntax, encoding, operands, full.semantics, extension, base=means, unless=tuple(unless), xlens=xlens
        )

    def of(self, xlen: int) -> list[Instruction]:
        """The instructions of one register width."""
        return [entry for entry in self.instructions.values() if xlen in entry.xlens]

    def decoder(self, xlen: int) -> Callable[[int], Decoded | None]:
        """A function from instruction bits (16 valid ones where the low two are not 11) to their meaning."""
        buckets: dict[int, list[Instruction]] = {}
        for entry in self.of(xlen):
            for low in range(128):
                if (low & 3 == 3) == (entry.length == 4) and (low ^ entry.match) & entry.mask & 127 == 0:
                    buckets.setdefault(low, []).append(entry)

        def decode(bits: int) -> Decoded | None:
            if bits & 3 != 3:
                bits &= 0xFFFF
            for entry in buckets.get(bits & 127, ()):
                if entry.matches(bits):
                    return Decoded(entry, {n: f.extract(bits) for n, f in entry.operands.items()}, bits)
            return None

        return decode


INTEGER_REGISTERS = (
    "zero ra sp gp tp t0 t1 t2 s0 s1 a0 a1 a2 a3 a4 a5 a6 a7 s2 s3 s4 s5 s6 s7 s8 s9 s10 s11 t3 t4 t5 t6".split()
)
FLOAT_REGISTERS = (
    "ft0 ft1 ft2 ft3 ft4 ft5 ft6 ft7 fs0 fs1 fa0 fa1 fa2 fa3 fa4 fa5 fa6 fa7 fs2 fs3 fs4 fs5 fs6 fs7 fs8 fs9 fs10 fs11"
    " ft8 ft9 ft10 ft11".split()
)
ROUNDING_MODES = {0: "rne", 1: "rtz", 2: "rdn", 3: "rup", 4: "rmm", 7: "dyn"}
X_OPERANDS = ("rd", "rs1", "rs2")
F_OPERANDS = ("frd", "frs1", "frs2", "frs3")


def disassembly(decoded: Decoded) -> str:
    """The instruction as an assembler would take it."""

    def show(match: re.Match[str]) -> str:
        name = match[0]
        if name == "upper":  # lui and auipc: assemblers want the 20 bits as a number of their own
            return str(decoded.operands["imm"] >> 12 & 0xFFFFF)
        if name not in decoded.operands:
            return name
        value = decoded.operands[name]
        if name in X_OPERANDS:
            return INTEGER_REGISTERS[value]
        if name in F_OPERANDS:
            return FLOAT_REGISTERS[value]
        return ROUNDING_MODES.get(value, str(value)) if name == "rm" else str(value)

    mnemonic, _, operands = decoded.instruction.syntax.partition(" ")
    return f"{mnemonic} {re.sub('[a-z][a-z0-9]*', show, operands)}".strip()


__all__ = ["Decoded", "Field", "Format", "Instruction", "Semantics", "Table", "disassembly", "fixed", "place"]
