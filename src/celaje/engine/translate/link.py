"""From an ELF object file to one block of bytes that runs wherever it is mapped.

LLVM emits position-independent code; what is left to do is to lay the sections out and to fill in distances between
them. A relocation that is no distance (an absolute address, a symbol from outside) is refused: the code cache holds
only what needs nothing from the process that maps it. ELF gABI; relocation types of the x86-64 and AArch64 psABIs.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from dataclasses import dataclass

from elftools.elf.elffile import ELFFile
from elftools.elf.relocation import RelocationSection
from elftools.elf.sections import SymbolTableSection

from celaje.errors import CelajeError

SECTION_ALIGNMENT = 64


@dataclass(frozen=True)
class Linked:
    """Position-independent code and data, and where its functions are."""

    code: bytes
    symbols: dict[str, int]


def _distance(kind: str) -> Callable[[bytearray, int, int], None]:
    def patch(code: bytearray, at: int, value: int) -> None:
        struct.pack_into(kind, code, at, value - at)

    return patch


def _aarch64_branch(code: bytearray, at: int, value: int) -> None:
    (word,) = struct.unpack_from("<I", code, at)
    struct.pack_into("<I", code, at, (word & 0xFC000000) | ((value - at) >> 2 & 0x3FFFFFF))


def _aarch64_page(code: bytearray, at: int, value: int) -> None:
    (word,) = struct.unpack_from("<I", code, at)
    pages = ((value & ~0xFFF) - (at & ~0xFFF)) >> 12
    struct.pack_into("<I", code, at, (word & 0x9F00001F) | (pages & 3) << 29 | (pages >> 2 & 0x7FFFF) << 5)


def _aarch64_low(scale: int) -> Callable[[bytearray, int, int], None]:
    def patch(code: bytearray, at: int, value: int) -> None:
        (word,) = struct.unpack_from("<I", code, at)
        struct.pack_into("<I", code, at, (word & ~(0xFFF << 10)) | ((value & 0xFFF) >> scale) << 10)

    return patch


PATCHES: dict[tuple[str, int], Callable[[bytearray, int, int], None]] = {
    ("EM_X86_64", 2): _distance("<i"),  # PC32
    ("EM_X86_64", 4): _distance("<i"),  # PLT32
    ("EM_X86_64", 24): _distance("<q"),  # PC64
    ("EM_AARCH64", 260): _distance("<q"),  # PREL64
    ("EM_AARCH64", 261): _distance("<i"),  # PREL32
    ("EM_AARCH64", 275): _aarch64_page,  # ADR_PREL_PG_HI21
    ("EM_AARCH64", 277): _aarch64_low(0),  # ADD_ABS_LO12_NC
    ("EM_AARCH64", 278): _aarch64_low(0),  # LDST8_ABS_LO12_NC
    ("EM_AARCH64", 282): _aarch64_branch,  # JUMP26
    ("EM_AARCH64", 283): _aarch64_branch,  # CALL26
    ("EM_AARCH64", 284): _aarch64_low(1),  # LDST16_ABS_LO12_NC
    ("EM_AARCH64", 285): _aarch64_low(2),  # LDST32_ABS_LO12_NC
    ("EM_AARCH64", 286): _aarch64_low(3),  # LDST64_ABS_LO12_NC
    ("EM_AARCH64", 299): _aarch64_low(4),  # LDST128_ABS_LO12_NC
}


def link(object_file: bytes) -> Linked:
    """Lay out and relocate. The block must be mapped at a multiple of 4096."""
    elf = ELFFile(io.BytesIO(object_file))
    machine = elf["e_machine"]
    placed: dict[int, int] = {}
    code = bytearray()
    for index, section in enumerate(elf.iter_sections()):
        if section["sh_flags"] & 2 and section["sh_type"] == "SHT_PROGBITS" and section["sh_size"]:
            if section["sh_flags"] & 1:
                raise CelajeError(f"generated code wants writable data ({section.name}); it must keep state elsewhere")
            if section.name.startswith(".eh_frame"):
                continue
            code += bytes(-len(code) % SECTION_ALIGNMENT)
            placed[index] = len(code)
            code += section.data()
    table = next(section for section in elf.iter_sections() if isinstance(section, SymbolTableSection))
    where: list[int | None] = []
    symbols: dict[str, int] = {}
    for symbol in table.iter_symbols():
        section_index = symbol["st_shndx"]
        address = placed[section_index] + symbol["st_value"] if section_index in placed else None
        where.append(address)
        if address is not None and symbol["st_info"]["type"] == "STT_FUNC":
            symbols[symbol.name] = address
    for section in elf.iter_sections():
        if not isinstance(section, RelocationSection) or section["sh_info"] not in placed:
            continue
        base = placed[section["sh_info"]]
        for relocation in section.iter_relocations():
            target = where[relocation["r_info_sym"]]
            kind = relocation["r_info_type"]
            patch = PATCHES.get((machine, kind))
            name = table.get_symbol(relocation["r_info_sym"]).name
            if target is None or patch is None:
                raise CelajeError(f"generated code needs relocation {kind} against {name!r}, which cannot be shared")
            patch(code, base + relocation["r_offset"], target + relocation["r_addend"])
    return Linked(bytes(code), symbols)
