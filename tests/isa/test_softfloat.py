"""Floating point in integers, as the reference evaluator reads it, against exact rational arithmetic."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from celaje.engine.evaluate.reading import Library
from celaje.isa.softfloat import routine_for
from tests.isa import rational

LIBRARY = Library(64)
MODES = range(5)
CASES = 40
SEED = 20261123


def function_for(operation: str, width: int) -> Callable[..., tuple[int, int]]:
    function = LIBRARY.routine(routine_for(operation, width)).function
    return lambda *operands: function(None, None, *operands)


@pytest.mark.parametrize(("operation", "width", "operands"), rational.OPERATIONS)
def test_results_and_flags_are_those_of_exact_arithmetic(operation: str, width: int, operands: int) -> None:
    compute = function_for(operation, width)
    random_ = random.Random(f"{SEED} {operation} {width}")
    found = []
    for case in rational.cases(random_, operation, width, operands, CASES):
        for mode in MODES:
            got, expected = compute(*case, mode), rational.expected(operation, width, case, mode)
            if got != expected:
                shown = ", ".join(hex(bits) for bits in case)
                found.append(f"{operation}({shown}) in mode {mode}: {got} instead of {expected}")
    assert found == []


def patterns(width: int) -> st.SearchStrategy[int]:
    return st.one_of(st.sampled_from(rational.edges(width)), st.integers(0, (1 << width) - 1))


@settings(max_examples=150, deadline=None)
@given(patterns(64), patterns(64), patterns(64), st.sampled_from(MODES))
def test_any_doubles_are_fused_as_exact_arithmetic_does(a: int, b: int, c: int, mode: int) -> None:
    assert function_for("fused", 64)(a, b, c, mode) == rational.fused(a, b, c, 64, mode)


@settings(max_examples=150, deadline=None)
@given(patterns(32), patterns(32), patterns(32), st.sampled_from(MODES))
def test_any_singles_are_fused_as_exact_arithmetic_does(a: int, b: int, c: int, mode: int) -> None:
    assert function_for("fused", 32)(a, b, c, mode) == rational.fused(a, b, c, 32, mode)


@settings(max_examples=100, deadline=None)
@given(patterns(64), patterns(64), st.sampled_from(MODES))
@example(1, 0x3FE0000000000000, rational.RNE)
def test_any_doubles_are_divided_and_multiplied_as_exact_arithmetic_does(a: int, b: int, mode: int) -> None:
    assert function_for("divide", 64)(a, b, mode) == rational.divide(a, b, 64, mode)
    assert function_for("multiply", 64)(a, b, mode) == rational.multiply(a, b, 64, mode)


@given(patterns(32), st.sampled_from(MODES))
def test_a_single_made_a_double_and_a_single_again_is_the_same(a: int, mode: int) -> None:
    double, flags = function_for("to_64", 32)(a, mode)
    single, more = function_for("to_32", 64)(double, mode)
    datum = rational.datum(a, 32)
    assert single == (rational.CANONICAL_NAN[32] if datum.nan else a)
    assert (flags, more) == (rational.NV if datum.signalling else 0, 0)


def test_a_name_that_no_operation_has_is_refused() -> None:
    with pytest.raises(ValueError, match="cube_root"):
        routine_for("cube_root", 64)
