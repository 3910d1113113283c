"""ELF files made by hand, with a symbol table where one is wanted."""

from __future__ import annotations

import struct

RISCV, X86_64, AARCH64 = 243, 62, 183


def elf_file(
    segments: list[tuple[int, int, bytes, int]],
    entry: int,
    symbols: dict[str, int] | None = None,
    *,
    machine: int = RISCV,
    kind: int = 2,
    section: str = ".tohost",
) -> bytes:
    """`segments`: (virtual address, physical address, bytes, size in memory) each."""
    symbols = symbols or {}
    offset = 64 + 56 * len(segments)
    headers, contents = b"", b""
    for virtual, physical, data, size in segments:
        at = offset + len(contents)
        headers += struct.pack("<IIQQQQQQ", 1, 7, at, virtual, physical, len(data), size, 4096)
        contents += data
    names = b"\0" + b"".join(name.encode() + b"\0" for name in symbols)
    table = bytes(24)
    for name, value in symbols.items():
        table += struct.pack("<IBBHQQ", names.index(b"\0" + name.encode() + b"\0") + 1, 0x10, 0, 1, value, 8)
    section_names = b"\0" + section.encode() + b"\0.symtab\0.strtab\0.shstrtab\0"
    table_at = offset + len(contents)
    names_at = table_at + len(table)
    section_names_at = names_at + len(names)
    sections_at = section_names_at + len(section_names)

    def header(name: str, kind: int, at: int, size: int, link: int = 0, info: int = 0, entry_size: int = 0) -> bytes:
        where = section_names.index(b"\0" + name.encode() + b"\0") + 1 if name else 0
        return struct.pack("<IIQQQQIIQQ", where, kind, 0, 0, at, size, link, info, 1, entry_size)

    sections = (
        header("", 0, 0, 0)
        + header(section, 1, offset, 0)
        + header(".symtab", 2, table_at, len(table), 3, 1, 24)
        + header(".strtab", 3, names_at, len(names))
        + header(".shstrtab", 3, section_names_at, len(section_names))
    )
    identity = b"\x7fELF\x02\x01\x01" + bytes(9)
    start = struct.pack("<HHIQQQIHHHHHH", kind, machine, 1, entry, 64, sections_at, 0, 64, 56, len(segments), 64, 5, 4)
    return identity + start + headers + contents + table + names + section_names + sections
