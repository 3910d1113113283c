"""The tables of firmware that is not there, read as Linux reads them: from what /chosen says of them."""

from __future__ import annotations

import struct
import uuid
import zlib

from celaje.engine.memory import PAGE_SIZE
from celaje.machine.boot import device_tree, efi
from celaje.machine.boot.smbios import Identity

IDENTITY = Identity("maker", "product", uuid.UUID("ec2e1916-9099-7caf-fd21-012345abcdef"), "i-0123")
ADDRESS, MEMORY = 0x8FF0_0000, (0x8000_0000, 0x9000_0000)


def number(chosen: dict[str, device_tree.Value], name: str) -> int:
    return int.from_bytes(device_tree.encode_value(chosen[f"linux,uefi-{name}"]), "big")


def test_the_system_table_leads_to_smbios_and_to_no_services() -> None:
    content, chosen = efi.tables(IDENTITY, ADDRESS, MEMORY)
    assert len(content) % PAGE_SIZE == 0
    assert number(chosen, "system-table") == ADDRESS
    assert number(chosen, "secure-boot") == 2
    signature, revision, size, checksum, _ = struct.unpack_from("<Q4I", content)
    assert signature == 0x5453595320494249
    assert revision >> 16 == 2
    assert size == 120
    assert checksum == zlib.crc32(content[:16] + bytes(4) + content[20:size])
    vendor, *_, runtime, boot, count, tables = struct.unpack_from("<QI4x6Q4Q", content, 24)
    assert content[vendor - ADDRESS :].decode("utf-16-le").partition("\0")[0] == "celaje"
    assert (runtime, boot) == (0, 0)
    found = {}
    for at in range(count):
        name, where = struct.unpack_from("<16sQ", content, tables - ADDRESS + 24 * at)
        found[uuid.UUID(bytes_le=name)] = content[where - ADDRESS :]
    assert found[efi.SMBIOS3].startswith(b"_SM3_")
    assert struct.unpack_from("<HHI", found[efi.RUNTIME_PROPERTIES]) == (1, 8, 0)


def test_the_memory_map_has_all_memory_once_and_keeps_the_tables() -> None:
    content, chosen = efi.tables(IDENTITY, ADDRESS, MEMORY)
    start, size, step = (number(chosen, f"mmap-{name}") for name in ("start", "size", "desc-size"))
    assert number(chosen, "mmap-desc-ver") == 1
    at = MEMORY[0]
    kinds = []
    for offset in range(start - ADDRESS, start - ADDRESS + size, step):
        kind, physical, virtual, pages, attribute = struct.unpack_from("<I4x4Q", content, offset)
        assert (physical, virtual, attribute) == (at, 0, 8)
        kinds.append((kind, physical))
        at += pages * PAGE_SIZE
    assert at == MEMORY[1]
    assert kinds == [(7, MEMORY[0]), (9, ADDRESS), (7, ADDRESS + len(content))]
