"""The generated decoder's tables mean what the instruction tables mean: read by a model of the generated code."""

from __future__ import annotations

import random
import struct

import pytest

from celaje.engine.translate import decoder_tables as at
from celaje.engine.translate.program import Program, build_program
from celaje.isa.riscv.instructions import RISCV

DECODE = RISCV.decoder(64)
SINK = 512


@pytest.fixture(scope="module")
def program() -> Program:
    return build_program()


def number(tables: bytes, place: int, kind: str) -> int:
    return int(struct.unpack_from(f"<{kind}", tables, place)[0])


def model(tables: bytes, bits: int) -> tuple[int, dict[str, int], int] | None:
    """What `decoding.decode` does: (number of the instruction, the operation's parts, place of the entry), or None."""
    full = bits & 3 == 3
    word = bits if full else bits & 0xFFFF
    bucket = at.BUCKETS_16 + 4 * (word & 3 | word >> 11 & 0x1C)
    if full:
        bucket = at.BUCKETS_32 + 4 * (word >> 2 & 31 | word >> 7 & 0xE0)
    first, count = struct.unpack_from("<HH", tables, bucket)
    for entry in range(first, first + count):
        here = at.ENTRIES + entry * at.ENTRY_BYTES
        mask, match, format_number, instruction, exceptions = struct.unpack_from("<IIHHH", tables, here)
        if word & mask != match:
            continue
        raw, parts = operands(tables, word, format_number)
        refused = False
        for index in range(exceptions):
            field, value = struct.unpack_from("<Hxxi", tables, here + 16 + 8 * index)
            refused |= raw[field] == value % (1 << 32)
        if not refused:
            return instruction, parts, here
    return None


def operands(tables: bytes, word: int, format_number: int) -> tuple[list[int], dict[str, int]]:
    first, count = struct.unpack_from("<HH", tables, at.FORMATS_AT + 4 * format_number)
    raw, parts = [], {"rd": 0, "rs1": 0, "rs2": 0, "imm": 0}
    for field in range(first, first + count):
        here = at.FIELDS_AT + field * at.FIELD_BYTES
        kind, shift, unused, pieces, plus = struct.unpack_from("<BBBBi", tables, here)
        value = 0
        for piece in range(pieces):
            low, bits, to = struct.unpack_from("<BBB", tables, here + 8 + 4 * piece)
            value |= (word >> low & (1 << bits) - 1) << to
        value = value << unused & 0xFFFFFFFF
        if unused and value >> 31:
            value -= 1 << 32
        value = ((value >> unused) + plus) % (1 << 32)
        raw.append(value)
        shifted = value << shift & 0xFFFFFFFF
        if kind == 0:
            parts["rd"] = shifted or SINK
        elif kind == 4:
            parts["rd"] = shifted & 0xFFFF
        else:
            name = {1: "rs1", 2: "rs2", 3: "imm"}[kind]
            parts[name] |= shifted if kind == 3 else shifted & 0xFF
    return raw, parts


def expected_parts(operands: dict[str, int]) -> dict[str, int]:
    """Where handlers look for operands (layout.py)."""
    parts = {"rd": 0, "rs1": 0, "rs2": 0, "imm": 0}
    for name, value in operands.items():
        if name == "rd":
            parts["rd"] = 8 * value or SINK
        elif name == "frd":
            parts["rd"] = 8 * value
        elif name in ("rs1", "frs1", "rs2", "frs2"):
            parts[name[-3:]] = 8 * value
        elif name == "uimm":
            parts["rs1"] = value
        else:
            shift = {"frs3": 3, "rm": 8, "pred": 4}.get(name, 0)
            parts["imm"] |= value << shift & 0xFFFFFFFF
    return parts


def check(program: Program, keys: dict[int, str], bits: int) -> bool:
    decoded, found = DECODE(bits), model(program.tables, bits)
    assert (decoded is None) == (found is None), hex(bits)
    if decoded is None or found is None:
        return False
    entry = decoded.instruction
    wanted = RISCV.instructions[entry.base] if entry.base else entry
    assert RISCV.instructions[keys[found[0]]] is wanted, (hex(bits), entry.name, keys[found[0]])
    assert found[1] == expected_parts(decoded.operands), (hex(bits), str(decoded))
    return True


@pytest.fixture(scope="module")
def keys() -> dict[int, str]:
    """The number of each full instruction, as `program.build_program` counts them."""
    full = [key for key, entry in RISCV.instructions.items() if 64 in entry.xlens and not entry.base]
    return dict(enumerate(full))


def test_every_halfword_is_decoded_as_the_instruction_tables_say(program: Program, keys: dict[int, str]) -> None:
    known = sum(check(program, keys, bits) for bits in range(1 << 16) if bits & 3 != 3)
    assert known > 30_000


def test_random_words_are_decoded_as_the_instruction_tables_say(program: Program, keys: dict[int, str]) -> None:
    chance = random.Random(11)
    known = sum(check(program, keys, chance.getrandbits(32) | 3) for _ in range(30_000))
    assert known > 3_000


def test_each_instruction_and_its_neighbours_by_a_bit_are_decoded_alike(
    program: Program, keys: dict[int, str]
) -> None:
    chance = random.Random(12)
    for entry in RISCV.of(64):
        width = 8 * entry.length
        for _ in range(6):
            bits = entry.match | chance.getrandbits(width) & ~entry.mask & (1 << width) - 1
            check(program, keys, bits)
            check(program, keys, bits ^ 1 << chance.randrange(2, width))


def test_each_instruction_has_a_handler_for_each_length(program: Program, keys: dict[int, str]) -> None:
    """The last variant of each length asks for nothing but the length, so that the decoder's search ends."""
    short = {entry.base for entry in RISCV.of(64) if entry.base}
    for index, key in keys.items():
        first, count, _ = struct.unpack_from("<HHH", program.tables, at.INSTRUCTIONS_AT + 8 * index)
        rows = [struct.unpack_from("<HHH", program.tables, at.VARIANTS_AT + 8 * (first + row)) for row in range(count)]
        assert all(0 < handler < len(program.handlers) for _, _, handler in rows)
        for wanted in (0, at.SHORT) if key in short else (0,):
            assert any(mask == at.SHORT and match == wanted for mask, match, _ in rows), key


def test_pairs_lead_from_known_handlers_to_known_handlers(program: Program) -> None:
    fused = 0
    for handler in range(len(program.handlers)):
        first, count = struct.unpack_from("<HH", program.tables, at.FUSED_AT + 4 * handler)
        for row in range(first, first + count):
            second, both = struct.unpack_from("<HH", program.tables, at.FUSED_PAIRS_AT + 4 * row)
            assert program.handlers[both].startswith(program.handlers[handler]), program.handlers[both]
            assert second < len(program.handlers) > both
            fused += 1
    assert fused == sum("+" in name for name in program.handlers)


def test_the_tables_end_where_they_say(program: Program) -> None:
    assert len(program.tables) == at.TABLE_BYTES
    assert number(program.tables, at.BUCKETS_32, "H") == 0
