"""The F and D instructions, one at a time, as the reference evaluator reads them."""

from __future__ import annotations

from fractions import Fraction
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from celaje.engine.evaluate.engine import State
from celaje.engine.evaluate.reading import Library, Trap
from celaje.isa.riscv.instructions import RISCV
from tests.isa import rational
from tests.isa.rational import CANONICAL_NAN, INFINITY, NV, NX, RDN, RMM, RNE, RTZ, RUP

DYNAMIC = 7
BOX = 0xFFFFFFFF << 32
ONE = {32: 0x3F800000, 64: 0x3FF0000000000000}
LETTERS = {32: "s", 64: "d"}
OFF, CLEAN, DIRTY = 0, 2, 3


class Bytes:
    """Memory as the rendered functions call it."""

    def __init__(self) -> None:
        self.content = bytearray(64)

    def load(self, address: int, size: int) -> int:
        return int.from_bytes(self.content[address : address + size], "little")

    def store(self, address: int, size: int, value: int) -> None:
        self.content[address : address + size] = value.to_bytes(size, "little")


@cache
def rendered(name: str, xlen: int) -> Any:
    (entry,) = [entry for entry in RISCV.of(xlen) if entry.name == name and not entry.base]
    return entry, Library(xlen).instruction(entry).function


class Hart:
    """A hart that executes single instructions: f1, f2, f3 and x1 are the sources, f4 and x4 the targets."""

    def __init__(self, xlen: int = 64) -> None:
        self.xlen = xlen
        self.state: Any = State()
        self.state.fs = CLEAN
        self.memory = Bytes()

    def run(self, name: str, *sources: int, rm: int = DYNAMIC, imm: int = 0) -> int:
        """The target's new value. Sources go to f1, f2, f3, or x1 for what reads an x register."""
        entry, function = rendered(name, self.xlen)
        operands = {"rd": 4, "frd": 4, "frs1": 1, "frs2": 2, "frs3": 3, "rs1": 1, "rm": rm, "imm": imm}
        registers = self.state.x if "rs1" in entry.operands and "imm" not in entry.operands else self.state.f
        registers[1 : 1 + len(sources)] = sources
        encoded = entry.encode(**{operand: operands[operand] for operand in entry.operands})
        function(self.state, self.memory, 0, 4, encoded, *(operands[operand] for operand in entry.operands))
        return int(self.state.f[4] if "frd" in entry.operands else self.state.x[4])


def register(bits: int, width: int) -> int:
    return bits | BOX if width == 32 else bits


def outcome(name: str, width: int, *operands: int, rm: int = DYNAMIC, xlen: int = 64) -> tuple[int, int]:
    """Target and flags of an instruction on numbers of `width` bits."""
    hart = Hart(xlen)
    value = hart.run(f"{name}.{LETTERS[width]}", *(register(bits, width) for bits in operands), rm=rm)
    return value, hart.state.fflags


def patterns(width: int) -> st.SearchStrategy[int]:
    return st.one_of(st.sampled_from(rational.edges(width)), st.integers(0, (1 << width) - 1))


both_widths = pytest.mark.parametrize("width", [32, 64])


# ---- what every instruction asks first


@pytest.mark.parametrize("name", sorted({e.name for e in RISCV.of(64) if e.extension in ("F", "D") and not e.base}))
def test_every_instruction_is_illegal_while_floating_point_is_off(name: str) -> None:
    hart = Hart()
    hart.state.fs = OFF
    with pytest.raises(Trap) as trap:
        hart.run(name)
    assert trap.value.cause == 2


@pytest.mark.parametrize(
    "name", sorted({e.name for e in RISCV.of(64) if e.extension in ("F", "D") and "rm" in e.operands})
)
def test_reserved_rounding_modes_are_illegal_in_every_instruction_that_has_one(name: str) -> None:
    for rm in (5, 6):
        with pytest.raises(Trap) as trap:
            Hart().run(name, rm=rm)
        assert trap.value.cause == 2
    for frm in (5, 6, 7):
        hart = Hart()
        hart.state.frm = frm
        with pytest.raises(Trap) as trap:
            hart.run(name, rm=DYNAMIC)
        assert trap.value.cause == 2
        hart.run(name, rm=RTZ)  # which does not look at frm


@both_widths
def test_a_third_is_rounded_by_the_instruction_or_by_frm(width: int) -> None:
    third = 0x3EAAAAAA if width == 32 else 0x3FD5555555555555
    three = 0x40400000 if width == 32 else 0x4008000000000000
    up = {RNE: width == 32, RTZ: 0, RDN: 0, RUP: 1, RMM: width == 32}
    for mode, more in up.items():
        expected = register(third + more, width)
        assert outcome("fdiv", width, ONE[width], three, rm=mode) == (expected, NX)
        hart = Hart()
        hart.state.frm = mode
        assert hart.run(f"fdiv.{LETTERS[width]}", register(ONE[width], width), register(three, width)) == expected


def test_flags_gather_and_make_the_state_dirty() -> None:
    hart = Hart()
    hart.state.fflags = rational.OF
    hart.run("feq.d", INFINITY[64] + 1, 0)
    assert (hart.state.fflags, hart.state.fs) == (rational.OF | NV, DIRTY)


def test_reading_alone_leaves_the_state_clean() -> None:
    hart = Hart()
    hart.run("fmv.x.d", 5)
    hart.run("feq.d", 0, 0)
    assert hart.state.fs == CLEAN
    hart.run("fmv.d.x", 5)
    assert hart.state.fs == DIRTY


# ---- boxes


def test_a_single_that_is_not_boxed_counts_as_the_canonical_nan() -> None:
    hart = Hart()
    one = register(ONE[32], 32)
    assert hart.run("fadd.s", one, ONE[32]) == register(CANONICAL_NAN[32], 32)
    assert hart.run("fsgnj.s", ONE[32], one) == register(CANONICAL_NAN[32], 32)
    assert hart.run("fmin.s", ONE[32], one) == one
    assert hart.run("fclass.s", ONE[32] | BOX ^ (1 << 40)) == 1 << 9
    assert hart.state.fflags == 0


@given(st.integers(0, (1 << 64) - 1))
def test_moves_and_stores_take_the_low_bits_of_what_is_there(bits: int) -> None:
    low = bits & 0xFFFFFFFF
    hart = Hart()
    assert hart.run("fmv.x.w", bits) == low | (BOX if low >> 31 else 0)
    assert hart.run("fmv.w.x", bits) == low | BOX
    assert hart.run("fmv.d.x", bits) == bits
    assert hart.run("fmv.x.d", bits) == bits
    hart.state.x[1] = 8
    hart.state.f[2] = bits
    hart.run("fsw", imm=3)
    assert hart.memory.load(11, 4) == low
    hart.run("fsd", imm=-8)
    assert hart.memory.load(0, 8) == bits
    assert hart.run("flw", imm=-8) == low | BOX
    assert hart.run("fld", imm=-8) == bits


# ---- arithmetic reaches its definition


@both_widths
@settings(max_examples=25, deadline=None)
@given(data=st.data(), mode=st.sampled_from(range(5)))
def test_arithmetic_is_exact_arithmetic_rounded(width: int, data: st.DataObject, mode: int) -> None:
    a, b = data.draw(patterns(width)), data.draw(patterns(width))
    for name, operation in (("fadd", "add"), ("fsub", "subtract"), ("fmul", "multiply"), ("fdiv", "divide")):
        bits, flags = rational.expected(operation, width, (a, b), mode)
        assert outcome(name, width, a, b, rm=mode) == (register(bits, width), flags)
    bits, flags = rational.square_root(a, width, mode)
    assert outcome("fsqrt", width, a, rm=mode) == (register(bits, width), flags)


@both_widths
@settings(max_examples=25, deadline=None)
@given(data=st.data(), mode=st.sampled_from(range(5)))
def test_the_four_fused_instructions_differ_in_signs_alone(width: int, data: st.DataObject, mode: int) -> None:
    a, b, c = (data.draw(patterns(width)) for _ in range(3))
    sign = 1 << (width - 1)
    for name, product, addend in (
        ("fmadd", 0, 0),
        ("fmsub", 0, sign),
        ("fnmsub", sign, 0),
        ("fnmadd", sign, sign),
    ):
        bits, flags = rational.fused(a ^ product, b, c ^ addend, width, mode)
        assert outcome(name, width, a, b, c, rm=mode) == (register(bits, width), flags)


@both_widths
def test_infinity_times_zero_is_invalid_even_where_a_quiet_nan_is_added(width: int) -> None:
    nan = register(CANONICAL_NAN[width], width)
    assert outcome("fmadd", width, INFINITY[width], 0, CANONICAL_NAN[width]) == (nan, NV)
    assert outcome("fmadd", width, ONE[width], 0, CANONICAL_NAN[width]) == (nan, 0)


def test_precision_is_converted_with_boxes() -> None:
    assert outcome("fcvt.d", 32, ONE[32]) == (ONE[64], 0)
    assert outcome("fcvt.s", 64, ONE[64] + 1, rm=RUP) == ((ONE[32] + 1) | BOX, NX)


# ---- integers


@pytest.mark.parametrize(
    ("name", "bits", "signed"), [("w", 32, True), ("wu", 32, False), ("l", 64, True), ("lu", 64, False)]
)
@both_widths
@settings(max_examples=40, deadline=None)
@given(data=st.data(), mode=st.sampled_from(range(5)))
def test_integers_are_converted_both_ways(
    name: str, bits: int, signed: bool, width: int, data: st.DataObject, mode: int
) -> None:
    a = data.draw(patterns(width))
    value, flags = rational.to_integer(a, width, bits, signed, mode)
    extended = value | BOX if bits == 32 and value >> 31 else value  # unsigned ones are sign-extended too
    assert outcome(f"fcvt.{name}", width, a, rm=mode) == (extended, flags)

    integer = data.draw(st.integers(0, (1 << 64) - 1))
    hart = Hart()
    number, flags = rational.from_integer(integer & ((1 << bits) - 1), bits, width, signed, mode)
    assert hart.run(f"fcvt.{LETTERS[width]}.{name}", integer, rm=mode) == register(number, width)
    assert hart.state.fflags == flags


def test_registers_of_32_bits_have_the_instructions_that_fit_them() -> None:
    names = {entry.name for entry in RISCV.of(32)}
    assert {"fcvt.w.d", "fcvt.d.wu", "fld", "fsd", "fmv.x.w", "fcvt.s.d"} <= names
    assert not names & {"fcvt.l.s", "fcvt.lu.d", "fcvt.s.l", "fcvt.d.lu", "fmv.x.d", "fmv.d.x"}
    assert outcome("fcvt.wu", 64, 0xC000000000000000, xlen=32) == (0, NV)
    assert outcome("fcvt.w", 64, 0xC000000000000000, xlen=32) == (0xFFFFFFFE, 0)
    assert outcome("fclass", 64, CANONICAL_NAN[64], xlen=32) == (1 << 9, 0)
    assert Hart(32).run("fmv.w.x", 0x80000000) == 0x80000000 | BOX


# ---- order, signs, classes


@both_widths
@given(data=st.data())
def test_comparisons_are_those_of_the_numbers(width: int, data: st.DataObject) -> None:
    a = data.draw(patterns(width))
    b = data.draw(st.one_of(patterns(width), st.just(a), st.just(a ^ (1 << (width - 1)))))
    x, y = rational.datum(a, width), rational.datum(b, width)
    nan = x.nan or y.nan
    signalling = NV if x.signalling or y.signalling else 0

    def order(d: rational.Datum) -> tuple[int, Any]:
        return (-1 if d.negative else 1, 0) if d.infinite else (0, d.value)

    loud = NV if nan else 0
    assert outcome("feq", width, a, b) == (not nan and order(x) == order(y), signalling)
    assert outcome("flt", width, a, b) == (not nan and order(x) < order(y), loud)
    assert outcome("fle", width, a, b) == (not nan and order(x) <= order(y), loud)

    least, greatest = (a, b) if (order(x), not x.negative) <= (order(y), not y.negative) else (b, a)
    if x.nan and y.nan:
        least = greatest = CANONICAL_NAN[width]
    elif nan:
        least = greatest = b if x.nan else a
    assert outcome("fmin", width, a, b) == (register(least, width), signalling)
    assert outcome("fmax", width, a, b) == (register(greatest, width), signalling)


@both_widths
def test_negative_zero_is_less_than_positive_zero(width: int) -> None:
    negative = 1 << (width - 1)
    for a, b in ((0, negative), (negative, 0)):
        assert outcome("fmin", width, a, b) == (register(negative, width), 0)
        assert outcome("fmax", width, a, b) == (register(0, width), 0)
        assert outcome("flt", width, a, b) == (0, 0)
        assert outcome("feq", width, a, b) == (1, 0)


@both_widths
@given(data=st.data())
def test_signs_are_moved_without_a_look_at_the_number(width: int, data: st.DataObject) -> None:
    a, b = data.draw(patterns(width)), data.draw(patterns(width))
    sign = 1 << (width - 1)
    assert outcome("fsgnj", width, a, b) == (register((a & ~sign) | (b & sign), width), 0)
    assert outcome("fsgnjn", width, a, b) == (register((a & ~sign) | (~b & sign), width), 0)
    assert outcome("fsgnjx", width, a, b) == (register(a ^ (b & sign), width), 0)


@both_widths
@given(data=st.data())
def test_every_number_has_one_class(width: int, data: st.DataObject) -> None:
    a = data.draw(patterns(width))
    number = rational.datum(a, width)
    if number.nan:
        expected = 8 if number.signalling else 9
    else:
        if number.infinite:
            distance = 3
        elif number.zero:
            distance = 0
        else:
            distance = 2 if abs(number.value) >= Fraction(2) ** rational.EMIN[width] else 1
        expected = 3 - distance if number.negative else 4 + distance
    assert outcome("fclass", width, a) == (1 << expected, 0)
