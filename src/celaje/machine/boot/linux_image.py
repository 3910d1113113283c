"""The RISC-V Linux kernel image (Linux, Documentation/arch/riscv/boot-image-header.rst), plain or gzipped.

0   code0       4    first instruction: a jump, or "MZ" where the kernel is an EFI program too
4   code1       4
8   text_offset 8    where to load it: this many bytes from the start of memory
16  image_size  8    bytes that it takes in memory, more than the file has
24  flags       8    bit 0: big-endian
32  version     4    major << 16 | minor; 0.2 has magic2
36  reserved    12
48  magic       8    "RISCV\\0\\0\\0", deprecated
56  magic2      4    "RSC\\x05"
60  reserved    4
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

from celaje.errors import ImageError

HEADER = struct.Struct("<2I3QI12x8s4s4x")
MAGIC = b"RISCV\0\0\0"
MAGIC2 = b"RSC\x05"
GZIP = b"\x1f\x8b"
LARGEST_UNPACKED = 1 << 30


@dataclass(frozen=True, slots=True)
class LinuxImage:
    """A kernel: its bytes, where it wants to be and what it takes there (bytes)."""

    data: bytes
    text_offset: int
    image_size: int


def is_linux_image(data: bytes) -> bool:
    """Whether `data` carries the magic of a RISC-V kernel."""
    return data[56:60] == MAGIC2 or data[48:56] == MAGIC


def unpack(data: bytes, name: str) -> bytes:
    """`data`, out of its gzip where it is in one. ImageError, naming the file `name`, where that is damaged."""
    if data[:2] != GZIP:
        return data
    inflater = zlib.decompressobj(wbits=31)
    try:
        unpacked = inflater.decompress(data, LARGEST_UNPACKED)
    except zlib.error as error:
        raise ImageError(f"{name} is gzipped and damaged ({error}); get the file again") from error
    if inflater.unconsumed_tail:
        raise ImageError(
            f"{name} unpacks to more than {LARGEST_UNPACKED >> 20} MiB, which no kernel does; give a kernel"
        )
    if not inflater.eof:
        raise ImageError(f"{name} is gzipped and cut short; get the file again")
    return unpacked


def parse(data: bytes, name: str) -> LinuxImage:
    """The kernel in `data` (not gzipped), which came from the file `name`. ImageError where it is none for RISC-V."""
    if len(data) < HEADER.size or not is_linux_image(data):
        found = "a Linux image for Arm" if data[56:60] == b"ARM\x64" else "neither"
        raise ImageError(
            f"{name} must be a Linux image for RISC-V (plain or gzipped) or an ELF file, and is {found}; "
            "a flat binary is started in machine mode with --firmware"
        )
    _, _, text_offset, image_size, flags, _, _, _ = HEADER.unpack_from(data)
    if flags & 1:
        raise ImageError(f"{name} is a big-endian kernel; celaje's RISC-V machines are little-endian")
    if text_offset % 4096:
        raise ImageError(
            f"{name} wants to be loaded at an odd offset, {text_offset:#x}; it must be whole pages of 4096"
        )
    return LinuxImage(data, text_offset, max(image_size, len(data)))
