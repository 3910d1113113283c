"""The instruction table as a whole: no encoding means two things, and what is encoded is decoded again."""

from __future__ import annotations

from functools import reduce
from itertools import combinations
from operator import or_
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celaje.isa.riscv.instructions import RISCV
from celaje.isa.table import Field, Instruction, Table, fixed, place

XLENS = pytest.mark.parametrize("xlen", [32, 64])
KEYS = st.sampled_from(sorted(RISCV.instructions))


def _said(entry: Instruction) -> int:
    """The instruction bits that an operand takes."""
    return reduce(or_, (field.insert(-1 + field.plus) for field in entry.operands.values() if field.pieces), 0)


@XLENS
def test_no_32_bit_encoding_means_two_instructions(xlen: int) -> None:
    entries = [entry for entry in RISCV.of(xlen) if entry.length == 4]
    both = [(a.name, b.name) for a, b in combinations(entries, 2) if (a.match ^ b.match) & a.mask & b.mask == 0]
    assert both == []


@XLENS
def test_no_16_bit_encoding_means_two_instructions(xlen: int) -> None:
    entries = [entry for entry in RISCV.of(xlen) if entry.length == 2]
    for halfword in range(1 << 16):
        assert sum(entry.matches(halfword) for entry in entries) <= 1, hex(halfword)


def test_no_16_bit_encoding_looks_like_the_beginning_of_a_longer_one() -> None:
    for entry in RISCV.instructions.values():
        assert entry.mask & 3 == 3
        assert (entry.match & 3 == 3) == (entry.length == 4)


@given(KEYS, st.integers(0, (1 << 32) - 1))
def test_what_is_decoded_encodes_to_the_same_bits(key: str, noise: int) -> None:
    entry = RISCV.instructions[key]
    bits = (entry.match | noise & ~entry.mask) & (1 << 8 * entry.length) - 1
    if not entry.matches(bits):
        return  # an exception that `unless` names
    decoded = RISCV.decoder(entry.xlens[0])(bits)
    assert decoded is not None
    assert decoded.instruction is entry
    operands = {name: value for name, value in decoded.operands.items() if entry.operands[name].pieces}
    # aq and rl, and a fence's mode and registers, are no operands of ours.
    assert entry.encode(**operands) == bits & (entry.mask | _said(entry))


@given(KEYS, st.integers(0, (1 << 32) - 1))
def test_a_short_form_says_every_operand_of_what_it_means(key: str, noise: int) -> None:
    entry = RISCV.instructions[key]
    if not entry.base:
        return
    bits = (entry.match | noise & ~entry.mask) & 0xFFFF
    if not entry.matches(bits):
        return
    full = RISCV.instructions[entry.base]
    operands = {name: field.extract(bits) for name, field in entry.operands.items()}
    decoded = RISCV.decoder(entry.xlens[0])(full.encode(**operands))
    assert decoded is not None
    assert (decoded.instruction, decoded.operands) == (full, operands)


@XLENS
def test_all_zeros_and_all_ones_are_no_instruction(xlen: int) -> None:
    decode = RISCV.decoder(xlen)
    assert decode(0) is None
    assert decode(0xFFFF_FFFF) is None


def test_instructions_of_one_width_are_unknown_to_the_other() -> None:
    assert RISCV.decoder(32)(RISCV.instructions["ld"].encode(rd=1, rs1=2, imm=8)) is None
    assert RISCV.decoder(32)(RISCV.instructions["slli/64"].encode(rd=1, rs1=2, shamt=32)) is None
    narrow, wide = RISCV.decoder(32)(0x2001), RISCV.decoder(64)(0x2005)
    assert str(narrow) == "c.jal 0"
    assert wide is None  # c.addiw of x0 is reserved


def test_an_operand_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="addi cannot encode imm=2048"):
        RISCV.instructions["addi"].encode(rd=1, rs1=1, imm=2048)
    with pytest.raises(ValueError, match="beq cannot encode imm=3"):
        RISCV.instructions["beq"].encode(rs1=1, rs2=1, imm=3)
    with pytest.raises(ValueError, match=r"c\.lwsp cannot have operands"):
        RISCV.instructions["c.lwsp"].encode(rd=0, imm=4)
    with pytest.raises(ValueError, match=r"c\.lw cannot encode rd=3"):
        RISCV.instructions["c.lw"].encode(rd=3, rs1=8, imm=4)


@given(st.integers(-(1 << 20), (1 << 20) - 1).map(lambda value: 2 * (value // 2)))
def test_scattered_immediates_come_back_together(value: int) -> None:
    field = RISCV.instructions["jal"].operands["imm"]
    assert field.extract(field.insert(value)) == value


def test_fields_know_signs_constants_and_implied_operands() -> None:
    assert place("3:0", signed=True).extract(0b1000) == -8
    assert place("2:0", plus=8).extract(0b101) == 13
    assert place("2:0", plus=8).insert(13) == 0b101
    assert fixed(2).extract(Random(0).getrandbits(32)) == 2
    assert Field(((4, 2, 0),)).insert(0b111) == 0b110000


def test_an_encoding_must_have_16_or_32_bits() -> None:
    with pytest.raises(ValueError, match="16 or 32"):
        Table().add("odd rd", "0101", {}, "X", lambda h: None)


def test_the_same_key_twice_is_refused() -> None:
    table = Table()
    for _ in range(2):
        table.add("twice", "0" * 30 + "11", {}, "X", lambda h: None)
    with pytest.raises(ValueError, match="twice"):
        table.add("twice", "0" * 30 + "11", {}, "X", lambda h: None)


def test_a_short_form_that_leaves_an_operand_open_is_refused() -> None:
    table = Table()
    table.add("full rd", "x" * 30 + "11", {"rd": place("11:7")}, "X", lambda h: None)
    with pytest.raises(ValueError, match="says nothing of rd of full"):
        table.compressed("short", "x" * 14 + "00", "full", {}, "X")
