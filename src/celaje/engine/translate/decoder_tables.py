"""The decoder's tables, as bytes: made from the instruction tables once, kept with the generated code.

    BUCKETS_32   256 x (first entry, count)   by opcode bits 6:2 and funct3
    BUCKETS_16    32 x (first entry, count)   by bits 1:0 and 15:13
    ENTRIES      48 bytes: mask, match (32 bits each); format, instruction, exceptions (16 each); then up to four
                 exceptions: field's place in the format (16), unused (16), value that it must not have (32)
    FORMATS      (first field, count)
    FIELDS       40 bytes: kind, shift, 32 - width if signed, pieces (8 each); constant (32); 8 pieces: low bit, count,
                 value bit, unused.  kind: 0 x written, 1 first source, 2 second source, 3 immediate, 4 f written
    INSTRUCTIONS 8 bytes: first variant, count, flags
    VARIANTS     8 bytes: conditions that count, their values, handler
    FUSED        by handler: (first pair, count); PAIRS: handler that may follow, handler that does both
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from celaje.isa.table import Field, Instruction

BUCKETS_32 = 0
BUCKETS_16 = 1024
ENTRIES = 1152
ENTRY_BYTES = 48
FORMATS_AT = ENTRIES + 768 * ENTRY_BYTES
FIELDS_AT = FORMATS_AT + 256 * 4
FIELD_BYTES = 40
INSTRUCTIONS_AT = FIELDS_AT + 768 * FIELD_BYTES
VARIANTS_AT = INSTRUCTIONS_AT + 512 * 8
FUSED_AT = VARIANTS_AT + 4096 * 8
FUSED_PAIRS_AT = FUSED_AT + 4096 * 4
TABLE_BYTES = FUSED_PAIRS_AT + 4096 * 4

RELATIVE = 1  # instruction flag: the immediate is a distance in the code

# conditions on operands that variants are chosen by
RD_ZERO, RS1_ZERO, RS2_ZERO, IMMEDIATE_ZERO, RD_IS_RS1 = 1, 2, 4, 8, 16
IN_PAGE, BACKWARD, SHORT = 32, 64, 128
ROUNDING_DYNAMIC, ROUNDING_TO_ZERO, ROUNDING_TO_EVEN = 256, 512, 1024
OF_STATUS = 2048  # the control register is sstatus

HANDLER_UNDECODED, HANDLER_PAGE_END, HANDLER_ILLEGAL, HANDLER_STRADDLE = range(4)
FIRST_HANDLER = 4

# operand name: (kind, left shift)
OPERAND_KINDS = {
    "rd": (0, 3),
    "frd": (4, 3),
    "rs1": (1, 3),
    "frs1": (1, 3),
    "uimm": (1, 0),
    "rs2": (2, 3),
    "frs2": (2, 3),
    "frs3": (3, 3),
    "rm": (3, 8),
    "imm": (3, 0),
    "shamt": (3, 0),
    "csr": (3, 0),
    "pred": (3, 4),
    "succ": (3, 0),
}


@dataclass(frozen=True)
class Variant:
    """A handler and the conditions under which it serves: of those in `mask` exactly those in `match` hold."""

    mask: int
    match: int
    handler: int


def _field(name: str, field: Field) -> bytes:
    kind, shift = OPERAND_KINDS[name]
    width = max((to + count for _, count, to in field.pieces), default=0)
    unused = 32 - width if field.signed else 0
    pieces = b"".join(struct.pack("<BBBx", low, count, to) for low, count, to in field.pieces)
    if len(field.pieces) > 8:
        raise ValueError(f"{name} has more than 8 pieces")
    return struct.pack("<BBBBi", kind, shift, unused, len(field.pieces), field.plus) + pieces.ljust(32, b"\0")


def build(
    instructions: Sequence[Instruction],
    numbers: Mapping[str, int],
    variants: Mapping[str, Sequence[Variant]],
    relative: frozenset[str],
    fused: Mapping[int, Sequence[tuple[int, int]]],
    key_of: Mapping[int, str],
) -> bytes:
    """The tables. `numbers` and `variants` go by the key of the full instruction; `fused` by the first handler;
    `key_of` gives the key of an entry by its identity."""
    table = bytearray(TABLE_BYTES)
    formats: dict[bytes, int] = {}
    field_count = 0
    rows: list[tuple[Instruction, bytes]] = []
    for entry in instructions:
        names = list(entry.operands)
        packed = b"".join(_field(name, entry.operands[name]) for name in names)
        if packed not in formats:
            struct.pack_into("<HH", table, FORMATS_AT + 4 * len(formats), field_count, len(names))
            at = FIELDS_AT + field_count * FIELD_BYTES
            table[at : at + len(packed)] = packed
            field_count += len(names)
            formats[packed] = len(formats)
        full = entry.base or key_of[id(entry)]
        row = struct.pack(
            "<IIHHHxx", entry.mask, entry.match, formats[packed], numbers[full], len(entry.unless)
        ) + b"".join(struct.pack("<Hxxi", names.index(name), value) for name, value in entry.unless)
        if len(row) > ENTRY_BYTES:
            raise ValueError(f"{entry.name} has more than four exceptions")
        rows.append((entry, row.ljust(ENTRY_BYTES, b"\0")))

    count = 0
    for base, buckets, length in ((BUCKETS_32, 256, 4), (BUCKETS_16, 32, 2)):
        for bucket in range(buckets):
            if length == 4:
                mask, match = 0x707F, 3 | (bucket & 31) << 2 | (bucket >> 5) << 12
            else:
                mask, match = 0xE003, (bucket & 3) | (bucket >> 2) << 13
            chosen = [row for e, row in rows if e.length == length and not (e.match ^ match) & e.mask & mask]
            struct.pack_into("<HH", table, base + 4 * bucket, count, len(chosen))
            data = b"".join(chosen)
            at = ENTRIES + count * ENTRY_BYTES
            table[at : at + len(data)] = data
            count += len(chosen)
    if ENTRIES + count * ENTRY_BYTES > FORMATS_AT or len(formats) > 256 or field_count > 768:
        raise ValueError("the instruction tables have outgrown the decoder's")

    first = 0
    for key, number in numbers.items():
        struct.pack_into(
            "<HHH", table, INSTRUCTIONS_AT + number * 8, first, len(variants[key]), RELATIVE if key in relative else 0
        )
        for variant in variants[key]:
            struct.pack_into("<HHH", table, VARIANTS_AT + first * 8, variant.mask, variant.match, variant.handler)
            first += 1
    pairs = 0
    for handler, seconds in fused.items():
        struct.pack_into("<HH", table, FUSED_AT + handler * 4, pairs, len(seconds))
        for second, both in seconds:
            struct.pack_into("<HH", table, FUSED_PAIRS_AT + pairs * 4, second, both)
            pairs += 1
    if VARIANTS_AT + first * 8 > FUSED_AT or FUSED_PAIRS_AT + pairs * 4 > TABLE_BYTES or len(table) != TABLE_BYTES:
        raise ValueError("the handlers have outgrown the decoder's tables")
    return bytes(table)
