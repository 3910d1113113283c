"""Bare-metal programs and kernels as ELF files (System V ABI; RISC-V ELF psABI 1.0), loaded by physical address."""

from __future__ import annotations

import io
from dataclasses import dataclass

from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

from celaje.errors import ImageError
from celaje.machine.boot.segment import Segment

SYMBOLS = ("tohost", "fromhost")
# OpenSBI and bbl have the symbols in this section, among data, and use HTIF only if the device tree says so.
SHF_ALLOC = 2
FIRMWARE_SECTION = ".htif"


@dataclass(frozen=True, slots=True)
class ElfProgram:
    """What is loaded, where it starts (guest-physical), and where its HTIF symbols are, as far as it has them."""

    segments: tuple[Segment, ...]
    entry: int
    symbols: dict[str, int]


def parse(data: bytes, name: str) -> ElfProgram:
    """The program in `data`, which came from the file `name`. ImageError where it is none for 64-bit RISC-V."""
    try:
        return _parse(data, name)
    except ImageError:
        raise
    except (
        Exception
    ) as error:  # pyelftools lets many kinds escape from a damaged file (struct, construct, index, unicode)
        raise ImageError(
            f"{name} is a damaged ELF file ({type(error).__name__}: {error}); build or get it again"
        ) from error


def _parse(data: bytes, name: str) -> ElfProgram:
    file = ELFFile(io.BytesIO(data))
    machine = file["e_machine"]
    if machine != "EM_RISCV":
        raise ImageError(f"{name} is for the architecture {file.get_machine_arch()}; this machine needs 64-bit RISC-V")
    if file.elfclass != 64:
        raise ImageError(
            f"{name} is a {file.elfclass}-bit RISC-V program; this machine needs 64-bit (compile for rv64)"
        )
    if not file.little_endian:
        raise ImageError(f"{name} is big-endian; this machine needs a little-endian program")
    if file["e_type"] not in ("ET_EXEC", "ET_DYN"):
        raise ImageError(f"{name} is not linked ({file['e_type']}); link it into a program")
    segments: list[Segment] = []
    entry = virtual_entry = int(file["e_entry"])
    for header in file.iter_segments("PT_LOAD"):
        start, filled, size = int(header["p_offset"]), int(header["p_filesz"]), int(header["p_memsz"])
        if start + filled > len(data) or filled > size:
            raise ELFError(f"a segment of {filled} bytes at {start:#x} is not in the file")
        if size:
            heading = _heading(file, start, filled)
            segments.append(Segment(int(header["p_paddr"]), data[start : start + filled], size, heading))
            offset = virtual_entry - int(header["p_vaddr"])
            if 0 <= offset < size:
                entry = int(header["p_paddr"]) + offset
    if not segments:
        raise ImageError(f"{name} has nothing to load; link it into a program")
    return ElfProgram(tuple(segments), entry, _symbols(file))


def _heading(file: ELFFile, start: int, filled: int) -> int:
    """How many bytes at the beginning of a segment belong to no section: the file's headers, where they are in it."""
    if start >= int(file["e_phoff"]):
        return 0
    allocated = (section for section in file.iter_sections() if section["sh_flags"] & SHF_ALLOC)
    offsets = [int(section["sh_offset"]) - start for section in allocated if section["sh_size"]]
    return min((offset for offset in offsets if 0 <= offset <= filled), default=0)


def _symbols(file: ELFFile) -> dict[str, int]:
    found: dict[str, int] = {}
    for section in file.iter_sections():
        if isinstance(section, SymbolTableSection):
            for name in SYMBOLS:
                for symbol in section.get_symbol_by_name(name) or ():
                    place = symbol["st_shndx"]
                    if isinstance(place, int) and file.get_section(place).name != FIRMWARE_SECTION:
                        found[name] = int(symbol["st_value"])
    return found
