"""What a SCSI disk says of itself: INQUIRY data, vital product data pages and mode pages, as bytes.

Standard INQUIRY data (SPC-4, 6.6.2):

     0  | peripheral qualifier 3, type 5: 0 a disk, 0x7f no logical unit | RMB | version: 6 SPC-4 |
     3  | format: 2 | bytes that follow | 0 | 0 | CMDQUE 0x02 |
     8  | vendor 8 | product 16 | revision 4 |
    58  | version descriptors 16 each: SAM-5, SPC-4, SBC-3 |

Vital product data page (7.8): | type | page code | bytes that follow 16 | ...

    00  the pages that there are                            80  unit serial number
    83  designators: vendor and serial, of T10's form       b0  block limits (SBC-3, 6.6.3)
    b1  block device characteristics: does not rotate       b2  logical block provisioning (6.6.4)

Mode page (7.5.8, SBC-3 6.5): | page code | bytes that follow | ...

    08  caching: WCE, the cache is a write-back one         0a  control: sense data in fixed format
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

VENDOR = b"CELAJE  "
PRODUCT = b"VOLUME          "
REVISION = b"1   "
NOTICE_PRODUCT = b"DEVICE SLOT     "
PROCESSOR = 0x03
NO_UNIT = 0x7F

MAX_RANGE_BLOCKS = 1 << 22  # 2 GiB: where the host has no holes, that many zeros are written one command long
MAX_UNMAP_RANGES = 16
GRANULARITY = 8  # blocks: what file systems use
MAX_SERIAL = 64

CACHING = 0x08
CONTROL = 0x0A
ALL_PAGES = 0x3F
ALL_SUBPAGES = 0xFF
WRITE_CACHE = 0x04

_inquiry = struct.Struct(">BBBB4x8s16s4s22xHHH10x").pack
#   WSNZ, compare and write, transfer granularity, transfer max, transfer optimal, prefetch,
#   unmap blocks, unmap descriptors, unmap granularity, unmap alignment, write same blocks
_block_limits = struct.Struct(">BBHIIIIIIIQ").pack


@dataclass(frozen=True, slots=True)
class Identity:
    """What of a disk its pages tell."""

    serial: bytes
    read_only: bool


def inquiry(present: bool = True) -> bytes:
    """Standard INQUIRY data, of this disk or of a logical unit that is not there."""
    kind = 0 if present else NO_UNIT
    data = bytearray(_inquiry(kind, 0, 6, 2 | 0x10, VENDOR, PRODUCT, REVISION, 0x00A0, 0x0460, 0x04C0))
    data[4], data[7] = len(data) - 5, 0x02
    return bytes(data)


def notice_inquiry() -> bytes:
    """That of a processor device (SPC-4, 6.6.2, type 3), which no driver of Linux's is for: see scsi_notice.py."""
    return bytes([PROCESSOR, 0, 6, 2, 31, 0, 0, 0]) + VENDOR + NOTICE_PRODUCT + REVISION


def vital_product_data(identity: Identity, page: int) -> bytes | None:
    """A page whole; None if there is no such."""
    serial = identity.serial[:MAX_SERIAL]
    limit = 0 if identity.read_only else MAX_RANGE_BLOCKS
    pages = {
        0x80: serial,
        # Code set ASCII, of the logical unit, T10 vendor identification.
        0x83: bytes([0x02, 0x01, 0x00, 8 + len(serial)]) + VENDOR + serial,
        0xB0: _block_limits(
            1, 0, GRANULARITY, 0, 0, 0, limit, MAX_UNMAP_RANGES if limit else 0, GRANULARITY, 1 << 31, limit
        ).ljust(60, b"\0"),
        0xB1: b"\x00\x01".ljust(60, b"\0"),
        # Threshold exponent; LBPU, LBPWS, LBPWS10; thin provisioned; no group.
        0xB2: bytes([0, 0, 0, 0]) if identity.read_only else bytes([0, 0xE0, 2, 0]),
    }
    pages[0x00] = bytes([0x00, *sorted(pages)])
    body = pages.get(page)
    return None if body is None else bytes([0, page]) + len(body).to_bytes(2, "big") + body


def mode_pages(page: int, subpage: int, *, changeable: bool, cached: bool) -> bytes | None:
    """The mode page asked for, or all; None if there is no such. Nothing of them is `changeable`."""
    cache = bytes([WRITE_CACHE if cached and not changeable else 0])
    pages = {CACHING: bytes([CACHING, 18]) + cache + bytes(17), CONTROL: bytes([CONTROL, 10]) + bytes(10)}
    if page == ALL_PAGES and subpage in (0, ALL_SUBPAGES):
        return b"".join(pages.values())
    return pages.get(page) if subpage == 0 else None
