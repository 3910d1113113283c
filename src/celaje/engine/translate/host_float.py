"""Floating point on the host's own unit: LLVM IR for `Semantics.float_operation`, and the host's control register.

A guest's arithmetic is the host's, instruction for instruction, under the rounding mode that the host is set to;
flags gather in the host's status register until somebody asks for them. What differs between hosts and RISC-V is set
right here: NaN results become the canonical one, conversions to integers saturate, infinity times zero plus a quiet
NaN is invalid, tininess is detected after rounding.

Every operation is a constrained intrinsic with dynamic rounding and strict exceptions, so that LLVM neither folds it,
nor drops it, nor moves it across the accesses to the control register below. That holds only in functions that have
`FUNCTION_ATTRIBUTES`, compiled for a machine with the host's own features (without them LLVM would call a C library,
and the code would need relocation). Nothing here calls a library: what the host cannot do is left to softfloat.

The rounding modes that hosts have are RISC-V's 0 to 3. Round to nearest with ties away (4) is softfloat's.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from llvmlite import binding

from celaje.errors import HostError
from celaje.isa.semantics import Value
from celaje.isa.softfloat import FORMATS, NV, NX, RDN, RNE, RTZ, RUP, UF, routine_for

if TYPE_CHECKING:
    from celaje.engine.translate.reading import Reading

FUNCTION_ATTRIBUTES = "strictfp"  # what a function that holds this module's text must have
HOST_MODES = 4  # rounding modes below this are the host's too

STRICT = 'metadata !"fpexcept.strict"'
DYNAMIC = f'metadata !"round.dynamic", {STRICT}'
TYPES = {32: "float", 64: "double"}

# Rounding to an integral value in a mode that is known beforehand; none of these raises NX.
INTEGRAL = {RNE: "roundeven", RTZ: "trunc", RDN: "floor", RUP: "ceil"}

# Operations whose results can be tiny and inexact. (A sum that is tiny is exact.)
UNDERFLOWING = ("multiply", "divide", "fused", "to_32")


@dataclass(frozen=True)
class Host:
    """What of the host's floating point decides how an operation is written."""

    architecture: str  # x86-64 or aarch64
    fuses: bool  # has a fused multiply-add
    rounds: bool  # has rounding to an integral value


@cache
def this_host() -> Host:
    """The machine that this runs on, as LLVM sees it. HostError on one that nothing here is written for."""
    architecture = binding.get_process_triple().partition("-")[0]
    if architecture in ("aarch64", "arm64"):
        return Host("aarch64", fuses=True, rounds=True)
    if architecture in ("x86_64", "amd64"):
        features = binding.get_host_cpu_features()
        return Host("x86-64", fuses=features.get("fma", False), rounds=features.get("sse4.1", False))
    raise HostError(
        f"generated code needs an x86-64 or aarch64 host, and this one is {architecture}; "
        "run with --engine evaluate, which needs none but is slow"
    )


# ---- text


def _float(reading: Reading, value: Value) -> str:
    """A bit pattern as a floating-point operand."""
    return reading.emit(value.width, f"bitcast i{value.width} {value.text} to {TYPES[value.width]}").text


def _bits(reading: Reading, number: str, width: int) -> Value:
    return reading.emit(width, f"bitcast {TYPES[width]} {number} to i{width}")


def _constrained(reading: Reading, name: str, result: str, arguments: list[tuple[str, str]], control: str) -> str:
    """A call of a constrained intrinsic; arguments are (type, text). Its suffix names the types it is made for."""
    kinds = [result] if name != "fcmp" else []
    if name in ("fptosi", "sitofp", "fpext", "fptrunc", "fcmp"):
        kinds.append(arguments[0][0])
    suffix = "".join(f".{ {'float': 'f32', 'double': 'f64'}.get(kind, kind) }" for kind in kinds)
    function = f"@llvm.experimental.constrained.{name}{suffix}"
    metadata = ", ".join("metadata" for _ in control.split(", "))
    reading.declare(f"declare {result} {function}({', '.join(kind for kind, _ in arguments)}, {metadata})")
    texts = ", ".join(f"{kind} {text}" for kind, text in arguments)
    return reading.emit(-1, f"call {result} {function}({texts}, {control}) strictfp").text


def _arithmetic(reading: Reading, name: str, width: int, *numbers: str) -> str:
    """An operation whose operands and result have one format."""
    return _constrained(reading, name, TYPES[width], [(TYPES[width], number) for number in numbers], DYNAMIC)


def _compare(reading: Reading, predicate: str, width: int, a: str, b: str) -> Value:
    """A quiet comparison, which raises nothing unless an operand is a signalling NaN."""
    kind = TYPES[width]
    control = f'metadata !"{predicate}", {STRICT}'
    return Value(reading, 1, _constrained(reading, "fcmp", "i1", [(kind, a), (kind, b)], control))


def _unfolded(reading: Reading, value: int, width: int) -> Value:
    """A constant that LLVM does not see through.

    It would make this one a floating-point constant in a section of its own, and code that is cached has no such.
    """
    return reading.emit(width, f'call i{width} asm "", "=r,0"(i{width} {value})')


def _seen_anew(reading: Reading, number: str, width: int, host: Host) -> Value:
    """The bits of a number that was loaded as one, without LLVM loading it as an integer from the start for this."""
    register = "w" if host.architecture == "aarch64" else "x"
    kind = TYPES[width]
    return _bits(reading, reading.emit(-1, f'call {kind} asm "", "={register},0"({kind} {number})').text, width)


def _expect(reading: Reading, condition: Value, usually: bool) -> Value:
    """The same condition, with what it nearly always is."""
    reading.declare("declare i1 @llvm.expect.i1(i1, i1)")
    return reading.emit(1, f"call i1 @llvm.expect.i1(i1 {condition.text}, i1 {str(usually).lower()})")


def _is_infinite(value: Value) -> Value:
    form = FORMATS[value.width]
    return (value & ~form.sign).eq(form.infinity)


def _is_zero(value: Value) -> Value:
    return (value & ~FORMATS[value.width].sign).eq(0)


# ---- operations

BINARY = {"add": "fadd", "subtract": "fsub", "multiply": "fmul", "divide": "fdiv"}


def render(
    reading: Reading,
    operation: str,
    operands: tuple[Value, ...],
    rounding: int | None = None,
    host: Host | None = None,
) -> Value:
    """The result of one of `Semantics.float_operation`'s operations, whose flags are in the host's register or accrued.

    It is rounded as the host is set. Where `rounding` (0 to 3) is given and `needs_no_mode` says so of the operation,
    it is rounded that way however the host is set.
    """
    host = host or this_host()
    width = operands[0].width
    numbers: list[str] = []
    family, _, target = operation.rpartition("_")
    match family:
        case "to_signed" | "to_unsigned":
            if not host.rounds:
                return _in_software(reading, operation, operands, rounding, host)
            return _to_integer(reading, operands[0], int(target), family == "to_signed", rounding)
        case "from_signed" | "from_unsigned":
            return _from_integer(reading, operands[0], int(target), family == "from_signed")
        case "to":
            result_width = int(target)
            name, control = ("fptrunc", DYNAMIC) if result_width < width else ("fpext", STRICT)
            number = _float(reading, operands[0])
            result = _constrained(reading, name, TYPES[result_width], [(TYPES[width], number)], control)
        case _:
            result_width = width
            if operation == "fused" and not host.fuses:
                return _in_software(reading, operation, operands, None, host)
            name = {**BINARY, "fused": "fma", "square_root": "sqrt"}[operation]
            numbers = [_float(reading, operand) for operand in operands]
            result = _arithmetic(reading, name, width, *numbers)

    # A local of the number's own type, so that it stays in a register of the floating-point unit.
    kind = TYPES[result_width]
    place = reading.local(kind)
    reading.line(f"store {kind} {result}, ptr {place}")
    with reading.when(_expect(reading, _compare(reading, "uno", result_width, result, result), False)):
        nan = _float(reading, _unfolded(reading, FORMATS[result_width].nan, result_width))
        reading.line(f"store {kind} {nan}, ptr {place}")
        if operation == "fused":
            # Hosts may let the NaN that is added go before this.
            a, b = (_seen_anew(reading, number, width, host) for number in numbers[:2])
            with reading.when((_is_infinite(a) & _is_zero(b)) | (_is_zero(a) & _is_infinite(b))):
                reading.accrue(NV)
    bits = _bits(reading, reading.emit(-1, f"load {kind}, ptr {place}").text, result_width)
    if host.architecture == "aarch64" and operation in UNDERFLOWING:
        _correct_underflow(reading, operation, operands, bits)
    return bits


def needs_no_mode(operation: str, width: int, rounding: int) -> bool:
    """Whether `render` does this in that rounding mode (0 to 4) without the host being set to it.

    `width` is the operands'. So it is with conversions to integers unless ties go away, and with those that are exact.
    """
    if operation.startswith(("to_signed", "to_unsigned")):
        return rounding in INTEGRAL
    return width == 32 and operation in ("to_64", "from_signed_64", "from_unsigned_64")


def _in_software(
    reading: Reading, operation: str, operands: tuple[Value, ...], rounding: int | None, host: Host
) -> Value:
    mode = host_rounding(reading, host) if rounding is None else reading.constant(rounding, 3)
    value, flags = reading.call(routine_for(operation, operands[0].width), *operands, mode)
    reading.accrue(flags)
    return value


def _to_integer(reading: Reading, operand: Value, bits: int, signed: bool, rounding: int | None) -> Value:
    """Rounded to an integral number first, without NX: out of range is NV alone, also where there is a fraction."""
    width, kind, form = operand.width, TYPES[operand.width], FORMATS[operand.width]
    number = _float(reading, operand)
    if rounding is None:
        integral = _arithmetic(reading, "nearbyint", width, number)
    else:
        integral = _constrained(reading, INTEGRAL[rounding], kind, [(kind, number)], STRICT)
    pattern = _bits(reading, integral, width)

    def power_of_two(exponent: int) -> int:
        return (form.bias + exponent) << form.fraction

    # What fits is told from the pattern, which grows with the magnitude: no constant has to come from memory.
    if signed:
        limit = power_of_two(bits - 1)
        fits = (pattern & ~form.sign).below(limit) | pattern.eq(limit | form.sign)
    else:
        fits = pattern.below(power_of_two(bits)) | pattern.eq(form.sign)
    result = reading.variable(0, bits)
    with reading.when(_expect(reading, fits, True)):
        if signed or bits < 64:
            # Unsigned 32 bits are part of what a signed conversion to 64 bits can give, which every host has.
            through = bits if signed else 64
            text = _constrained(reading, "fptosi", f"i{through}", [(kind, integral)], STRICT)
            result.set(Value(reading, through, text).trunc(bits))
        else:
            with reading.when(pattern.below(power_of_two(63)) | pattern.eq(form.sign)):
                result.set(Value(reading, 64, _constrained(reading, "fptosi", "i64", [(kind, integral)], STRICT)))
            with reading.otherwise():  # 2**63 and more: the significand, its leading one on top
                result.set((pattern.zext(64) << (63 - form.fraction)) | (1 << 63))
        with reading.when(_compare(reading, "une", width, integral, number)):
            reading.accrue(NX)
    with reading.otherwise():
        nan = (operand & ~form.sign).above(form.infinity)
        lowest, highest = (1 << (bits - 1), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)
        result.set((operand.less(0) & ~nan).select(lowest, highest, width=bits))
        reading.accrue(NV)
    return result.get()


def _from_integer(reading: Reading, operand: Value, target: int, signed: bool) -> Value:
    def converted(value: Value) -> str:
        return _constrained(reading, "sitofp", TYPES[target], [(f"i{value.width}", value.text)], DYNAMIC)

    if signed:
        return _bits(reading, converted(operand), target)
    if operand.width == 32:
        return _bits(reading, converted(operand.zext(64)), target)
    # What has the top bit set is halved, the lost bit kept in the last one; that rounds alike, and doubling is exact.
    great = operand.less(0)
    half = converted(great.select((operand >> 1) | (operand & 1), operand))
    result = reading.variable(_bits(reading, half, target))
    with reading.when(great):
        result.set(_bits(reading, _arithmetic(reading, "fadd", target, half, half), target))
    return result.get()


# ---- the host's control and status register
#
# x86-64's MXCSR:   0 IE, 1 DE, 2 ZE, 3 OE, 4 UE, 5 PE, 6 denormals are zeros, 7 to 12 masks, 13 to 14 rounding,
#                   15 flush to zero
# aarch64's FPCR:   8 to 15 traps, 22 to 23 rounding, 24 flush to zero, 25 default NaN
# aarch64's FPSR:   0 IOC, 1 DZC, 2 OFC, 3 UFC, 4 IXC
#
# On aarch64, which detects tininess before rounding, UFC is no more than a hint: see `_correct_underflow`.

X86_ROUNDING, X86_FLAGS, X86_MASKS = 13, 0x3F, 0x1F80
ARM_ROUNDING, ARM_UNDERFLOW = 22, 8

# two bits a mode, RISC-V's 0 first: the host's, and the other way round
X86_FROM_RISCV, X86_TO_RISCV = 0b10_01_11_00, 0b01_11_10_00
ARM_FROM_RISCV = ARM_TO_RISCV = 0b01_10_11_00

# (bit in the host's register, bit in fflags)
X86_FLAG_BITS = ((0, 4), (2, 3), (3, 2), (4, 1), (5, 0))
ARM_FLAG_BITS = ((0, 4), (1, 3), (2, 2), (4, 0))

X86_ACCESS = f"""\
declare void @llvm.x86.sse.stmxcsr(ptr)
declare void @llvm.x86.sse.ldmxcsr(ptr)
define internal i64 @float_host_status() alwaysinline {FUNCTION_ATTRIBUTES} {{
  %place = alloca i32
  call void @llvm.x86.sse.stmxcsr(ptr %place) strictfp
  %status = load i32, ptr %place
  %wide = zext i32 %status to i64
  ret i64 %wide
}}
define internal void @float_set_host_status(i64 %wide) alwaysinline {FUNCTION_ATTRIBUTES} {{
  %place = alloca i32
  %status = trunc i64 %wide to i32
  store i32 %status, ptr %place
  call void @llvm.x86.sse.ldmxcsr(ptr %place) strictfp
  ret void
}}"""


def _mode(reading: Reading, table: int, mode: Value | int) -> Value:
    """A rounding mode in the other's numbers, 64 bits."""
    if isinstance(mode, int):
        return reading.constant(table >> (2 * mode) & 3, 64)
    return (reading.constant(table, 64) >> ((mode.zext(64) & 3) << 1)) & 3


def _x86_status(reading: Reading) -> Value:
    reading.declare(X86_ACCESS)
    return reading.emit(64, "call i64 @float_host_status() strictfp")


def _set_x86_status(reading: Reading, status: Value) -> None:
    reading.declare(X86_ACCESS)
    reading.line(f"call void @float_set_host_status(i64 {status.text}) strictfp")


def _arm(reading: Reading, register: str) -> Value:
    reading.declare(f"declare i64 @llvm.aarch64.get.{register}()")
    return reading.emit(64, f"call i64 @llvm.aarch64.get.{register}() strictfp")


def _set_arm(reading: Reading, register: str, value: Value) -> None:
    reading.declare(f"declare void @llvm.aarch64.set.{register}(i64)")
    reading.line(f"call void @llvm.aarch64.set.{register}(i64 {value.text}) strictfp")


def save_host(reading: Reading, host: Host | None = None) -> Value:
    """The host's control and status, 64 bits, for `restore_host`."""
    if (host or this_host()).architecture == "x86-64":
        return _x86_status(reading)
    return (_arm(reading, "fpsr") << 32) | _arm(reading, "fpcr")


def restore_host(reading: Reading, saved: Value, host: Host | None = None) -> None:
    """As `save_host` found it, flags included."""
    if (host or this_host()).architecture == "x86-64":
        _set_x86_status(reading, saved)
    else:
        _set_arm(reading, "fpcr", saved & 0xFFFF_FFFF)
        _set_arm(reading, "fpsr", saved >> 32)


def load_guest_rounding(reading: Reading, rounding: Value | int, host: Host | None = None) -> None:
    """Set the host to a rounding mode (0 to 3) and to IEEE 754's default handling of all else; flags stay."""
    if (host or this_host()).architecture == "x86-64":
        mode = _mode(reading, X86_FROM_RISCV, rounding) << X86_ROUNDING
        _set_x86_status(reading, (_x86_status(reading) & X86_FLAGS) | X86_MASKS | mode)
    else:
        _set_arm(reading, "fpcr", _mode(reading, ARM_FROM_RISCV, rounding) << ARM_ROUNDING)


def host_rounding(reading: Reading, host: Host | None = None) -> Value:
    """The rounding mode that the host is set to, 0 to 3 in 3 bits."""
    if (host or this_host()).architecture == "x86-64":
        return _mode(reading, X86_TO_RISCV, _x86_status(reading) >> X86_ROUNDING).trunc(3)
    return _mode(reading, ARM_TO_RISCV, _arm(reading, "fpcr") >> ARM_ROUNDING).trunc(3)


@contextmanager
def host_set_to(reading: Reading, rounding: Value | int, host: Host | None = None) -> Iterator[None]:
    """What is rendered inside is rounded that way (0 to 3), whatever follows as before. The body ends no block."""
    before = host_rounding(reading, host)
    load_guest_rounding(reading, rounding, host)
    yield
    load_guest_rounding(reading, before, host)


def host_flags(reading: Reading, host: Host | None = None) -> Value:
    """The flags that the host's register holds, as fflags has them, in 8 bits."""
    x86 = (host or this_host()).architecture == "x86-64"
    status = _x86_status(reading) if x86 else _arm(reading, "fpsr")
    flags = reading.constant(0, 8)
    for source, target in X86_FLAG_BITS if x86 else ARM_FLAG_BITS:
        flags = flags | (status.bit(source).zext(8) << target)
    return flags


def clear_host_flags(reading: Reading, host: Host | None = None) -> None:
    """None raised; the rounding mode stays."""
    if (host or this_host()).architecture == "x86-64":
        _set_x86_status(reading, _x86_status(reading) & ~X86_FLAGS)
    else:
        _set_arm(reading, "fpsr", reading.constant(0, 64))


def _correct_underflow(reading: Reading, operation: str, operands: tuple[Value, ...], bits: Value) -> None:
    """Underflow on a host that detects tininess before rounding (aarch64).

    There UFC may be raised where RISC-V's UF is not: when rounding makes the smallest normal number of something less.
    So `host_flags` leaves it out, and here, where a result is small enough and UFC is raised, softfloat tells whether
    UF is due. UFC is put down again, so that the next zero does not ask in vain.
    """
    form = FORMATS[bits.width]
    with reading.when(_expect(reading, (bits & ~form.sign).at_most(form.smallest_normal), False)):
        status = _arm(reading, "fpsr")
        with reading.when((status & ARM_UNDERFLOW).ne(0)):
            _set_arm(reading, "fpsr", status & ~ARM_UNDERFLOW)
            mode = _mode(reading, ARM_TO_RISCV, _arm(reading, "fpcr") >> ARM_ROUNDING).trunc(3)
            _, flags = reading.call(routine_for(operation, operands[0].width), *operands, mode)
            reading.accrue(flags & UF)
