"""IPv4 (RFC 791): addresses as numbers, and headers without options.

0   1  version 4, header length 5 words    8   1  TTL
1   1  DSCP and ECN                        9   1  protocol
2   2  total length                        10  2  header checksum
4   2  identification                      12  4  source
6   2  flags, fragment offset              16  4  destination
"""

from __future__ import annotations

import ipaddress
import struct

HEADER = 20
DONT_FRAGMENT = 0x4000
LONGEST = 65535  # bytes of a packet

ICMP = 1
TCP = 6
UDP = 17

BROADCAST = 0xFFFFFFFF

_header = struct.Struct(">BBHHHBBHII")


def text(address: int) -> str:
    """The dotted quad."""
    return str(ipaddress.IPv4Address(address))


def is_multicast(address: int) -> bool:
    return address >> 28 == 0xE


def header(source: int, destination: int, protocol: int, length: int, ttl: int = 64, tos: int = 0) -> bytes:
    """The header of a packet with `length` bytes after it, not to be fragmented (so its identification says nothing,
    RFC 6864)."""
    total = HEADER + length
    # The fields are summed as 16-bit words; 32-bit numbers are their own sums modulo 0xFFFF (see checksum.py).
    words = 0x4500 + tos + total + DONT_FRAGMENT + (ttl << 8) + protocol + source + destination
    return _header.pack(
        0x45, tos, total, 0, DONT_FRAGMENT, ttl, protocol, 0xFFFF - (words % 0xFFFF or 0xFFFF), source, destination
    )
