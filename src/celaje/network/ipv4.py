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
MORE_FRAGMENTS = 0x2000
LONGEST = 65535  # bytes of a packet
TTL = 64  # hops of a packet of the network's own, where nobody says another number

ICMP = 1
TCP = 6
UDP = 17

BROADCAST = 0xFFFFFFFF

_header = struct.Struct(">BBHHHBBHII")


def text(address: int) -> str:
    """The dotted quad."""
    return str(ipaddress.IPv4Address(address))


def number(text: str) -> int:
    """The address that a dotted quad is. ValueError if it is none."""
    return int(ipaddress.IPv4Address(text))


def is_multicast(address: int) -> bool:
    return address >> 28 == 0xE


def is_link_local(address: int) -> bool:
    """169.254.0.0/16 (RFC 3927)."""
    return address >> 16 == 0xA9FE


def header(
    source: int,
    destination: int,
    protocol: int,
    length: int,
    ttl: int = TTL,
    tos: int = 0,
    identification: int = 0,
    fragment: int = DONT_FRAGMENT,
) -> bytes:
    """The header of a packet with `length` bytes after it. Unless `fragment` (flags, and offset in units of 8 bytes)
    says otherwise, it is not to be fragmented, and its identification says nothing (RFC 6864)."""
    total = HEADER + length
    # The fields are summed as 16-bit words; 32-bit numbers are their own sums modulo 0xFFFF (see checksum.py).
    words = 0x4500 + tos + total + identification + fragment + (ttl << 8) + protocol + source + destination
    sum_ = 0xFFFF - (words % 0xFFFF or 0xFFFF)
    return _header.pack(0x45, tos, total, identification, fragment, ttl, protocol, sum_, source, destination)


def fragments(
    source: int, destination: int, protocol: int, transport: bytes, mtu: int, ttl: int, tos: int, identification: int
) -> list[bytes]:
    """The packets in which more than `mtu` bytes travel; `transport` has its checksum."""
    size = (mtu - HEADER) & ~7
    packets = []
    for at in range(0, len(transport), size):
        piece = transport[at : at + size]
        flags = MORE_FRAGMENTS if at + size < len(transport) else 0
        head = header(source, destination, protocol, len(piece), ttl, tos, identification, flags | at >> 3)
        packets.append(head + piece)
    return packets
