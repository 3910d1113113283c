"""SMBIOS: an entry point whose bytes sum to nothing, and structures that say who the machine is."""

from __future__ import annotations

import struct
import uuid

from celaje.machine.boot.smbios import ENTRY_POINT_BYTES, Identity, tables

ADDRESS = 0x9FFEB140
IDENTITY = Identity("a maker", "a product", uuid.UUID("ec2e1916-9099-7caf-fd21-012345abcdef"), "i-0123")


def structures(data: bytes) -> dict[int, tuple[bytes, list[str]]]:
    """By type: the formatted part, heading included, and the strings (6.1)."""
    found = {}
    at = 0
    while at < len(data):
        kind, length = data[at], data[at + 1]
        end = data.index(b"\0\0", at + length)
        texts = [text.decode() for text in data[at + length : end].split(b"\0") if text]
        found[kind] = (data[at : at + length], texts)
        at = end + 2
    return found


def test_the_entry_point_is_whole_and_says_where_the_structures_are() -> None:
    data = tables(IDENTITY, ADDRESS)
    entry = data[:ENTRY_POINT_BYTES]
    assert entry.startswith(b"_SM3_")
    assert sum(entry) % 256 == 0
    assert entry[6] == ENTRY_POINT_BYTES
    size, address = struct.unpack_from("<IQ", entry, 12)
    assert size == len(data) - ENTRY_POINT_BYTES
    assert address == ADDRESS + ENTRY_POINT_BYTES


def test_the_structures_have_the_lengths_of_their_version_and_numbers_of_strings_that_are_there() -> None:
    found = structures(tables(IDENTITY, ADDRESS)[ENTRY_POINT_BYTES:])
    assert {kind: len(formatted) for kind, (formatted, _) in found.items()} == {
        0: 0x1A,
        1: 0x1B,
        2: 0x0F,
        3: 0x16,
        127: 4,
    }
    assert list(found) == [0, 1, 2, 3, 127]


def test_a_system_is_known_by_its_maker_product_uuid_and_tag() -> None:
    found = structures(tables(IDENTITY, ADDRESS)[ENTRY_POINT_BYTES:])
    system, texts = found[1]
    assert [texts[number - 1] for number in (system[4], system[5], system[7])] == [
        "a maker",
        "a product",
        str(IDENTITY.uuid),
    ]
    assert uuid.UUID(bytes_le=system[8:24]) == IDENTITY.uuid
    board, texts = found[2]
    assert texts[board[8] - 1] == "i-0123"
    chassis, texts = found[3]
    assert texts[chassis[8] - 1] == "i-0123"


def test_a_machine_without_a_tag_has_a_string_all_the_same() -> None:
    found = structures(tables(Identity("m", "p", IDENTITY.uuid), ADDRESS)[ENTRY_POINT_BYTES:])
    assert found[2][1][-1] == " "
