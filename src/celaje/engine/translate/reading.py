"""The reading of semantic functions that renders LLVM IR.

`Reading` holds what routines and handlers share: values are SSA names, locals are allocas (LLVM promotes them), state
is memory at fixed offsets from %st. Terminators end a basic block; what is rendered after one goes to a block that
nothing reaches, which LLVM drops.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from celaje.engine.translate.layout import FIELDS, PLACES
from celaje.isa.semantics import Routine, Semantics, StateField, Value, Variable


class LlvmModule:
    """The text of one LLVM module: declarations, functions, and the routines that are still to be rendered."""

    def __init__(self) -> None:
        self.declarations: dict[str, None] = {}
        self.functions: list[str] = []
        self.routines: dict[str, Routine] = {}
        self.pending: list[Routine] = []
        self.rendered: set[str] = set()

    def declare(self, text: str) -> None:
        """A module-level line, once."""
        self.declarations[text] = None

    def need(self, routine: Routine) -> None:
        """Have `routine` rendered before the module is finished."""
        known = self.routines.setdefault(routine.name, routine)
        if known is not routine:
            raise ValueError(f"two routines are named {routine.name}")
        if routine not in self.pending and routine.name not in self.rendered:
            self.pending.append(routine)

    def render_routines(self, make: Callable[[LlvmModule, Routine], str]) -> None:
        """Render routines until none is wanted any more."""
        while self.pending:
            routine = self.pending.pop()
            self.rendered.add(routine.name)
            self.functions.append(make(self, routine))

    def text(self) -> str:
        return "\n".join([*self.declarations, *self.functions])


class Local(Variable):
    """An alloca."""

    def __init__(self, reading: Reading, width: int) -> None:
        self.width = width
        self._reading = reading
        self._pointer = reading.local(f"i{width}")

    def get(self) -> Value:
        return self._reading.emit(self.width, f"load i{self.width}, ptr {self._pointer}")

    def set(self, value: Value | int) -> None:
        text = value.text if isinstance(value, Value) else str(value & ((1 << self.width) - 1))
        if isinstance(value, Value) and value.width != self.width:
            raise TypeError(f"a local of {self.width} bits cannot hold {value.width}")
        self._reading.line(f"store i{self.width} {text}, ptr {self._pointer}")


class Reading(Semantics):
    """Renders values, control and state. Instruction-level primitives are the subclasses'."""

    def __init__(self, module: LlvmModule) -> None:
        self._fields: dict[str, StateField] = FIELDS
        self.xlen = 64
        self._counter = 0
        self._ended = False
        self._loops: list[str] = []
        # after a `when`: the block after it, the line of its body's jump there, the line where it was over
        self._last_when: tuple[str, int | None, int] | None = None
        self._module = module
        self._locals: list[str] = []
        self._lines: list[str] = []

    # ---- text

    def fresh(self) -> str:
        """A new SSA name."""
        self._counter += 1
        return f"%t{self._counter}"

    def line(self, text: str) -> None:
        """One line of IR in the current block."""
        if self._ended:
            self.label(self.fresh()[1:])
        self._lines.append(f"  {text}")

    def label(self, name: str) -> None:
        """Begin a block. Falls through to it where the block before is not ended."""
        if not self._ended:
            self._lines.append(f"  br label %{name}")
        self._lines.append(f"{name}:")
        self._ended = False

    def end(self, text: str) -> None:
        """A terminator."""
        self.line(text)
        self._ended = True

    def emit(self, width: int, text: str) -> Value:
        """The value of `width` bits that `text` computes; width 0 for text that gives none."""
        if width == 0:
            self.line(text)
            return Value(self, 0, "")
        name = self.fresh()
        self.line(f"{name} = {text}")
        return Value(self, width, name)

    def local(self, kind: str) -> str:
        """A pointer to a new local of an LLVM type."""
        pointer = self.fresh()
        self._locals.append(f"  {pointer} = alloca {kind}")
        return pointer

    def declare(self, text: str) -> None:
        """A module-level line, once."""
        self._module.declare(text)

    @property
    def ended(self) -> bool:
        """Whether the current block has its terminator."""
        return self._ended

    def body(self) -> list[str]:
        """The lines of the function so far, locals first."""
        return ["entry:", *self._locals, *self._lines]

    # ---- values

    def constant(self, value: int, width: int) -> Value:
        return Value(self, width, str(value & ((1 << width) - 1)))

    def binary(self, operation: str, a: Value, b: Value) -> Value:
        return self.emit(a.width, f"{operation} i{a.width} {a.text}, {b.text}")

    def compare(self, predicate: str, a: Value, b: Value) -> Value:
        return self.emit(1, f"icmp {predicate} i{a.width} {a.text}, {b.text}")

    def convert(self, operation: str, a: Value, width: int) -> Value:
        return self.emit(width, f"{operation} i{a.width} {a.text} to i{width}")

    def unary(self, operation: str, a: Value) -> Value:
        kind = f"i{a.width}"
        extra = ", i1 false" if operation in ("ctlz", "cttz") else ""
        self.declare(f"declare {kind} @llvm.{operation}.{kind}({kind}{', i1' if extra else ''})")
        return self.emit(a.width, f"call {kind} @llvm.{operation}.{kind}({kind} {a.text}{extra})")

    def select(self, condition: Value, a: Value, b: Value) -> Value:
        return self.emit(a.width, f"select i1 {condition.text}, i{a.width} {a.text}, i{b.width} {b.text}")

    # ---- control

    def branch_to(self, condition: Value, if_set: str, if_clear: str, *, likely: bool | None = None) -> None:
        """End the block."""
        weights = "" if likely is None else (", !prof !0" if likely else ", !prof !1")
        self.end(f"br i1 {condition.text}, label %{if_set}, label %{if_clear}{weights}")

    @contextmanager
    def when(self, condition: Value) -> Iterator[None]:
        body, after = self.fresh()[1:], self.fresh()[1:]
        self.branch_to(condition, body, after)
        self.label(body)
        yield
        marker = len(self._lines)
        came_through = not self._ended
        self.label(after)
        self._last_when = (after, marker if came_through else None, len(self._lines))

    @contextmanager
    def otherwise(self) -> Iterator[None]:
        if self._last_when is None or self._last_when[2] != len(self._lines):
            raise ValueError("otherwise() must stand right after a when()")
        _, jump, _ = self._last_when
        done = self.fresh()[1:]
        if jump is not None:  # the when's body falls through: past this body instead
            self._lines[jump] = f"  br label %{done}"
        yield
        self.label(done)

    @contextmanager
    def loop(self) -> Iterator[None]:
        head, after = self.fresh()[1:], self.fresh()[1:]
        self.label(head)
        self._loops.append(after)
        yield
        if not self._ended:
            self.end(f"br label %{head}")
        self._loops.pop()
        self.label(after)

    def leave(self) -> None:
        self.end(f"br label %{self._loops[-1]}")

    def variable(self, value: Value | int, width: int = 0) -> Variable:
        local = Local(self, value.width if isinstance(value, Value) else width)
        local.set(value)
        return local

    def call(self, routine: Routine, *arguments: Value | int) -> tuple[Value, ...]:
        self._module.need(routine)
        texts = ["ptr %st"]
        for width, argument in zip(routine.parameters, arguments, strict=True):
            value = argument if isinstance(argument, Value) else self.constant(argument, width)
            if value.width != width:
                raise TypeError(f"{routine.name} takes {width} bits where {value.width} are given")
            texts.append(f"i{width} {value.text}")
        kind = result_type(routine.results)
        called = f"call fastcc {kind} @{routine.name}({', '.join(texts)})"
        if not routine.results:
            self.line(called)
            return ()
        whole = self.emit(-1, called)
        return tuple(
            self.emit(width, f"extractvalue {kind} {whole.text}, {index}")
            for index, width in enumerate(routine.results)
        )

    # ---- state

    def address_of(self, field: str, index: Value | int = 0) -> str:
        """A pointer to an element of a state field."""
        place = PLACES[field]
        size = place.field.width // 8
        if isinstance(index, int):
            return self.emit(-1, f"getelementptr i8, ptr %st, i64 {place.offset + index * size}").text
        scaled = index.zext(64) * size + place.offset
        return self.emit(-1, f"getelementptr i8, ptr %st, i64 {scaled.text}").text

    def read(self, field: str, index: Value | int = 0) -> Value:
        width = FIELDS[field].width
        return self.emit(width, f"load i{width}, ptr {self.address_of(field, index)}")

    def write(self, field: str, value: Value | int, index: Value | int = 0) -> None:
        width = FIELDS[field].width
        if isinstance(value, int):
            value = self.constant(value, width)
        if value.width != width:
            raise TypeError(f"{field} has {width} bits, not {value.width}")
        self.line(f"store i{width} {value.text}, ptr {self.address_of(field, index)}")

    # ---- host memory (beyond what the tables' semantics know)

    def pointer(self, address: Value) -> str:
        """A host address as a pointer."""
        return self.emit(-1, f"inttoptr i64 {address.text} to ptr").text

    def host_load(self, address: Value, width: int) -> Value:
        """`width` bits of host memory, atomically where the width allows it and the address is aligned."""
        return self.emit(width, f"load i{width}, ptr {self.pointer(address)}, align 1")

    def host_store(self, address: Value, value: Value) -> None:
        self.line(f"store i{value.width} {value.text}, ptr {self.pointer(address)}, align 1")


def result_type(results: Sequence[int]) -> str:
    """How a routine's results are given back."""
    return "{" + ", ".join(f"i{width}" for width in results) + "}" if results else "void"
