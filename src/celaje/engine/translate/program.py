"""The whole program that executes RISC-V: every handler, every routine, the decoder's tables.

Which handlers an instruction gets is decided here: variants for operands that make it cheaper, and sequences of
instructions that often follow each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from celaje.engine.translate.control import (
    REGISTER_ACCESS,
    SPECIAL,
    function_text,
    render_entry,
    render_register_access,
    render_special,
)
from celaje.engine.translate.decoder_tables import (
    BACKWARD,
    FIRST_HANDLER,
    HANDLER_ILLEGAL,
    HANDLER_PAGE_END,
    HANDLER_STRADDLE,
    HANDLER_UNDECODED,
    IMMEDIATE_ZERO,
    IN_PAGE,
    OF_STATUS,
    RD_IS_RS1,
    RD_ZERO,
    ROUNDING_DYNAMIC,
    ROUNDING_TO_EVEN,
    ROUNDING_TO_ZERO,
    RS1_ZERO,
    RS2_ZERO,
    SHORT,
    Variant,
    build,
)
from celaje.engine.translate.decoding import LONGEST_SEQUENCE
from celaje.engine.translate.handlers import ATTRIBUTES, HandlerReading, NeedsFull
from celaje.engine.translate.reading import LlvmModule
from celaje.engine.translate.routines import render_routine
from celaje.engine.translate.sequences import SEQUENCES
from celaje.isa.riscv.csr import change_interrupt_enable, is_interrupt_enable
from celaje.isa.riscv.instructions import RISCV
from celaje.isa.table import Instruction

RELATIVE = frozenset({"beq", "bne", "blt", "bge", "bltu", "bgeu", "jal"})
MOVES_WITH_RS1_ZERO = frozenset({"add", "sub", "sltu", "or"})
INTERRUPT_ENABLES = {
    "csrrs": ("rs1", False),
    "csrrc": ("rs1", True),
    "csrrsi": ("uimm", False),
    "csrrci": ("uimm", True),
}
EXACT_CONVERSIONS = frozenset({"fcvt.d.s", "fcvt.d.w", "fcvt.d.wu"})
# instructions after which nothing can have changed that a hart must look at
PLAIN_EXTENSIONS = frozenset({"I", "M", "A", "F", "D", "Zba", "Zbb", "Zbs", "Zicond", "Zicbom", "Zicboz"})
SYSTEM_NAMES = frozenset({"wfi", "mret", "sret", "sfence.vma", "ecall", "ebreak", "fence.i"})


@dataclass(frozen=True)
class Shape:
    """One variant of an instruction's handler: the conditions it is for and what they fix."""

    name: str
    mask: int = 0
    match: int = 0
    constants: dict[str, int] = field(default_factory=dict)
    same: bool = False
    in_page: bool | None = None
    backward: bool = False
    semantics: Callable[[HandlerReading], None] | None = None  # in place of the instruction's own


def _interrupt_enable(operand: str, clears: bool) -> Callable[[HandlerReading], None]:
    """csrrs and its like of sstatus: by itself where it is about interrupts alone, which needs no look at the rest."""

    def semantics(h: HandlerReading) -> None:
        asked = h.rs1 if operand == "rs1" else h.number_of("uimm").zext(64)
        h.full_unless(is_interrupt_enable(h, asked, clears))
        h.rd = change_interrupt_enable(h, asked, clears)

    return semantics


def shapes(instruction: Instruction) -> Iterator[Shape]:
    """An instruction's variants, the most special first; the last has no conditions."""
    operands = instruction.operands
    if instruction.name in RELATIVE:
        where = (
            ("back", IN_PAGE | BACKWARD, IN_PAGE | BACKWARD, True, True),
            ("on", IN_PAGE | BACKWARD, IN_PAGE, True, False),
            ("far", 0, 0, False, False),
        )
        cheap = ("rs2", RS2_ZERO) if "rs2" in operands else ("rd", RD_ZERO)
        for name, mask, match, in_page, backward in where:
            special = {cheap[0]: 0}
            yield Shape(f"{name}.{cheap[0]}0", mask | cheap[1], match | cheap[1], special, False, in_page, backward)
        for name, mask, match, in_page, backward in where:
            yield Shape(name, mask, match, {}, False, in_page, backward)
        return
    if instruction.name == "jalr":
        yield Shape("rd0", RD_ZERO | IMMEDIATE_ZERO, RD_ZERO | IMMEDIATE_ZERO, {"rd": 0, "imm": 0})
    elif instruction.name in INTERRUPT_ENABLES:
        semantics = _interrupt_enable(*INTERRUPT_ENABLES[instruction.name])
        yield Shape("status", OF_STATUS, OF_STATUS, semantics=semantics)
    elif "rm" in operands:
        yield Shape("dyn", ROUNDING_DYNAMIC, ROUNDING_DYNAMIC, {"rm": 7})
        if "rd" in operands:  # to an integer, as C truncates
            yield Shape("rtz", ROUNDING_TO_ZERO, ROUNDING_TO_ZERO, {"rm": 1})
        if instruction.name in EXACT_CONVERSIONS:
            yield Shape("rne", ROUNDING_TO_EVEN, ROUNDING_TO_EVEN, {"rm": 0})
    elif instruction.extension in ("I", "M", "Zba", "Zbb", "Zbs") and "rd" in operands and "rs1" in operands:
        if instruction.name == "addi":
            yield Shape("li", RS1_ZERO, RS1_ZERO, {"rs1": 0})
            yield Shape("mv", IMMEDIATE_ZERO, IMMEDIATE_ZERO, {"imm": 0})
        if instruction.name == "addiw":
            yield Shape("sext", IMMEDIATE_ZERO, IMMEDIATE_ZERO, {"imm": 0})
        if instruction.name in MOVES_WITH_RS1_ZERO:
            yield Shape("rs10", RS1_ZERO, RS1_ZERO, {"rs1": 0})
        if "(" not in instruction.syntax:
            yield Shape("same", RD_IS_RS1, RD_IS_RS1, same=True)
    yield Shape("any")


@dataclass
class Program:
    """The text of the LLVM module, the handlers in the order of their numbers, and the decoder's tables.

    `counted`: in a profiled program, the handlers in the order of their counters, from 1.
    """

    text: str
    handlers: list[str]
    tables: bytes
    counted: list[str]


def _is_system(instruction: Instruction) -> bool:
    return instruction.extension not in PLAIN_EXTENSIONS or instruction.name in SYSTEM_NAMES


PROFILED_HANDLERS = 2048


class Builder:
    """Renders handlers and remembers their numbers. `profiled`: each counts what was executed before it."""

    def __init__(self, profiled: bool = False) -> None:
        self.profiled = profiled
        self.counted: list[str] = [""]
        self.module = LlvmModule()
        self.handlers = [""] * FIRST_HANDLER
        self.rendered: set[str] = set()
        self.straight: dict[str, tuple[Instruction, int, str, Shape]] = {}

    def number(self, name: str) -> int:
        """The number of a handler, given now if it has none."""
        if name not in self.handlers:
            self.handlers.append(name)
        return self.handlers.index(name)

    def _reading(self, name: str, *, full: bool) -> HandlerReading:
        reading = HandlerReading(self.module, full=full)
        if self.profiled:
            if name not in self.counted:
                self.counted.append(name)
            number = self.counted.index(name)
            counter = reading.profile + (reading.profile_last * PROFILED_HANDLERS + number) * 8
            reading.host_store(counter, reading.host_load(counter, 64) + 1)
            reading.profile_last = number
        return reading

    def full(self, instruction: Instruction, length: int, name: str) -> None:
        """Render an instruction's full handler, once."""
        if name in self.rendered:
            return
        self.rendered.add(name)
        reading = self._reading(name, full=True)
        if _is_system(instruction):
            reading.set_system()
        reading.begin(instruction, length, name)
        instruction.semantics(reading)
        reading.finish()
        self.module.functions.append(function_text(name, reading))

    def variant(self, instruction: Instruction, key: str, length: int, shape: Shape) -> str:
        """Render one variant; the name of the handler that serves it."""
        stem = f"{key.replace('/', '.')}.{length}"
        full = f"{stem}.full"
        name = f"{stem}.{shape.name}"
        reading = self._reading(name, full=False)
        try:
            self._apply(reading, instruction, length, full, shape)
            reading.finish()
        except NeedsFull:
            self.full(instruction, length, full)
            return full
        text = function_text(name, reading)
        if f"@{full}(" in text:
            self.full(instruction, length, full)
        self.module.functions.append(text)
        self.straight[name] = (instruction, length, full, shape)
        return name

    @staticmethod
    def _apply(reading: HandlerReading, instruction: Instruction, length: int, full: str, shape: Shape) -> None:
        reading.begin(
            instruction,
            length,
            full,
            shape.constants,
            same=shape.same,
            in_page=shape.in_page,
            backward=shape.backward,
        )
        (shape.semantics or instruction.semantics)(reading)

    def sequence(self, parts: Sequence[str]) -> str | None:
        """Render handlers as one; None where one is not there or does not go straight on to the next."""
        if not all(part in self.straight for part in parts) or not 2 <= len(parts) <= LONGEST_SEQUENCE:
            return None
        name = "+".join(parts)
        reading = self._reading(name, full=False)
        for number, part in enumerate(parts):
            if number:
                if reading.ended:
                    return None
                reading.go_on()
            self._apply(reading, *self.straight[part])
        reading.finish()
        self.module.functions.append(function_text(name, reading))
        return name


def build_program(sequences: Sequence[tuple[str, ...]] = SEQUENCES, profiled: bool = False) -> Program:
    """Everything, as text and tables."""
    builder = Builder(profiled)
    table = RISCV.of(64)
    keys = {key: entry for key, entry in RISCV.instructions.items() if 64 in entry.xlens}
    numbers: dict[str, int] = {}
    variants: dict[str, list[Variant]] = {}
    short_forms = {entry.base for entry in table if entry.base}
    for special in (
        (HANDLER_UNDECODED, "undecoded"),
        (HANDLER_PAGE_END, "page_end"),
        (HANDLER_ILLEGAL, "illegal"),
        (HANDLER_STRADDLE, "straddle"),
    ):
        builder.handlers[special[0]] = special[1]
    for key, entry in keys.items():
        if entry.base:
            continue
        numbers[key] = len(numbers)
        variants[key] = []
        for length in (4, 2) if key in short_forms else (4,):
            wanted = SHORT if length == 2 else 0
            for shape in shapes(entry):
                name = builder.variant(entry, key, length, shape)
                variants[key].append(Variant(shape.mask | SHORT, shape.match | wanted, builder.number(name)))
    fused: dict[int, list[tuple[int, int]]] = {}
    for sequence in sequences:
        together = builder.sequence(sequence)
        if together is not None:
            row = (builder.number(sequence[-1]), builder.number(together))
            fused.setdefault(builder.number("+".join(sequence[:-1])), []).append(row)
    for name in SPECIAL:
        builder.module.functions.append(render_special(builder.module, name))
    builder.module.functions.append(render_entry(builder.module))
    builder.module.functions.append(render_register_access(builder.module))
    builder.number(REGISTER_ACCESS)
    builder.module.render_routines(render_routine)
    key_of = {id(entry): key for key, entry in keys.items()}
    tables = build(table, numbers, variants, RELATIVE, fused, key_of)
    text = "\n".join(
        [
            builder.module.text(),
            f"attributes #0 = {{ {ATTRIBUTES} }}",
            '!0 = !{!"branch_weights", i32 2000, i32 1}',
            '!1 = !{!"branch_weights", i32 1, i32 2000}',
        ]
    )
    return Program(text, builder.handlers, tables, builder.counted)
