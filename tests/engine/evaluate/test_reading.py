"""The tables read as Python: what the text looks like, and what is refused while a meaning is being read."""

from __future__ import annotations

from typing import Any

import pytest

from celaje.engine.evaluate.reading import NO_MEANING, Library, count_bits, divide, shift, signed
from celaje.isa.riscv.instructions import RISCV
from celaje.isa.semantics import Routine, Value, routine
from celaje.isa.table import Table, place

ALL_BITS = (1 << 64) - 1


def result(function: Any, parameters: tuple[int, ...], results: tuple[int, ...], *arguments: int) -> tuple[int, ...]:
    """What a routine of this function gives."""
    rendered = Library(64).routine(Routine("subject", function, parameters, results))
    given: tuple[int, ...] = rendered.function(None, None, *arguments)
    return given


def test_an_instruction_is_readable_python() -> None:
    source = Library(64).instruction(RISCV.instructions["add"]).source
    assert source.splitlines() == [
        "def i_add(s, m, here, following, bits, rd, rs1, rs2):",
        "    t1 = s.x[rs1]",
        "    t2 = s.x[rs2]",
        "    t3 = (t1 + t2) & 0xffffffffffffffff",
        "    if rd: s.x[rd] = t3",
        "    s.pc = following",
    ]


@pytest.mark.parametrize("xlen", [32, 64])
def test_every_instruction_can_be_read_at_both_widths(xlen: int) -> None:
    library = Library(xlen)
    for entry in RISCV.of(xlen):
        if not entry.base:
            assert callable(library.instruction(entry).function)


def test_loops_conditions_and_locals_do_what_they_say() -> None:
    def collatz(h: Any, start: Value) -> None:
        now, steps = h.variable(start), h.variable(0, 16)
        with h.loop():
            with h.when(now.get().eq(1)):
                h.leave()
            odd = now.get().bit(0)
            with h.when(odd):
                now.set(now.get() * 3 + 1)
            with h.otherwise():
                now.set(now.get() >> 1)
            steps.set(steps.get() + 1)
        h.give(steps.get(), now.get())

    assert result(collatz, (64,), (16, 64), 27) == (111, 1)


def test_a_value_stays_when_the_local_that_it_came_from_changes() -> None:
    def swap(h: Any, a: Value, b: Value) -> None:
        first, second = h.variable(a), h.variable(b)
        kept = first.get()
        first.set(second.get())
        second.set(kept)
        h.give(first.get(), second.get())

    assert result(swap, (8, 8), (8, 8), 1, 2) == (2, 1)


def test_an_empty_body_is_no_error() -> None:
    def nothing(h: Any, a: Value) -> None:
        with h.when(a.bit(0)):
            pass
        with h.otherwise():
            pass
        h.give(a)

    assert result(nothing, (8,), (8,), 3) == (3,)


def test_routines_call_each_other_and_are_rendered_once() -> None:
    @routine(parameters=(8,), results=(8,))
    def twice(h: Any, a: Value) -> None:
        h.give(a + a)

    @routine(parameters=(8,), results=(8,))
    def four_times(h: Any, a: Value) -> None:
        h.give(*h.call(twice, *h.call(twice, a)))

    library = Library(64)
    assert library.routine(four_times).function(None, None, 5) == (20,)
    assert library.routine(twice) is library.routine(twice)


def test_two_routines_of_one_name_are_refused() -> None:
    library = Library(64)
    library.routine(Routine("same", lambda h: h.give(), (), ()))
    with pytest.raises(ValueError, match="two routines are called same"):
        library.routine(Routine("same", lambda h: h.give(), (), ()))


def test_signed_operations_wrap_and_round_towards_zero() -> None:
    def operations(h: Any, a: Value, b: Value) -> None:
        h.give(a.divided_signed(b), a.remainder_signed(b), a.sra(1), a.less(b), a.sext(16), a - b, -a)

    assert result(operations, (8, 8), (8, 8, 8, 1, 16, 8, 8), 0xF9, 2) == (0xFD, 0xFF, 0xFC, 1, 0xFFF9, 0xF7, 7)


@pytest.mark.parametrize(
    ("operation", "value", "expected"),
    [("ctlz", 1, 63), ("ctlz", 0, 64), ("cttz", 0, 64), ("cttz", 8, 3), ("ctpop", ALL_BITS, 64), ("bswap", 1, 1 << 56)],
)
def test_bits_are_counted_and_bytes_reversed(operation: str, value: int, expected: int) -> None:
    assert count_bits(operation, value, 64) == expected


def test_what_has_no_meaning_shows() -> None:
    pattern = NO_MEANING & ALL_BITS
    assert shift("shl", 1, 64, 64) == pattern
    assert shift("ashr", 1 << 63, 63, 64) == ALL_BITS
    assert divide("udiv", 1, 0, 64) == pattern
    assert divide("sdiv", 1 << 63, ALL_BITS, 64) == pattern
    assert signed(0x80, 8) == -128


def _table(function: Any) -> Any:
    table = Table()
    table.add("subject rd", "x" * 30 + "11", {"rd": place("11:7")}, "X", function)
    return table.instructions["subject"]


def test_mistakes_in_a_semantic_function_are_found_when_it_is_read() -> None:
    def wrong_width(h: Any) -> None:
        h.rd = h.constant(1, 32)

    def unknown_operand(h: Any) -> None:
        h.rd = h.rs1

    def results_of_an_instruction(h: Any) -> None:
        h.give(1)

    def shrinking_extension(h: Any) -> None:
        h.rd = h.word(1).zext(32)

    library = Library(64)
    with pytest.raises(TypeError, match="32 bits where 64 are wanted"):
        library.instruction(_table(wrong_width))
    with pytest.raises(AttributeError, match="rs1 is neither state nor an operand"):
        library.instruction(_table(unknown_operand))
    with pytest.raises(TypeError, match="no results"):
        library.instruction(_table(results_of_an_instruction))
    with pytest.raises(TypeError, match="zext from 64 to 32"):
        library.instruction(_table(shrinking_extension))
    with pytest.raises(TypeError, match="operands of 32 and 64 bits"):
        library.instruction(_table(lambda h: h.constant(1, 32) + h.word(1)))
