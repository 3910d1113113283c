"""A static executable for RISC-V of one segment, all of it readable, writable and executable."""

from __future__ import annotations

import struct
from dataclasses import dataclass

RISCV_MACHINE = 243
FLAGS = 0x1 | 0x4  # compressed instructions, double-precision calling convention
HEADER_SPACE = 0x1000


@dataclass(frozen=True)
class Executable:
    """`image` is what memory holds from `base` on; `entry` is where execution begins."""

    base: int
    image: bytes
    entry: int

    def to_bytes(self, xlen: int) -> bytes:
        """The file (System V ABI, 4 and 5)."""
        identity = b"\x7fELF" + bytes([xlen // 32, 1, 1]) + bytes(9)
        size = len(self.image)
        if xlen == 64:
            head = struct.pack(
                "<16sHHIQQQIHHHHHH", identity, 2, RISCV_MACHINE, 1, self.entry, 64, 0, FLAGS, 64, 56, 1, 0, 0, 0
            )
            head += struct.pack("<IIQQQQQQ", 1, 7, HEADER_SPACE, self.base, self.base, size, size, 0x1000)
        else:
            head = struct.pack(
                "<16sHHIIIIIHHHHHH", identity, 2, RISCV_MACHINE, 1, self.entry, 52, 0, FLAGS, 52, 32, 1, 0, 0, 0
            )
            head += struct.pack("<IIIIIIII", 1, HEADER_SPACE, self.base, self.base, size, size, 7, 0x1000)
        return head.ljust(HEADER_SPACE, b"\0") + self.image
