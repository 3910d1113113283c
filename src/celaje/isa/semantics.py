"""Abstract values: the language in which the meaning of instructions is written, once.

A semantic function is plain Python over `Value`s: bit vectors of a known width whose operators do not compute but ask
a `Semantics` to note the operation. Each *reading* of the tables is a subclass of `Semantics`: one renders LLVM IR
(`celaje.engine.translate`), one renders Python over integers (the reference evaluator). Conditions and loops that
depend on values are `with h.when(c):`, `with h.otherwise():` and `with h.loop():`; a Python `if` or `for` is decided
while the meaning is being read, so it may only depend on the table (widths, the register width `h.xlen`).

Names that are set or read on `h` itself are the hart's state (`h.mstatus`, `h.fflags`) or an instruction's operands
(`h.rs1`, `h.imm`, `h.rd = ...`). A field that is an array is read by `h.read(name, index)`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass


class Value:
    """A bit vector of `width` bits; `text` names it in the reading that made it. Arithmetic is modulo 2**width."""

    __slots__ = ("semantics", "text", "width")

    def __init__(self, semantics: Semantics, width: int, text: str) -> None:
        self.semantics = semantics
        self.width = width
        self.text = text

    def _with(self, other: Value | int) -> Value:
        if isinstance(other, int):
            return self.semantics.constant(other, self.width)
        if other.width != self.width:
            raise TypeError(f"operands of {self.width} and {other.width} bits; extend or truncate one of them")
        return other

    def _binary(self, operation: str, other: Value | int) -> Value:
        return self.semantics.binary(operation, self, self._with(other))

    def _compare(self, predicate: str, other: Value | int) -> Value:
        return self.semantics.compare(predicate, self, self._with(other))

    def __add__(self, other: Value | int) -> Value:
        return self._binary("add", other)

    def __sub__(self, other: Value | int) -> Value:
        return self._binary("sub", other)

    def __rsub__(self, other: int) -> Value:
        return self._with(other) - self

    def __neg__(self) -> Value:
        return self._with(0) - self

    def __mul__(self, other: Value | int) -> Value:
        return self._binary("mul", other)

    def __and__(self, other: Value | int) -> Value:
        return self._binary("and", other)

    def __or__(self, other: Value | int) -> Value:
        return self._binary("or", other)

    def __xor__(self, other: Value | int) -> Value:
        return self._binary("xor", other)

    def __invert__(self) -> Value:
        return self._binary("xor", -1)

    def __lshift__(self, other: Value | int) -> Value:
        """Shifts by `width` or more have no meaning; mask the amount first."""
        return self._binary("shl", other)

    def __rshift__(self, other: Value | int) -> Value:
        """Logical. Shifts by `width` or more have no meaning; mask the amount first."""
        return self._binary("lshr", other)

    def sra(self, other: Value | int) -> Value:
        """Arithmetic shift right; the amount must be below the width."""
        return self._binary("ashr", other)

    def divided_unsigned(self, other: Value | int) -> Value:
        """Quotient; a zero divisor has no meaning and must be replaced first (as must overflow for the signed one)."""
        return self._binary("udiv", other)

    def divided_signed(self, other: Value | int) -> Value:
        """Quotient rounded towards zero."""
        return self._binary("sdiv", other)

    def remainder_unsigned(self, other: Value | int) -> Value:
        """Remainder of `divided_unsigned`."""
        return self._binary("urem", other)

    def remainder_signed(self, other: Value | int) -> Value:
        """Remainder of `divided_signed`: it has the dividend's sign."""
        return self._binary("srem", other)

    def eq(self, other: Value | int) -> Value:
        return self._compare("eq", other)

    def ne(self, other: Value | int) -> Value:
        return self._compare("ne", other)

    def below(self, other: Value | int) -> Value:
        """Unsigned less than."""
        return self._compare("ult", other)

    def at_most(self, other: Value | int) -> Value:
        """Unsigned less than or equal."""
        return self._compare("ule", other)

    def above(self, other: Value | int) -> Value:
        """Unsigned greater than."""
        return self._compare("ugt", other)

    def at_least(self, other: Value | int) -> Value:
        """Unsigned greater than or equal."""
        return self._compare("uge", other)

    def less(self, other: Value | int) -> Value:
        """Signed less than."""
        return self._compare("slt", other)

    def greater_equal(self, other: Value | int) -> Value:
        """Signed greater than or equal."""
        return self._compare("sge", other)

    def zext(self, width: int) -> Value:
        """Zero-extended (or unchanged when `width` is its own)."""
        return self if width == self.width else self.semantics.convert("zext", self, width)

    def sext(self, width: int) -> Value:
        """Sign-extended."""
        return self if width == self.width else self.semantics.convert("sext", self, width)

    def trunc(self, width: int) -> Value:
        """The low `width` bits."""
        return self if width == self.width else self.semantics.convert("trunc", self, width)

    def bits(self, high: int, low: int) -> Value:
        """Bits `high` to `low`, both included, as a value of that many bits."""
        return (self >> low if low else self).trunc(high - low + 1)

    def bit(self, index: int) -> Value:
        """One bit, as a condition."""
        return self.bits(index, index)

    def select(self, if_set: Value | int, if_clear: Value | int, width: int = 0) -> Value:
        """For a condition (1 bit): the one or the other. Both are already computed. `width` is for two integers."""
        width = if_set.width if isinstance(if_set, Value) else if_clear.width if isinstance(if_clear, Value) else width
        s = self.semantics
        a = if_set if isinstance(if_set, Value) else s.constant(if_set, width)
        return s.select(self, a, a._with(if_clear))

    def leading_zeros(self) -> Value:
        """Count; the width itself for zero."""
        return self.semantics.unary("ctlz", self)

    def trailing_zeros(self) -> Value:
        """Count; the width itself for zero."""
        return self.semantics.unary("cttz", self)

    def population(self) -> Value:
        """How many bits are set."""
        return self.semantics.unary("ctpop", self)

    def bytes_reversed(self) -> Value:
        """The bytes in the other order; the width is a multiple of 16."""
        return self.semantics.unary("bswap", self)


class Variable(ABC):
    """A local that loops and conditions may change."""

    width: int

    @abstractmethod
    def get(self) -> Value: ...

    @abstractmethod
    def set(self, value: Value | int) -> None: ...


@dataclass(frozen=True)
class Routine:
    """A semantic function that is rendered once and called: its parameters' and results' widths in bits."""

    name: str
    function: Callable[..., None]
    parameters: tuple[int, ...]
    results: tuple[int, ...]


def routine(
    parameters: Sequence[int] = (), results: Sequence[int] = ()
) -> Callable[[Callable[..., None]], Routine]:
    """Decorator: `function(h, *values)` ends by `h.give(...)` with values of the widths in `results`.

    A routine may not trap or jump; it gives back what its caller needs to do so.
    """

    def decorate(function: Callable[..., None]) -> Routine:
        return Routine(function.__name__, function, tuple(parameters), tuple(results))

    return decorate


@dataclass(frozen=True)
class StateField:
    """One named piece of a hart's state: `count` elements of `width` bits."""

    name: str
    width: int
    count: int = 1


class Semantics(ABC):
    """One reading of semantic functions. Subclasses render; this class gives the sugar. See the module's text."""

    xlen: int
    _fields: dict[str, StateField]

    # ---- values

    @abstractmethod
    def constant(self, value: int, width: int) -> Value: ...

    @abstractmethod
    def binary(self, operation: str, a: Value, b: Value) -> Value: ...

    @abstractmethod
    def compare(self, predicate: str, a: Value, b: Value) -> Value: ...

    @abstractmethod
    def convert(self, operation: str, a: Value, width: int) -> Value: ...

    @abstractmethod
    def unary(self, operation: str, a: Value) -> Value: ...

    @abstractmethod
    def select(self, condition: Value, a: Value, b: Value) -> Value: ...

    def word(self, value: int) -> Value:
        """A constant of the register width."""
        return self.constant(value, self.xlen)

    # ---- control

    @abstractmethod
    def when(self, condition: Value) -> AbstractContextManager[None]:
        """Do the body only if `condition` (1 bit) is set."""

    @abstractmethod
    def otherwise(self) -> AbstractContextManager[None]:
        """Right after a `when`: do the body only if its condition was clear."""

    @abstractmethod
    def loop(self) -> AbstractContextManager[None]:
        """Do the body again and again until `leave` or `give`."""

    @abstractmethod
    def leave(self) -> None:
        """Leave the innermost loop."""

    @contextmanager
    def count(self, limit: Value | int, width: int = 8) -> Iterator[Value]:
        """Do the body for 0, 1, … limit - 1."""
        index = self.variable(0, width)
        with self.loop():
            now = index.get()
            with self.when(now.at_least(limit)):
                self.leave()
            yield now
            index.set(index.get() + 1)

    @abstractmethod
    def variable(self, value: Value | int, width: int = 0) -> Variable:
        """A new local; `width` is needed when `value` is an integer."""

    @abstractmethod
    def call(self, routine: Routine, *arguments: Value | int) -> tuple[Value, ...]:
        """Call a routine; integers take the parameter's width."""

    @abstractmethod
    def give(self, *results: Value | int) -> None:
        """End the routine with these results."""

    # ---- state

    @abstractmethod
    def read(self, field: str, index: Value | int = 0) -> Value:
        """An element of a state field, at the field's own width."""

    @abstractmethod
    def write(self, field: str, value: Value | int, index: Value | int = 0) -> None:
        """Set an element of a state field."""

    @abstractmethod
    def operand(self, name: str) -> Value:
        """An operand of the instruction: rs1, rs2 (register width), frs1, frs2, frs3 (64 bits, as the register
        holds it), imm (register width), shamt, csr, uimm, rm, …"""

    @abstractmethod
    def set_operand(self, name: str, value: Value) -> None:
        """Write `rd` (register width; a write to x0 is nothing) or `frd` (64 bits; marks the state as dirty)."""

    def __getattr__(self, name: str) -> Value:
        if name.startswith("_"):
            raise AttributeError(name)
        if name in self._fields:
            return self.read(name)
        return self.operand(name)

    def __setattr__(self, name: str, value: object) -> None:
        if name.startswith("_") or name == "xlen":
            object.__setattr__(self, name, value)
        elif name in self._fields:
            self.write(name, value)  # type: ignore[arg-type]  # checked by write's reading
        elif isinstance(value, Value):
            self.set_operand(name, value)
        elif isinstance(value, int):
            self.set_operand(name, self.word(value))
        else:
            raise TypeError(f"{name} must be a value, not {value!r}")

    @abstractmethod
    def number_of(self, name: str) -> Value:
        """The number of the register that operand `name` is (8 bits), or the plain value of uimm."""

    # ---- program flow

    @property
    @abstractmethod
    def here(self) -> Value:
        """The instruction's own address."""

    @property
    @abstractmethod
    def following(self) -> Value:
        """The address after the instruction."""

    @property
    @abstractmethod
    def instruction_bits(self) -> Value:
        """The instruction as it was fetched, zero-extended to the register width (what a trap's value shows)."""

    @abstractmethod
    def branch(self, condition: Value) -> None:
        """Go to `here + imm` if `condition`; ends the instruction."""

    @abstractmethod
    def jump(self) -> None:
        """Go to `here + imm`; ends the instruction."""

    @abstractmethod
    def jump_to(self, target: Value) -> None:
        """Go to an address; ends the instruction. Mode and translation may have changed before."""

    @abstractmethod
    def trap(self, cause: Value | int, value: Value | int) -> None:
        """End the instruction with a synchronous exception; nothing it did so far in registers may have been done."""

    def illegal(self) -> None:
        """The illegal-instruction exception: cause 2, the value is the instruction."""
        self.trap(2, self.instruction_bits)

    # ---- memory

    @abstractmethod
    def load(self, address: Value, size: int) -> Value:
        """`size` bytes of virtual memory, little-endian, as 8 * size bits; traps by itself."""

    @abstractmethod
    def store(self, address: Value, value: Value) -> None:
        """Write value.width / 8 bytes; traps by itself."""

    @abstractmethod
    def atomic(self, operation: str, address: Value, value: Value) -> Value:
        """Read-modify-write (swap add xor and or min max minu maxu); what was there before. Traps by itself."""

    @abstractmethod
    def load_reserved(self, address: Value, size: int) -> Value:
        """Load and make a reservation."""

    @abstractmethod
    def store_conditional(self, address: Value, value: Value) -> Value:
        """Store if the reservation still holds; 1 bit, set if it failed."""

    @abstractmethod
    def zero_block(self, address: Value, size: int) -> None:
        """Zero the naturally aligned block of `size` bytes that holds `address`, as a store."""

    @abstractmethod
    def check_block(self, address: Value, size: int) -> None:
        """Trap as a cache-block management instruction would (a store fault unless loads or stores are allowed)."""

    @abstractmethod
    def fence(self, stores_before_loads: Value | None = None) -> None:
        """Order earlier memory accesses before later ones; where the condition (1 bit) is given and clear, not
        necessarily stores before loads, which is what costs."""

    @abstractmethod
    def fence_instructions(self) -> None:
        """Fetches after this see all stores before it."""

    @abstractmethod
    def flush_translations(self, address: Value, all_addresses: Value) -> None:
        """Forget translations: of the page of `address`, or of every page where `all_addresses` (1 bit) is set."""

    @abstractmethod
    def translation_changed(self) -> None:
        """Mode, mstatus, satp or protection changed in a way that accesses after this must notice."""

    @abstractmethod
    def translation_root_changed(self) -> None:
        """satp was written: translations of the old address space do not hold any more (global ones may)."""

    @abstractmethod
    def physical_load(self, address: Value, size: int) -> tuple[Value, Value]:
        """Guest-physical memory (never a device): (value, 1 bit set if memory is there)."""

    @abstractmethod
    def physical_set_bits(self, address: Value, expected: Value, bits: Value) -> Value:
        """Atomically, if `expected` is still there, or `bits` into it; 1 bit, set if it was done."""

    # ---- the world

    @abstractmethod
    def clock(self) -> Value:
        """The timebase's counter now, 64 bits."""

    @abstractmethod
    def retired(self) -> Value:
        """Instructions retired since the hart began, not counting this one, 64 bits."""

    @abstractmethod
    def wait(self) -> None:
        """Sleep until an interrupt is pending (or for no reason)."""

    @abstractmethod
    def hypercall(self) -> None:
        """Leave to what runs the hart, which goes on after this instruction."""

    @abstractmethod
    def system_call(self) -> None:
        """The same, for a user-mode hart without a board."""

    # ---- floating point (the meaning of each is defined in `celaje.isa.riscv.float`)

    @abstractmethod
    def float_rounding(self) -> Value:
        """The rounding mode that this instruction uses, 3 bits, 0 to 4: its rm field or, where that is 7, frm. Illegal
        instruction where floating point is off (mstatus.FS) or the mode is reserved. Each floating-point instruction
        that rounds begins with it; the others begin with `float_enabled`."""

    @abstractmethod
    def float_enabled(self) -> None:
        """Illegal instruction where floating point is off."""

    @abstractmethod
    def float_operation(self, operation: str, *operands: Value, rounding: Value | None = None) -> Value:
        """IEEE 754 arithmetic on bit patterns whose widths (32 or 64) say the format; accrues flags; NaN results are
        canonical. Operations: add, subtract, multiply, divide, square_root, fused (a * b + c),
        to_32, to_64 (between formats), to_signed_32, to_signed_64, to_unsigned_32, to_unsigned_64 (with RISC-V's
        saturation), from_signed and from_unsigned with suffix _32 or _64 (the result's format; the operand is an
        integer of 32 or 64 bits)."""

    @abstractmethod
    def accrue(self, flags: Value | int) -> None:
        """Or 5 bits (NV DZ OF UF NX, NX lowest) into fflags."""

    @abstractmethod
    def float_flags(self) -> Value:
        """fflags, 5 bits in 8, whatever the reading keeps in the host's own register included."""

    @abstractmethod
    def set_float_flags(self, flags: Value) -> None:
        """Set fflags (8 bits, of which the low 5 count)."""

    @abstractmethod
    def rounding_changed(self) -> None:
        """frm was written."""
