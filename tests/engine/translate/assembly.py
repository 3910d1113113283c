"""A small assembler out of the instruction tables, and guests made of its text.

Text is one instruction or label (`name:`) a line, `;` separates as well, `#` begins a comment. Instructions are written
as their table entries say; beyond them there are

    li rd, number           as many instructions as the number needs
    la rd, label            two instructions
    mv, not, neg, nop, ret, jr, j, call, beqz, bnez, csrr, csrw, csrs, csrc
    .word n, .half n, .dword n, .space n, .org address, .align n

Distances may be labels. A name that is no register, number or label is looked up among the values that are given.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Self

from celaje.engine.memory import GuestMemory
from celaje.engine.protocol import Exit, MmioWrite
from celaje.engine.translate.engine import TranslateEngine, TranslateHart
from celaje.isa.riscv.csr import NUMBERS
from celaje.isa.riscv.instructions import RISCV
from celaje.isa.table import FLOAT_REGISTERS, INTEGER_REGISTERS, ROUNDING_MODES, Instruction

REGISTERS = (
    {name: number for number, name in enumerate(INTEGER_REGISTERS)}
    | {f"x{number}": number for number in range(32)}
    | {name: number for number, name in enumerate(FLOAT_REGISTERS)}
    | {f"f{number}": number for number in range(32)}
    | {"fp": 8}
)
MODES = {name: number for number, name in ROUNDING_MODES.items()} | {"r": 2, "w": 1, "rw": 3, "iorw": 15}
ENTRIES = {entry.name: entry for entry in RISCV.of(64)}
DISTANCES = frozenset({"beq", "bne", "blt", "bge", "bltu", "bgeu", "jal", "c.j", "c.beqz", "c.bnez"})
BASE = 0x8000_0000
DEVICES = 0x1000_0000  # no memory is there
NEVER_SECONDS = 30  # a program that runs for so long is stuck

# Ends a program with a0 as its result, wherever translation is off.
DONE = f"li t6, {DEVICES}; sd a0, 0(t6)"
# Ends it with what the trap registers of machine mode hold.
TRAPPED = f"csrr t4, mtval; csrr t5, mepc; csrr a0, mcause; li t6, {DEVICES}; sd a0, 8(t6)"


class Assembler:
    """One pass that makes pieces, and a second that knows the labels."""

    def __init__(self, base: int, values: Mapping[str, int]) -> None:
        self.base = base
        self.at = base
        self.labels: dict[str, int] = {}
        self._values = dict(values)
        self._pieces: list[tuple[int, Callable[[], bytes]]] = []

    def _number(self, text: str) -> int:
        if text in REGISTERS:
            return REGISTERS[text]
        for known in (self.labels, self._values, NUMBERS, MODES):
            if text in known:
                return known[text]
        if "+" in text:
            return sum(self._number(part.strip()) for part in text.split("+"))
        return int(text, 0)

    def _emit(self, length: int, make: Callable[[], bytes]) -> None:
        self._pieces.append((self.at, make))
        self.at += length

    def _instruction(self, name: str, operands: str) -> None:
        entry = ENTRIES[name]
        syntax = entry.syntax.partition(" ")[2]
        names = re.findall("[a-z][a-z0-9]*", syntax)
        if names and names[-1] == "rm" and operands.count(",") == len(names) - 2:
            operands += ", dyn"
        between = [re.escape(part).replace(r"\ ", r"\s*") for part in re.split("[a-z][a-z0-9]*", syntax)]
        pattern = "([^,()]+)".join(between)
        match = re.fullmatch(pattern, operands)
        if match is None:
            raise ValueError(f"{name} {operands} is not {entry.syntax}")
        here = self.at
        texts = dict(zip(names, (text.strip() for text in match.groups()), strict=True))
        self._emit(entry.length, lambda: self._encode(entry, texts, here))

    def _encode(self, entry: Instruction, texts: Mapping[str, str], here: int) -> bytes:
        values = {}
        for name, text in texts.items():
            value = self._number(text)
            if name == "imm" and entry.name in DISTANCES and text in self.labels:
                value -= here
            if name == "upper":
                name, value = "imm", (value << 12 & 0xFFFFFFFF ^ 0x80000000) - 0x80000000
            values[name] = value
        return entry.encode(**values).to_bytes(entry.length, "little")

    def _data(self, text: str, size: int) -> bytes:
        return (self._number(text) % (1 << 8 * size)).to_bytes(size, "little")

    def _load_immediate(self, rd: str, value: int) -> None:
        value = (value & (1 << 64) - 1 ^ 1 << 63) - (1 << 63)
        low = (value & 0xFFF ^ 0x800) - 0x800
        if value == low:
            self._instruction("addi", f"{rd}, zero, {value}")
        elif -(1 << 31) <= value < 1 << 31:
            self._instruction("lui", f"{rd}, {value - low >> 12 & 0xFFFFF}")
            if low:
                self._instruction("addiw", f"{rd}, {rd}, {low}")
        else:
            self._load_immediate(rd, value - low >> 12)
            self._instruction("slli", f"{rd}, {rd}, 12")
            if low:
                self._instruction("addi", f"{rd}, {rd}, {low}")

    def _load_address(self, rd: str, label: str) -> None:
        here = self.at

        def make() -> bytes:
            distance = self._number(label) - here
            low = (distance & 0xFFF ^ 0x800) - 0x800
            number = REGISTERS[rd]
            words = ENTRIES["auipc"].encode(rd=number, imm=distance - low) | (
                ENTRIES["addi"].encode(rd=number, rs1=number, imm=low) << 32
            )
            return words.to_bytes(8, "little")

        self._emit(8, make)

    def line(self, text: str) -> None:
        """One line without a comment."""
        while match := re.match(r"\s*([A-Za-z_]\w*):", text):
            self.labels[match[1]] = self.at
            text = text[match.end() :]
        name, _, rest = text.strip().partition(" ")
        rest = rest.strip()
        if not name:
            return
        parts = [part.strip() for part in rest.split(",")]
        if name in (".word", ".half", ".dword"):
            size = {".half": 2, ".word": 4, ".dword": 8}[name]
            for part in parts:
                self._emit(size, partial(self._data, part, size))
        elif name == ".space":
            self.at += self._number(rest)
        elif name == ".org":
            if self._number(rest) < self.at:
                raise ValueError(f"{rest} is behind {self.at:#x}")
            self.at = self._number(rest)
        elif name == ".align":
            self.at = -(-self.at // self._number(rest)) * self._number(rest)
        elif name == "li":
            self._load_immediate(parts[0], self._number(parts[1]))
        elif name == "la":
            self._load_address(*parts)
        elif name in SHORTHANDS:
            real, operands = SHORTHANDS[name]
            self._instruction(real, operands.format(*parts))
        else:
            self._instruction(name, rest)

    def image(self) -> bytes:
        """Everything, from the base on."""
        data = bytearray(self.at - self.base)
        for at, make in self._pieces:
            piece = make()
            data[at - self.base : at - self.base + len(piece)] = piece
        return bytes(data)


SHORTHANDS = {
    "nop": ("addi", "zero, zero, 0"),
    "mv": ("addi", "{0}, {1}, 0"),
    "not": ("xori", "{0}, {1}, -1"),
    "neg": ("sub", "{0}, zero, {1}"),
    "ret": ("jalr", "zero, 0(ra)"),
    "jr": ("jalr", "zero, 0({0})"),
    "j": ("jal", "zero, {0}"),
    "call": ("jal", "ra, {0}"),
    "beqz": ("beq", "{0}, zero, {1}"),
    "bnez": ("bne", "{0}, zero, {1}"),
    "csrr": ("csrrs", "{0}, {1}, zero"),
    "csrw": ("csrrw", "zero, {0}, {1}"),
    "csrs": ("csrrs", "zero, {0}, {1}"),
    "csrc": ("csrrc", "zero, {0}, {1}"),
}


def assemble(text: str, base: int = BASE, **values: int) -> Assembler:
    """The text's bytes (`image()`) and labels."""
    assembler = Assembler(base, values)
    for line in text.splitlines():
        for part in line.partition("#")[0].split(";"):
            assembler.line(part)
    return assembler


def word(text: str, at: int = 0, **values: int) -> int:
    """One instruction's bits."""
    return int.from_bytes(assemble(text, at, **values).image(), "little")


@dataclass(frozen=True)
class Trap:
    """mcause, mtval and mepc."""

    cause: int
    value: int
    pc: int


class Guest:
    """An engine with memory at BASE and a program in it. Hart 0 starts at BASE in machine mode; so does every other."""

    def __init__(
        self, text: str = "", harts: int = 1, size: int = 4 << 20, decoded: int = 8 << 20, **values: int
    ) -> None:
        self.engine = TranslateEngine(harts, decoded)
        self.memory = GuestMemory(BASE, size)
        self.engine.add_memory(self.memory)
        self.labels: dict[str, int] = {}
        if text:
            self.load(text, **values)
        for hart in self.engine.harts:
            hart.set("pc", BASE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """No hart may be running."""
        self.engine.close()
        self.memory.close()

    @property
    def hart(self) -> TranslateHart:
        return self.engine.harts[0]

    def load(self, text: str, base: int = BASE, **values: int) -> None:
        """Assemble into memory; labels stay known."""
        made = assemble(text, base, **values)
        self.memory.write(base, made.image())
        self.labels |= made.labels
        for hart in self.engine.harts:
            hart.flush_instructions()

    def x(self, name: str, hart: int = 0) -> int:
        """An integer register by name."""
        return self.engine.harts[hart].get("x", REGISTERS[name])

    def word(self, address: int, size: int = 8) -> int:
        """A number in memory."""
        return int.from_bytes(self.memory.read(address, size), "little")

    def put(self, address: int, value: int, size: int = 8) -> None:
        """Set one, as a device would."""
        self.memory.write(address, (value % (1 << 8 * size)).to_bytes(size, "little"))

    def run(self, hart: int = 0) -> Exit:
        """Until the next exit; Interrupted where the guest is stuck."""
        timer = threading.Timer(NEVER_SECONDS, self.engine.harts[hart].interrupt)
        timer.start()
        try:
            return self.engine.harts[hart].run()
        finally:
            timer.cancel()

    def result(self, hart: int = 0) -> int:
        """Run to DONE; what a0 was."""
        came = self.run(hart)
        assert isinstance(came, MmioWrite), came
        assert came.address == DEVICES, self._trap(hart)
        return came.value

    def trap(self, hart: int = 0) -> Trap:
        """Run to TRAPPED, which `load_trap_handler` put behind mtvec."""
        came = self.run(hart)
        assert isinstance(came, MmioWrite), came
        assert came.address == DEVICES + 8, came
        return self._trap(hart)

    def _trap(self, hart: int) -> Trap:
        return Trap(*(self.x(name, hart) for name in ("a0", "t4", "t5")))

    def load_trap_handler(self, hart: int = 0) -> None:
        """Have traps to machine mode end the program. The handler is in memory's last page."""
        at = BASE + self.memory.size - 4096
        self.load(TRAPPED, at)
        self.engine.harts[hart].set("mtvec", at)

    def open_protection(self, hart: int = 0) -> None:
        """Let the modes below machine mode reach everything."""
        self.engine.harts[hart].set("pmpaddr0", (1 << 54) - 1)
        self.engine.harts[hart].set("pmpcfg0", 0x1F)

    def run_all(self) -> list[Exit]:
        """Each hart in a thread of its own, until each has had one exit."""
        exits: list[Exit | None] = [None] * len(self.engine.harts)

        def run(index: int) -> None:
            exits[index] = self.run(index)

        threads = [threading.Thread(target=run, args=(index,)) for index in range(len(exits))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return [one for one in exits if one is not None]
