"""A hart's saved state is checked before it is taken."""

from __future__ import annotations

import pytest

from celaje.isa.riscv.saved_state import checked
from celaje.isa.riscv.state import STATE

State = dict[str, list[int]]


@pytest.fixture
def state() -> State:
    return {field.name: [0] * field.count for field in STATE}


def test_what_is_possible_is_taken_as_a_copy(state: State) -> None:
    state["x"][5] = 7
    taken = checked(state, 64)
    assert taken == state
    taken["x"][5] = 8
    assert state["x"][5] == 7


def test_how_many_protection_entries_count_is_computed_anew(state: State) -> None:
    state["pmpcfg"][3] = 0x1F
    state["pmp_active"] = [0]
    assert checked(state, 64)["pmp_active"] == [4]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("mode", 2, "mode cannot be 2"),
        ("fs", 4, "fs cannot be 4"),
        ("frm", 8, "frm cannot be 8"),
        ("fflags", 32, "fflags cannot be 32"),
        ("x", 1, "x0 is not zero"),
        ("satp", 11 << 60, "translation scheme 11"),
        ("pc", 1 << 64, "pc must be 1 values of 64 bits"),
        ("mepc", -1, "mepc must be 1 values of 64 bits"),
    ],
)
def test_what_no_instruction_brings_about_is_refused(state: State, name: str, value: int, message: str) -> None:
    state[name][0] = value
    with pytest.raises(ValueError, match=message):
        checked(state, 64)


def test_missing_and_unknown_fields_are_named(state: State) -> None:
    del state["mtvec"]
    state["novelty"] = [1]
    with pytest.raises(ValueError, match="mtvec, novelty"):
        checked(state, 64)
