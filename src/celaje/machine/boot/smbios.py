"""Who the machine is, for software that asks firmware: an SMBIOS 3 entry point and structures (DMTF DSP0134 3.7).

    entry point (5.2.2), 24 bytes                     structures (6.1), each
    "_SM3_" checksum length major minor docrev        type length handle(16), formatted part, then the strings
    revision reserved maximum(32) address(64)         that it numbers from 1, each ended by 0, and another 0

Linux shows them in /sys/class/dmi/id; clouds' software looks there for its cloud.
"""

from __future__ import annotations

import struct
import uuid
from dataclasses import dataclass

ENTRY_POINT_BYTES = 24
_VERSION = (3, 7, 0)
_FIRMWARE, _SYSTEM, _BASEBOARD, _CHASSIS, _END = 0, 1, 2, 3, 127
_HOSTING_BOARD = 1 << 0  # 7.3.1
_MOTHERBOARD = 0x0A  # 7.3.2
_OTHER, _UNKNOWN, _SAFE = 1, 2, 3  # 7.4.1 to 7.4.3
_POWER_SWITCH = 6  # 7.2.2
_NOT_SUPPORTED = 1 << 3  # 7.1.1
_VIRTUAL_MACHINE = 1 << 4  # 7.1.2.2


@dataclass(frozen=True, slots=True)
class Identity:
    """What a machine calls itself. `tag` names this very one, as a label on its board would. All become ASCII."""

    manufacturer: str
    product: str
    uuid: uuid.UUID
    tag: str = ""


def tables(identity: Identity, address: int) -> bytes:
    """Entry point and structures, for `address` (guest-physical, a multiple of 16)."""
    serial = str(identity.uuid)
    maker, product, tag = identity.manufacturer, identity.product, identity.tag
    firmware = struct.pack(
        "<BBHBBQ2B4BH", 1, 2, 0, 3, 0, _NOT_SUPPORTED, 0, _VIRTUAL_MACHINE, *(0xFF,) * 4, 0
    )
    # SMBIOS has the first three numbers of a UUID in little-endian order (7.2.1).
    system = struct.pack("<4B16s3B", 1, 2, 0, 3, identity.uuid.bytes_le, _POWER_SWITCH, 0, 0)
    baseboard = struct.pack("<6BBHBB", 1, 2, 0, 0, 3, _HOSTING_BOARD, 0, _CHASSIS, _MOTHERBOARD, 0)
    chassis = struct.pack("<9BI5B", 1, _OTHER, 0, 2, 3, _SAFE, _SAFE, _UNKNOWN, _UNKNOWN, *(0,) * 6)
    structures = b"".join(
        (
            _structure(_FIRMWARE, firmware, maker, "1", "01/01/2026"),
            _structure(_SYSTEM, system, maker, product, serial),
            _structure(_BASEBOARD, baseboard, maker, product, tag),
            _structure(_CHASSIS, chassis, maker, serial, tag),
            _structure(_END, b""),
        )
    )
    heading = (b"_SM3_", ENTRY_POINT_BYTES, *_VERSION, 1, 0, len(structures), address + ENTRY_POINT_BYTES)
    entry = struct.pack("<5sx6BIQ", *heading)
    return entry[:5] + bytes([-sum(entry) % 256]) + entry[6:] + structures


def _structure(kind: int, formatted: bytes, *strings: str) -> bytes:
    """One structure; its handle is its type, of which there is one each. A string that is empty is a space."""
    texts = b"".join((text or " ").encode("ascii", "replace") + b"\0" for text in strings)
    return struct.pack("<2BH", kind, 4 + len(formatted), kind) + formatted + (texts or b"\0") + b"\0"
