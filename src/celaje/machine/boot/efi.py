"""What a kernel that firmware of the UEFI kind has started finds of it: tables that say who the machine is.

There is no such firmware here. A kernel is started as it always is, and learns of the tables where Linux's EFI stub
would have put them: in the device tree's /chosen (Linux, Documentation/arch/arm/uefi.rst, which holds for RISC-V too).
Runtime services are none, and the table of them says so (UEFI 2.10, 4.6.2), so nothing is ever called.

    address    system table (4.3), 120 bytes, its pointers to what follows here:
               configuration tables (4.6): SMBIOS 3, runtime properties
               the vendor's name, UTF-16
               runtime properties, 8 bytes
               memory map (7.2): memory, and in it these pages, which the kernel leaves alone
               SMBIOS (smbios.py)
"""

from __future__ import annotations

import struct
import uuid
import zlib

from celaje.engine.memory import PAGE_SIZE
from celaje.machine.boot import smbios
from celaje.machine.boot.device_tree import Value, wide
from celaje.machine.boot.smbios import Identity

SMBIOS3 = uuid.UUID("f2fd1544-9794-4a2c-992e-e5bbcf20e394")
RUNTIME_PROPERTIES = uuid.UUID("eb66918a-7eef-402a-842e-931d21c38ae9")
_SIGNATURE = int.from_bytes(b"IBI SYST", "little")
_REVISION = 2 << 16 | 100  # 2.10
_HEADER = struct.Struct("<Q4I")  # signature, revision, size, checksum, reserved (4.2)
_BODY = struct.Struct("<QI4x6QQQQQ")  # vendor, its revision; consoles, three of two each; services; tables
_CONFIGURATION = struct.Struct("<16sQ")
_DESCRIPTOR = struct.Struct("<I4x4Q")  # type, physical, virtual, pages, attribute
_DESCRIPTOR_VERSION = 1
_CONVENTIONAL, _KEPT = 7, 9  # EfiConventionalMemory; EfiACPIReclaimMemory, which Linux leaves alone
_WRITE_BACK = 1 << 3
_SECURE_BOOT_DISABLED = 2
_VENDOR = "celaje\0".encode("utf-16-le")
_NO_SERVICES = struct.pack("<HHI", 1, 8, 0)


def tables(identity: Identity, address: int, memory: tuple[int, int]) -> tuple[bytes, dict[str, Value]]:
    """(what is to lie at `address`, whole pages; what /chosen says of it) for `memory`, its start and end."""
    system_size = _HEADER.size + _BODY.size
    configuration = address + system_size
    vendor = configuration + 2 * _CONFIGURATION.size
    properties = vendor + len(_VENDOR) + 7 & ~7
    memory_map = properties + len(_NO_SERVICES)
    described = memory_map + 3 * _DESCRIPTOR.size + 15 & ~15
    system = smbios.tables(identity, described)
    end = described + len(system) + PAGE_SIZE - 1 & -PAGE_SIZE

    content = bytearray(end - address)

    def put(at: int, data: bytes) -> None:
        content[at - address : at - address + len(data)] = data

    body = _BODY.pack(vendor, 1, *(0,) * 6, 0, 0, 2, configuration)
    put(address, _heading(body) + body)
    put(configuration, _CONFIGURATION.pack(SMBIOS3.bytes_le, described))
    put(configuration + _CONFIGURATION.size, _CONFIGURATION.pack(RUNTIME_PROPERTIES.bytes_le, properties))
    put(vendor, _VENDOR)
    put(properties, _NO_SERVICES)
    parts = ((memory[0], address, _CONVENTIONAL), (address, end, _KEPT), (end, memory[1], _CONVENTIONAL))
    for number, (start, stop, kind) in enumerate(parts):
        pages = (stop - start) // PAGE_SIZE
        put(memory_map + number * _DESCRIPTOR.size, _DESCRIPTOR.pack(kind, start, 0, pages, _WRITE_BACK))
    put(described, system)
    chosen: dict[str, Value] = {
        "linux,uefi-system-table": wide(address),
        "linux,uefi-mmap-start": wide(memory_map),
        "linux,uefi-mmap-size": 3 * _DESCRIPTOR.size,
        "linux,uefi-mmap-desc-size": _DESCRIPTOR.size,
        "linux,uefi-mmap-desc-ver": _DESCRIPTOR_VERSION,
        "linux,uefi-secure-boot": _SECURE_BOOT_DISABLED,
    }
    return bytes(content), chosen


def _heading(body: bytes) -> bytes:
    size = _HEADER.size + len(body)
    checksum = zlib.crc32(_HEADER.pack(_SIGNATURE, _REVISION, size, 0, 0) + body)
    return _HEADER.pack(_SIGNATURE, _REVISION, size, checksum, 0)
