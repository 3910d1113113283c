"""The tables read as Python: every instruction and routine becomes one Python function over plain integers.

A value is a Python integer from 0 to 2**width - 1. Each operation is one line that makes a new local, so the source is
long and dull, but it says exactly what the semantic function says, in its order; `Rendered.source` shows it. Nothing is
optimised: this reading is what the fast one is compared with.

Where the language of `celaje.isa.semantics` gives an operation no meaning (a shift by the width or more, a division by
zero), the result is a conspicuous pattern, so that a semantic function that lets it through differs from other engines.

A rendered function gets the state `s` (one attribute a field, a list where the field is an array), the hart `m` that
has memory, clock and exits, and its own arguments. An instruction leaves the address of the next one in `s.pc`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from celaje.isa.riscv import float as float_meaning
from celaje.isa.riscv.state import FIELDS
from celaje.isa.semantics import Routine, Semantics, Value, Variable
from celaje.isa.table import F_OPERANDS, X_OPERANDS, Instruction

NO_MEANING = 0xDEAD_BEEF_DEAD_BEEF_DEAD_BEEF_DEAD_BEEF
INDENT = "    "

INFIX = {"add": "+", "sub": "-", "mul": "*", "and": "&", "or": "|", "xor": "^"}
SIGNED_COMPARISONS = {"slt": "<", "sle": "<=", "sgt": ">", "sge": ">="}
COMPARISONS = {"eq": "==", "ne": "!=", "ult": "<", "ule": "<=", "ugt": ">", "uge": ">="}
WRAPPING = ("add", "sub", "mul")


class Trap(Exception):
    """A synchronous exception of the guest: the instruction did not happen."""

    def __init__(self, cause: int, value: int) -> None:
        super().__init__(cause, value)
        self.cause = cause
        self.value = value


def signed(value: int, width: int) -> int:
    """`value`'s two's complement meaning."""
    sign = 1 << (width - 1)
    return (value ^ sign) - sign


def shift(operation: str, value: int, by: int, width: int) -> int:
    """shl, lshr or ashr."""
    mask = (1 << width) - 1
    if by >= width:
        return NO_MEANING & mask
    if operation == "shl":
        return value << by & mask
    return (value if operation == "lshr" else signed(value, width)) >> by & mask


def divide(operation: str, a: int, b: int, width: int) -> int:
    """udiv, urem, sdiv or srem; the signed ones round towards zero."""
    mask = (1 << width) - 1
    if operation[0] == "s":
        a, b = signed(a, width), signed(b, width)
        if a == -1 << (width - 1) and b == -1:
            return NO_MEANING & mask
    if b == 0:
        return NO_MEANING & mask
    quotient = abs(a) // abs(b)
    if (a < 0) != (b < 0):
        quotient = -quotient
    return (quotient if operation.endswith("div") else a - quotient * b) & mask


def count_bits(operation: str, value: int, width: int) -> int:
    """ctlz, cttz, ctpop or bswap."""
    if operation == "ctlz":
        return width - value.bit_length()
    if operation == "cttz":
        return (value & -value).bit_length() - 1 if value else width
    if operation == "ctpop":
        return value.bit_count()
    return int.from_bytes(value.to_bytes(width // 8, "little"), "big")


@dataclass(frozen=True)
class Rendered:
    """One instruction or routine as Python."""

    name: str
    source: str
    function: Callable[..., Any]


class Library:
    """All that was rendered for one register width; routines are rendered when they are first called for."""

    def __init__(self, xlen: int) -> None:
        self.xlen = xlen
        self._rendered: dict[str, tuple[object, Rendered]] = {}
        self._names: dict[str, Any] = {
            "signed": signed,
            "shift": shift,
            "divide": divide,
            "count_bits": count_bits,
            "Trap": Trap,
        }

    def routine(self, routine: Routine) -> Rendered:
        """`routine` as a function of (s, m, *arguments) that returns a tuple of its results."""
        name = f"routine_{routine.name}"
        if name in self._rendered:
            known, rendered = self._rendered[name]
            if known is not routine:
                raise ValueError(f"two routines are called {routine.name}")
            return rendered
        parameters = [f"a{i}" for i in range(len(routine.parameters))]
        reading = Reading(self, results=routine.results)
        arguments = [Value(reading, w, p) for w, p in zip(routine.parameters, parameters, strict=True)]
        routine.function(reading, *arguments)
        return self._compile(name, parameters, reading.lines(), routine)

    def instruction(self, instruction: Instruction) -> Rendered:
        """A full-width instruction as a function of (s, m, here, following, bits, *operands in the format's order)."""
        parameters = ["here", "following", "bits", *instruction.operands]
        reading = Reading(self, instruction=instruction)
        instruction.semantics(reading)
        lines = [*reading.lines(), f"{INDENT}s.pc = following"]
        return self._compile("i_" + instruction.name.replace(".", "_"), parameters, lines, instruction)

    def _compile(self, name: str, parameters: list[str], lines: list[str], subject: object) -> Rendered:
        source = "\n".join([f"def {name}({', '.join(['s', 'm', *parameters])}):", *lines, ""])
        exec(compile(source, f"<{name}, {self.xlen} bits>", "exec"), self._names)
        rendered = Rendered(name, source, self._names[name])
        if isinstance(subject, Routine):
            self._rendered[name] = (subject, rendered)
        return rendered


class Local(Variable):
    """A Python local that is assigned more than once."""

    def __init__(self, reading: Reading, width: int, name: str) -> None:
        self.width = width
        self._reading = reading
        self._name = name

    def get(self) -> Value:
        # Copied: the value stays what it was when the local changes.
        return self._reading._new(self.width, self._name)

    def set(self, value: Value | int) -> None:
        self._reading._emit(f"{self._name} = {self._reading._fit(value, self.width)}")


class Reading(Semantics):
    """Renders one semantic function. Widths are checked here: a value of another width than wanted is a TypeError."""

    def __init__(
        self, library: Library, *, instruction: Instruction | None = None, results: tuple[int, ...] | None = None
    ) -> None:
        self._library = library
        self._instruction = instruction
        self._results = results
        self._fields = FIELDS
        self._lines: list[str] = []
        self._depth = 1
        self._locals = 0
        self.xlen = library.xlen

    # ---- text

    def lines(self) -> list[str]:
        """The body, indented; never empty."""
        return self._lines or [f"{INDENT}pass"]

    def _emit(self, line: str) -> None:
        self._lines.append(INDENT * self._depth + line)

    def _name(self) -> str:
        self._locals += 1
        return f"t{self._locals}"

    def _new(self, width: int, expression: str) -> Value:
        name = self._name()
        self._emit(f"{name} = {expression}")
        return Value(self, width, name)

    def _fit(self, value: Value | int, width: int) -> str:
        if isinstance(value, int):
            return hex(value & ((1 << width) - 1))
        if value.width != width:
            raise TypeError(f"a value of {value.width} bits where {width} are wanted")
        return value.text

    @contextmanager
    def _block(self, head: str) -> Iterator[None]:
        self._emit(head)
        self._depth += 1
        before = len(self._lines)
        yield
        if len(self._lines) == before:
            self._emit("pass")
        self._depth -= 1

    # ---- values

    def constant(self, value: int, width: int) -> Value:
        return Value(self, width, hex(value & ((1 << width) - 1)))

    def binary(self, operation: str, a: Value, b: Value) -> Value:
        width = a.width
        if operation in INFIX:
            expression = f"{a.text} {INFIX[operation]} {b.text}"
            if operation in WRAPPING:
                expression = f"({expression}) & {(1 << width) - 1:#x}"
        elif operation == "lshr" and b.text.startswith("0x") and int(b.text, 16) < width:
            expression = f"{a.text} >> {b.text}"
        elif operation in ("shl", "lshr", "ashr"):
            expression = f"shift({operation!r}, {a.text}, {b.text}, {width})"
        else:
            expression = f"divide({operation!r}, {a.text}, {b.text}, {width})"
        return self._new(width, expression)

    def compare(self, predicate: str, a: Value, b: Value) -> Value:
        if predicate in COMPARISONS:
            return self._new(1, f"+({a.text} {COMPARISONS[predicate]} {b.text})")
        operator = SIGNED_COMPARISONS[predicate]
        return self._new(1, f"+(signed({a.text}, {a.width}) {operator} signed({b.text}, {b.width}))")

    def convert(self, operation: str, a: Value, width: int) -> Value:
        if (operation == "trunc") != (width < a.width):
            raise TypeError(f"{operation} from {a.width} to {width} bits")
        if operation == "zext":
            return Value(self, width, a.text)
        wide = f"signed({a.text}, {a.width})" if operation == "sext" else a.text
        return self._new(width, f"{wide} & {(1 << width) - 1:#x}")

    def unary(self, operation: str, a: Value) -> Value:
        return self._new(a.width, f"count_bits({operation!r}, {a.text}, {a.width})")

    def select(self, condition: Value, a: Value, b: Value) -> Value:
        return self._new(a.width, f"{a.text} if {self._fit(condition, 1)} else {b.text}")

    # ---- control

    @contextmanager
    def when(self, condition: Value) -> Iterator[None]:
        with self._block(f"if {self._fit(condition, 1)}:"):
            yield

    @contextmanager
    def otherwise(self) -> Iterator[None]:
        with self._block("else:"):
            yield

    @contextmanager
    def loop(self) -> Iterator[None]:
        with self._block("while True:"):
            yield

    def leave(self) -> None:
        self._emit("break")

    def variable(self, value: Value | int, width: int = 0) -> Variable:
        width = value.width if isinstance(value, Value) else width
        local = Local(self, width, self._name())
        local.set(value)
        return local

    def call(self, routine: Routine, *arguments: Value | int) -> tuple[Value, ...]:
        name = self._library.routine(routine).name
        texts = [self._fit(a, w) for a, w in zip(arguments, routine.parameters, strict=True)]
        names = [self._name() for _ in routine.results]
        target = "".join(f"{n}, " for n in names)
        self._emit(f"{target}{'= ' if names else ''}{name}({', '.join(['s', 'm', *texts])})")
        return tuple(Value(self, w, n) for w, n in zip(routine.results, names, strict=True))

    def give(self, *results: Value | int) -> None:
        if self._results is None:
            raise TypeError("an instruction has no results to give")
        texts = [self._fit(r, w) for r, w in zip(results, self._results, strict=True)]
        self._emit(f"return ({''.join(t + ', ' for t in texts)})")

    # ---- state

    def read(self, field: str, index: Value | int = 0) -> Value:
        return self._new(FIELDS[field].width, self._element(field, index))

    def write(self, field: str, value: Value | int, index: Value | int = 0) -> None:
        self._emit(f"{self._element(field, index)} = {self._fit(value, FIELDS[field].width)}")

    def _element(self, field: str, index: Value | int) -> str:
        if FIELDS[field].count == 1:
            return f"s.{field}"
        return f"s.{field}[{index.text if isinstance(index, Value) else index}]"

    def _has_operand(self, name: str) -> None:
        if self._instruction is None or name not in self._instruction.operands:
            raise AttributeError(f"{name} is neither state nor an operand of {self._instruction}")

    def operand(self, name: str) -> Value:
        self._has_operand(name)
        if name in X_OPERANDS:
            return self._new(self.xlen, f"s.x[{name}]")
        if name in F_OPERANDS:
            return self._new(64, f"s.f[{name}]")
        return Value(self, self.xlen, name)

    def number_of(self, name: str) -> Value:
        self._has_operand(name)
        return Value(self, 8, name)

    def set_operand(self, name: str, value: Value) -> None:
        self._has_operand(name)
        if name == "rd":
            self._emit(f"if rd: s.x[rd] = {self._fit(value, self.xlen)}")
        elif name == "frd":
            self._emit(f"s.f[frd] = {self._fit(value, 64)}; s.fs = 3")
        else:
            raise AttributeError(f"{name} is no operand that can be set")

    # ---- program flow

    @property
    def here(self) -> Value:
        return Value(self, self.xlen, "here")

    @property
    def following(self) -> Value:
        return Value(self, self.xlen, "following")

    @property
    def instruction_bits(self) -> Value:
        return Value(self, self.xlen, "bits")

    def branch(self, condition: Value) -> None:
        with self.when(condition):
            self.jump()
        self._emit("s.pc = following")
        self._emit("return")

    def jump(self) -> None:
        self.jump_to(self.here + self.operand("imm"))

    def jump_to(self, target: Value) -> None:
        self._emit(f"s.pc = {self._fit(target, self.xlen)}")
        self._emit("return")

    def trap(self, cause: Value | int, value: Value | int) -> None:
        number = cause.text if isinstance(cause, Value) else str(cause)
        shown = value.text if isinstance(value, Value) else str(value)
        self._emit(f"raise Trap({number}, {shown})")

    # ---- memory

    def load(self, address: Value, size: int) -> Value:
        return self._new(8 * size, f"m.load({self._fit(address, self.xlen)}, {size})")

    def store(self, address: Value, value: Value) -> None:
        self._emit(f"m.store({self._fit(address, self.xlen)}, {value.width // 8}, {value.text})")

    def atomic(self, operation: str, address: Value, value: Value) -> Value:
        size = value.width // 8
        expression = f"m.atomic({operation!r}, {self._fit(address, self.xlen)}, {size}, {value.text})"
        return self._new(value.width, expression)

    def load_reserved(self, address: Value, size: int) -> Value:
        return self._new(8 * size, f"m.load_reserved({self._fit(address, self.xlen)}, {size})")

    def store_conditional(self, address: Value, value: Value) -> Value:
        size = value.width // 8
        return self._new(1, f"m.store_conditional({self._fit(address, self.xlen)}, {size}, {value.text})")

    def zero_block(self, address: Value, size: int) -> None:
        self._emit(f"m.zero_block({self._fit(address, self.xlen)}, {size})")

    def check_block(self, address: Value, size: int) -> None:
        self._emit(f"m.check_block({self._fit(address, self.xlen)}, {size})")

    def fence(self, stores_before_loads: Value | None = None) -> None:
        """Nothing: harts take turns, and each sees all that those before it did."""

    def fence_instructions(self) -> None:
        """Nothing: each instruction is fetched when it is executed."""

    def flush_translations(self, address: Value, all_addresses: Value) -> None:
        self._emit("m.translation_changed()")

    def translation_changed(self) -> None:
        self._emit("m.translation_changed()")

    def translation_root_changed(self) -> None:
        self._emit("m.translation_changed()")

    def physical_load(self, address: Value, size: int) -> tuple[Value, Value]:
        value, present = self._name(), self._name()
        self._emit(f"{value}, {present} = m.physical_load({self._fit(address, 64)}, {size})")
        return Value(self, 8 * size, value), Value(self, 1, present)

    def physical_set_bits(self, address: Value, expected: Value, bits: Value) -> Value:
        texts = f"{self._fit(address, 64)}, {expected.width // 8}, {expected.text}, {self._fit(bits, expected.width)}"
        return self._new(1, f"m.physical_set_bits({texts})")

    # ---- the world

    def clock(self) -> Value:
        return self._new(64, "m.clock()")

    def retired(self) -> Value:
        return self._new(64, "m.retired")

    def wait(self) -> None:
        self._emit("m.wait()")

    def hypercall(self) -> None:
        self._leave("m.hypercall()")

    def system_call(self) -> None:
        self._leave("m.system_call()")

    def _leave(self, request: str) -> None:
        self._emit("s.pc = following")
        self._emit(request)
        self._emit("return")

    # ---- floating point: the definitions themselves

    def float_rounding(self) -> Value:
        return float_meaning.float_rounding(self)

    def float_enabled(self) -> None:
        float_meaning.float_enabled(self)

    def float_operation(self, operation: str, *operands: Value, rounding: Value | None = None) -> Value:
        return float_meaning.float_operation(self, operation, *operands, rounding=rounding)

    def accrue(self, flags: Value | int) -> None:
        text = flags.text if isinstance(flags, Value) else hex(flags)
        self._emit(f"if {text} & ~s.fflags: s.fflags |= {text}; s.fs = 3")

    def float_flags(self) -> Value:
        return self.read("fflags")

    def set_float_flags(self, flags: Value) -> None:
        self.write("fflags", flags & 0x1F)

    def rounding_changed(self) -> None:
        """Nothing: the mode is read when it is used."""
