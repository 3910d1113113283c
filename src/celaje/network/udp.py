"""UDP over IPv4 (RFC 768): source port, destination port, length, checksum, 2 bytes each."""

from __future__ import annotations

import struct

from celaje.network.checksum import pseudo_header_sum
from celaje.network.ipv4 import UDP

HEADER = 8

_header = struct.Struct(">HHHH")


def header(source: int, source_port: int, destination: int, port: int, length: int) -> bytes:
    """The header of a datagram with `length` bytes of data, whose checksum is left to be computed: its field holds
    the sum of the pseudo header, as `Network.deliver` wants it."""
    whole = HEADER + length
    return _header.pack(source_port, port, whole, pseudo_header_sum(source, destination, UDP, whole))


def ports(datagram: memoryview) -> tuple[int, int]:
    """Source and destination port of at least 4 bytes of a UDP or TCP header."""
    return int.from_bytes(datagram[:2], "big"), int.from_bytes(datagram[2:4], "big")


def data(datagram: memoryview) -> memoryview | None:
    """What a datagram of at least 8 bytes carries; None if its length field contradicts its packet."""
    length = int.from_bytes(datagram[4:6], "big")
    return datagram[HEADER:length] if HEADER <= length <= len(datagram) else None
